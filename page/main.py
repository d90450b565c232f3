"""From flags to a page that is served until a signal comes: a heading that says what is running, the tabs, and the one
source that feeds all who have it open.
"""

from __future__ import annotations

import gc
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import FastAPI
from markupsafe import Markup
from nicegui import app, ui
from starlette.responses import PlainTextResponse

from page.asking import RouterClient
from page.guard import HEALTH_PATH, Guard, is_loopback, require_guarded, tokens_of
from page.now import Now, ago
from page.parts import Html
from page.playground import Playground
from page.runs import Results, Runs
from page.source import LiveSource
from page.what_if import WhatIf
from simulator.config import require
from simulator.errors import SettingError
from simulator.flags import Flat, Secured, file_from_env, parse_flags, require_address
from simulator.live.controls import TOKEN
from simulator.report.kit import style
from simulator.security.credentials import Credentials

BIND, NAMES = "FLICKER_BIND", "FLICKER_NAMES"
"""Environment: the address at which a container's port can be reached; by which names, beside localhost and addresses,
browsers may call it, separated by spaces."""
Show = Callable[[], Awaitable[None]]
"""Brings a tab up to date."""
TICK = 0.5
"""Seconds between two updates of a viewer."""


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
        has_source = bool(self.router or self.metrics or self.runs)
        require(has_source, "router", "none", "name one, or --metrics, or results with --runs")
        require(0 <= self.port < 65_536, "port", self.port, "from 0 to 65535")


def main(arguments: list[str]) -> None:
    """Serve. Raises FlickerError for settings that cannot be."""
    flags = parse_flags(PageFlags, "page", arguments)
    credentials, tokens = flags.security.credentials(), tokens_of(os.environ.get(TOKEN, ""), flags.page_token_file)
    reached_at = os.environ.get(BIND) or flags.host
    require_guarded(next(iter(tokens()), ""), reached_at, flags.controls is not None)
    listening = listen(flags.host, flags.port)
    host, port = flags.host, listening.getsockname()[1]
    hint = f"what {TOKEN} is" if os.environ.get(TOKEN) else f"a line of {flags.page_token_file}"
    note = f"  (add ?token= and {hint})" if tokens() else ""  # not the token itself: this line ends in a log
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
    renew_certificates(config, credentials)
    gc.freeze()  # what is there by now stays
    PageServer(config, address).run(sockets=[listening])


def renew_certificates(config: uvicorn.Config, credentials: Credentials) -> None:
    """Have each connection get the certificate that the files hold by then: uvicorn reads them once."""
    config.load()
    current_context = credentials.browser_context

    def renew(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Called with each connection, before the handshake."""
        assert current_context is not None
        connection.context = current_context()

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
    service = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    service.add_route(HEALTH_PATH, lambda request: PlainTextResponse("ok\n"))
    build(flags)
    ui.run_with(
        service,
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
    return service


class PageServer(uvicorn.Server):
    """Prints the page's address as soon as it is served."""

    def __init__(self, config: uvicorn.Config, address: str) -> None:
        super().__init__(config)
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        if self.started:
            print(f"Page: {self._address}", flush=True)


def build(flags: PageFlags) -> None:
    """Declare the page; each browser that opens it gets its own."""
    credentials = flags.security.credentials()
    router = RouterClient(flags.router, credentials) if flags.router else None
    source, results = LiveSource(router, flags.metrics, credentials), Results(flags.runs)
    css = style("roles", "kit") + Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    if flags.router or flags.metrics:
        app.on_startup(source.start)
        app.on_shutdown(source.stop)

    @ui.page("/")
    def home() -> None:
        ui.add_css(css)
        viewer = ui.context.client
        viewer.on_connect(lambda: source.add_viewer(viewer.id))
        viewer.on_disconnect(lambda: source.remove_viewer(viewer.id))
        Home(flags, source, results)


class Home:
    """The page of one viewer."""

    def __init__(self, flags: PageFlags, source: LiveSource, results: Results) -> None:
        self._flags, self._source, self._results = flags, source, results
        self._viewer = ui.context.client
        self._is_live = bool(flags.router or flags.metrics)
        makers = self._makers()
        with ui.element("header"):
            ui.html("<h1>Flicker</h1>", sanitize=False)
            self._status = Html("status")
        with ui.tabs().props("align=left no-caps") as self._tabs:
            for name in makers:
                ui.tab(name)
        self._show_tab: dict[str, Show] = {}
        first_tab = next(iter(makers))
        with ui.tab_panels(self._tabs, value=first_tab, animated=False, on_change=self._tick).props("keep-alive"):
            for name, make in makers.items():
                with ui.tab_panel(name):
                    self._show_tab[name] = make()
        ui.timer(TICK, self._tick)

    def _makers(self) -> dict[str, Callable[[], Show]]:
        """Name of each tab -> what makes it, and returns what shows the newest in it."""
        source, router, controls = self._source, self._source.router, self._flags.controls
        makers: dict[str, Callable[[], Show]] = {"Now": lambda: Now(source, controls).show} if self._is_live else {}
        if router is not None:
            makers["Playground"] = lambda: Playground(source, router).show
        finished: dict[str, Callable[[], Show]] = {}
        if self._flags.runs:
            finished["Runs"] = lambda: Runs(self._results).show
        what_if: dict[str, Callable[[], Show]] = {"What if": lambda: WhatIf(source, self._results).show}
        return makers | what_if | finished if self._is_live else finished | what_if

    async def _tick(self) -> None:
        """Update the tab that is open, of a viewer that is connected."""
        if not self._viewer.has_socket_connection:
            return
        self._status.show(self._running())
        await self._show_tab[self._tabs.value]()

    def _running(self) -> Markup:
        source = self._source
        if not self._is_live:
            return Markup("<p>finished results</p>")
        if source.looks == 0:
            return Markup("<p>Looking ...</p>")
        silence = time.time() - source.heard
        if silence > 3:
            age = f" for {ago(source.heard)}" if source.heard else ""
            return Markup('<p class="away" role="alert">Nobody answers{}: what is shown is old.</p>').format(age)
        return Markup("<p>running, router {}</p>").format(self._flags.router or "not asked")
