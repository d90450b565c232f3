"""The metrics page of a process, by HTTP or HTTPS, and reading those of others.

Not by `prometheus_client.start_http_server`, which has TLS too: there a silent connection keeps all
others waiting, since the handshake is made where connections are accepted, and certificates are read once.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
import urllib.error
import urllib.request
from functools import partial
from http.client import HTTPSConnection
from http.server import ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, MetricsHandler, ProcessCollector

from simulator.errors import SettingError
from simulator.security.credentials import HEADER, PLAIN, WANTED, Credentials

log = logging.getLogger(__name__)
HANDLER_TIMEOUT = 10.0
"""Seconds for a caller to send its request, and to take the answer."""


class _Handler(MetricsHandler):
    """Answers those that are let in."""

    timeout = HANDLER_TIMEOUT
    credentials: Credentials

    def do_GET(self) -> None:
        """The page, or 401 with what is missing."""
        if not self._is_let_in():
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Bearer")
            self.end_headers()
            self.wfile.write(f"{WANTED}; or show a certificate that this process's tls_ca signed\n".encode())
        else:
            super().do_GET()

    def _is_let_in(self) -> bool:
        if self.credentials.tls_cert is None and self.credentials.tokens is None:
            return True
        certificate = isinstance(self.connection, ssl.SSLSocket) and self.connection.getpeercert()
        return bool(certificate) or self.credentials.admits(self.headers[HEADER])


class _Page(ThreadingHTTPServer):
    """Each connection has a thread, in which the handshake is made too."""

    credentials = PLAIN

    def get_request(self) -> tuple[Any, Any]:
        """The next connection."""
        connection, address = super().get_request()
        context = self.credentials.server_context
        if context is not None:
            connection = context().wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore broken connections; log all other errors in one line."""
        if not isinstance(problem := sys.exc_info()[1], OSError):
            log.error("the metrics page failed: %r", problem)


def serve_metrics(registry: CollectorRegistry, port: int, host: str, credentials: Credentials) -> int:
    """Serve a registry's metrics from a thread of its own; port 0 takes a free one. Returns the port.

    Beside them the page shows this process's own memory, CPU seconds and start time (`process_...`, on Linux). Raises
    SettingError where the port cannot be had.
    """
    if registry.get_sample_value("process_start_time_seconds") is None:  # else it was served before
        ProcessCollector(registry=registry)
    handler = type("Handler", (_Handler,), {"registry": registry, "credentials": credentials})
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        server = type("Page", (_Page,), {"address_family": family, "credentials": credentials})((host, port), handler)
    except (OSError, OverflowError) as problem:
        raise SettingError("metrics_port", port, f"{problem}: name a free port, or 0 for any") from None
    threading.Thread(target=server.serve_forever, name="metrics page", daemon=True).start()
    return int(server.server_port)


class _Named(HTTPSConnection):
    """To a host whose certificate must bear this name, rather than the host's own."""

    def __init__(self, *args: Any, context: ssl.SSLContext, name: str, **more: Any) -> None:
        super().__init__(*args, context=context, **more)
        self._tls, self._name = context, name

    def connect(self) -> None:
        """Connect, and verify that name."""
        super(HTTPSConnection, self).connect()
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._name)


class _ByName(urllib.request.HTTPSHandler):
    """Opens such connections."""

    def __init__(self, context: ssl.SSLContext | None, name: str) -> None:
        super().__init__(context=context)
        self._open = partial(_Named, context=context, name=name) if context else HTTPSConnection

    def https_open(self, request: urllib.request.Request) -> Any:
        """See urllib."""
        return self.do_open(self._open, request)


def fetch(address: str, credentials: Credentials, seconds: float = 3.0, name: str = "") -> str:
    """The metrics page of the process at host:port, whose certificate must bear the name, or else the host.

    Raises OSError where it does not answer, SettingError where a token would travel unencrypted.
    """
    context = credentials.client_context()
    scheme = "http" if context is None else "https"
    request = urllib.request.Request(f"{scheme}://{address}/metrics", headers=dict(credentials.call_metadata(address)))
    # by no proxy that the environment names: it would see the token
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _ByName(context, name or host_of(address)))
    with opener.open(request, timeout=seconds) as answer:
        return str(answer.read().decode())


def host_of(address: str) -> str:
    """The host of host:port."""
    return address.rpartition(":")[0].strip("[]")


def probe(address: str) -> None:
    """For probes of containers: end with exit code 1 and a line on standard error where a page does not answer."""
    try:
        fetch(address, Credentials.from_environment())
    except (OSError, SettingError) as problem:
        sys.exit(f"{address}: {problem}")
