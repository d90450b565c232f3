"""The page with what docker-compose.secure.yml gives it: its own certificate, and a token from a file."""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.composed import make_secrets, secure_services
from tests.page.live import Served


def test_it_speaks_tls_and_asks_for_the_token_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    make_secrets(secrets)
    for name, value in secure_services()["page"]["environment"].items():
        monkeypatch.setenv(name, str(value or "").replace("/secrets/", f"{secrets}/page/"))
    token = (secrets / "user" / "page.token").read_text().strip()
    with Served("--runs", tmp_path) as served:
        assert served.url.startswith("https://") and token not in served.url
        context = ssl.create_default_context(cafile=str(secrets / "user" / "ca.crt"))
        connection = http.client.HTTPSConnection(f"localhost:{urlsplit(served.url).port}", timeout=20, context=context)
        try:
            found = []
            for path in ("/healthz", "/", f"/?token={token}"):
                connection.request("GET", path)
                answer = connection.getresponse()
                answer.read()
                found.append((answer.status, answer.getheader("set-cookie") or ""))
        finally:
            connection.close()
    assert [status for status, _ in found] == [200, 403, 303]
    assert token in found[2][1] and "Secure" in found[2][1] and "HttpOnly" in found[2][1]
