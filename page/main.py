"""From flags to a page that is served until a signal comes."""

from __future__ import annotations

import gc
import os
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import FastAPI
from nicegui import ui
from starlette.responses import PlainTextResponse

from page import site
from page.guard import OPEN, Guard, is_loopback, require_guarded, tokens_of
from simulator.config import require
from simulator.errors import SettingError
from simulator.flags import Flat, Secured, file_from_env, parse_flags, require_address
from simulator.live.controls import TOKEN
from simulator.security.credentials import Credentials

BIND, NAMES = "FLICKER_BIND", "FLICKER_PAGE_NAMES"
"""Environment: the address at which a container's port can be reached; by which names, beside localhost and addresses,
browsers may call it, separated by spaces."""


@dataclass(frozen=True)
class PageFlags:
    """Show a running system, and finished results, in a browser.

    FLICKER_PAGE_TOKEN of the environment, or a file, is what the page asks everybody for; without one it serves this
    machine alone.
    """

    router: str = ""
    """host:port of the router, of several with commas between. Without one nobody can be asked: with --metrics the page
    shows what is measured, as of flicker shadow, with --runs finished results."""
    metrics: tuple[str, ...] = ()
    """Metrics pages of trainer, routers and load, such as http://127.0.0.1:9100/metrics; which is whose is seen by what
    is on it. A name of several addresses stands for all of them."""
    runs: tuple[Path, ...] = ()
    """Finished results: folders that flicker run, up, compare or sweep left, or folders of such folders."""
    host: str = "127.0.0.1"
    """Address to listen at; one that other machines reach needs a token."""
    port: int = 0
    """Port, 0 for any free one; the address is printed."""
    controls: Path | None = None
    """Socket at which `flicker up` takes orders; without one the page only shows."""
    page_token_file: Path | None = file_from_env("FLICKER_PAGE_TOKEN_FILE")
    """File of tokens that open the page, one a line, where FLICKER_PAGE_TOKEN says none; read again when it changes
    (default: FLICKER_PAGE_TOKEN_FILE). With those of --token-file the router is asked."""
    security: Annotated[Secured, Flat] = field(default_factory=Secured)

    def __post_init__(self) -> None:
        for address in filter(None, self.router.split(",")):
            require_address("router", address)
        scheme = "https" if self.security.tls_ca else "http"
        hint = f"an address such as {scheme}://HOST:PORT/metrics: https with --tls-ca or FLICKER_TLS_CA, http without"
        for url in self.metrics:
            require(url.startswith(f"{scheme}://"), "metrics", url, hint)
        for path in self.runs:
            require(path.exists(), "runs", path, "nothing there: name a folder of results")
        anything = bool(self.router or self.metrics or self.runs)
        require(anything, "router", "none", "name one, or --metrics, or results with --runs")
        require(0 <= self.port < 65_536, "port", self.port, "from 0 to 65535")


def main(arguments: list[str]) -> None:
    """Serve. Raises FlickerError for settings that cannot be."""
    flags = parse_flags(PageFlags, "page", arguments)
    credentials, tokens = flags.security.credentials(), tokens_of(os.environ.get(TOKEN, ""), flags.page_token_file)
    reached_at = os.environ.get(BIND) or flags.host
    require_guarded(next(iter(tokens()), ""), reached_at, flags.controls is not None)
    listening = listen(flags.host, flags.port)
    host, port = flags.host, listening.getsockname()[1]
    where = f"what {TOKEN} is" if os.environ.get(TOKEN) else f"a line of {flags.page_token_file}"
    note = f"  (add ?token= and {where})" if tokens() else ""  # not the token itself: this line ends in a log
    address = f"{credentials.scheme}://{f'[{host}]' if ':' in host else host}:{port}/{note}"
    config = uvicorn.Config(
        Guard(application(flags), tokens, is_loopback(reached_at), os.environ.get(NAMES, "").split()),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        ssl_certfile=credentials.tls_cert,
        ssl_keyfile=credentials.tls_key,
    )
    follow(config, credentials)
    gc.freeze()  # what is there by now stays
    Server(config, address).run(sockets=[listening])


def follow(config: uvicorn.Config, credentials: Credentials) -> None:
    """Have each connection get the certificate that the files hold by then: uvicorn reads them once."""
    config.load()
    now = credentials.browser_context

    def renew(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Asked with each connection, before anything is shown."""
        assert now is not None
        connection.context = now()

    if config.ssl is not None:
        config.ssl.sni_callback = renew


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises SettingError where the port cannot be had."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as problem:
        raise SettingError("port", port, f"{problem.strerror or problem}: name a free port, or 0 for any") from None


def application(flags: PageFlags) -> FastAPI:
    """The page, and /healthz."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_route(OPEN, lambda request: PlainTextResponse("ok\n"))
    site.build(flags)
    ui.run_with(
        app,
        title="Flicker",
        favicon="⚡",
        dark=None,
        language="en-US",
        binding_refresh_interval=None,
        reconnect_timeout=30.0,  # seconds: a busy browser or a sleeping phone finds its page as it was
        message_history_length=200,  # of each viewer; whoever was away for longer loads the page again
        tailwind=False,
        show_welcome_message=False,
    )
    return app


class Server(uvicorn.Server):
    """Says where the page is as soon as it is."""

    def __init__(self, config: uvicorn.Config, address: str) -> None:
        super().__init__(config)
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        if self.started:
            print(f"Page: {self._address}", flush=True)
