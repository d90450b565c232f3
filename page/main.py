"""From flags to a page that is served until a signal comes."""

from __future__ import annotations

import gc
import os
import socket
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from nicegui import ui
from starlette.responses import PlainTextResponse

from page import site
from page.flags import PageFlags
from page.guard import OPEN, Guard, is_loopback, require_guarded
from simulator.errors import SettingError
from simulator.flags import parse_flags
from simulator.live.controls import TOKEN
from simulator.security.credentials import Credentials
from simulator.security.watched import secret_file

BIND, NAMES, TOKEN_FILE = "FLICKER_BIND", "FLICKER_NAMES", "FLICKER_PAGE_TOKEN_FILE"
"""Environment: the address at which a container's port can be reached; by which names, beside localhost and addresses,
browsers may call it, separated by spaces; a file whose first line is the token, where TOKEN does not hold it."""


def main(arguments: list[str]) -> None:
    """Serve. Raises FlickerError for settings that cannot be."""
    flags = parse_flags(PageFlags, "page", arguments)
    token = os.environ.get(TOKEN, "")
    if file := os.environ.get(TOKEN_FILE):
        token = token or secret_file(TOKEN_FILE, Path(file))()[0].decode()
    credentials = Credentials.from_environment()
    reached_at = os.environ.get(BIND) or flags.host
    require_guarded(token, reached_at, flags.controls is not None)
    listening = listen(flags.host, flags.port)
    host, port = flags.host, listening.getsockname()[1]
    note = f"  (add ?token= and what {TOKEN} is)" if token else ""  # not the token itself: this line ends in a log
    scheme = "https" if credentials.tls_cert else "http"
    address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/{note}"
    config = uvicorn.Config(
        Guard(application(flags), token, is_loopback(reached_at), os.environ.get(NAMES, "").split()),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        ssl_certfile=credentials.tls_cert,
        ssl_keyfile=credentials.tls_key,
    )
    gc.freeze()  # what is there by now stays
    Server(config, address).run(sockets=[listening])


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
