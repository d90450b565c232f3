"""The page by HTTPS alone, with a token from a file, beside a router and metrics pages that speak TLS."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from simulator.flags import Secured
from tests.page.conftest import Open
from tests.page.live import Live, Served, until
from tests.page.test_guard import UPGRADE
from tests.security.made import OTHER_TOKEN, TOKEN, Authority, secret

OPENS, OPENS_NEXT = "a-token-of-the-page-1", "a-token-of-the-page-2"


class Safe:
    """A page with certificate and tokens, and what it looks at."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "ca")
        tokens = secret(folder / "tokens", OTHER_TOKEN, TOKEN)
        self.live = Live(Secured(**self.authority.issue("server"), tls_ca=None, token_file=tokens))
        self.page_tokens = secret(folder / "page.token", OPENS)
        self.environment = {
            **{f"FLICKER_{name.upper()}": file for name, file in self.authority.issue("page").items()},
            "FLICKER_TLS_CA": self.authority.ca,
            "FLICKER_TOKEN_FILE": secret(folder / "token", TOKEN),
            "FLICKER_PAGE_TOKEN_FILE": self.page_tokens,
        }

    def served(self) -> Served:
        """The page."""
        return Served("--router", self.live.address, "--metrics", *self.live.metrics, **self.environment)

    def status(self, url: str, path: str, **headers: str) -> int:
        """What a GET is answered with, by somebody who believes the authority alone."""
        context = ssl.create_default_context(cafile=str(self.authority.ca))
        connection = http.client.HTTPSConnection(urlsplit(url).netloc, timeout=30, context=context)
        try:
            connection.request("GET", path, headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def certificate(self, url: str) -> bytes | None:
        """The one that a new connection is shown."""
        where, context = urlsplit(url), ssl.create_default_context(cafile=str(self.authority.ca))
        with socket.create_connection((str(where.hostname), where.port or 0), 30) as connection:
            with context.wrap_socket(connection, server_hostname=where.hostname) as safe:
                return safe.getpeercert(binary_form=True)


@pytest.fixture
def safe(tmp_path: Path) -> Iterator[Safe]:
    made = Safe(tmp_path)
    yield made
    made.live.close()


def test_a_page_by_https_shows_what_it_reads_by_tls(safe: Safe, tab: Open) -> None:
    with safe.served() as served:
        assert served.url.startswith("https://")
        one = tab(f"{served.url}?token={OPENS}")
        expect(one.page.get_by_text(f"running, router {safe.live.address}")).to_be_visible()
        for row in one.page.locator("tr", has_text="https://").all():
            expect(row).to_contain_text("answers")
        (cookie,) = one.context.cookies()
        assert cookie["secure"] and cookie["httpOnly"] and OPENS not in one.page.url
        assert one.errors == [] and one.asked == {urlsplit(served.url).netloc}


def test_who_has_no_token_or_no_tls_is_refused(safe: Safe) -> None:
    with safe.served() as served:
        with pytest.raises((OSError, http.client.HTTPException)):
            plain = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=30)
            plain.request("GET", "/healthz")
            plain.getresponse()
        assert safe.status(served.url, "/healthz") == 200
        for path in ("/", f"/?token={TOKEN}", f"/?token={OPENS}x", "/_nicegui/"):
            assert safe.status(served.url, path) == 403, path
        assert safe.status(served.url, "/_nicegui_ws/socket.io/?EIO=4&transport=websocket", **UPGRADE) == 403
        assert safe.status(served.url, f"/?token={OPENS}") == 303


def test_a_new_certificate_and_a_new_token_need_no_restart(safe: Safe) -> None:
    with safe.served() as served:
        before = safe.certificate(served.url)
        safe.authority.issue("page")
        secret(safe.page_tokens, OPENS_NEXT)
        until(lambda: safe.certificate(served.url) != before, "another certificate is shown")
        until(lambda: safe.status(served.url, f"/?token={OPENS_NEXT}") == 303, "the new token opens it")
        assert safe.status(served.url, f"/?token={OPENS}") == 403
