"""From flags to a page that is served until a signal comes."""

from __future__ import annotations

import gc
import os
import socket
import ssl

import uvicorn
from fastapi import FastAPI
from nicegui import ui
from starlette.responses import PlainTextResponse

from page import site
from page.flags import PageFlags
from page.guard import HEALTH_PATH, Guard, is_loopback, require_guarded, tokens_of
from simulator.errors import SettingError
from simulator.flags import parse_flags
from simulator.live.controls import TOKEN
from simulator.security.credentials import Credentials

BIND, NAMES = "FLICKER_BIND", "FLICKER_NAMES"
"""Environment: the address at which a container's port can be reached; by which names, beside localhost and addresses,
browsers may call it, separated by spaces."""


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
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_route(HEALTH_PATH, lambda request: PlainTextResponse("ok\n"))
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
