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
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError, URLError

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


def fetch(address: str, credentials: Credentials, seconds: float = 3.0, name: str = "") -> str:
    """The metrics page of the process at host:port, whose certificate must bear the name, or else the host.

    Raises OSError where it does not answer, SettingError where a token would travel unencrypted.
    """
    context = credentials.client_context()
    # by no proxy that the environment names: it would see the token
    with closing(HTTPConnection(address, timeout=seconds)) as connection:
        headers = dict(credentials.call_metadata(address))
        try:
            connection.connect()
            if context:
                connection.sock = context.wrap_socket(connection.sock, server_hostname=name or connection.host)
            connection.request("GET", "/metrics", headers=headers | {"Connection": "close"})
        except OSError as problem:
            raise URLError(problem) from problem
        answer = connection.getresponse()
        if answer.status != HTTPStatus.OK:
            raise HTTPError(address, answer.status, answer.reason, answer.headers, answer)
        return answer.read().decode()


def probe(address: str) -> None:
    """For probes of containers: end with exit code 1 and a line on standard error where a page does not answer."""
    try:
        fetch(address, Credentials.from_environment())
    except (OSError, SettingError) as problem:
        sys.exit(f"{address}: {problem}")
