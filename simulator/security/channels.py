"""gRPC with a process's credentials: listening, connecting, and the token of each call.

Without credentials these are gRPC's own insecure ports and channels, and nothing is done for a call.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from simulator.errors import SettingError
from simulator.security.credentials import Credentials

Options = Sequence[tuple[str, Any]]
NAME = "grpc.ssl_target_name_override"
"""Option of a channel: the name that a server's certificate must bear, whatever its address."""


def listen(server: grpc.Server, address: str, credentials: Credentials) -> int:
    """Add a port at host:port; returns its number. Each connection gets the certificate that the files hold by then."""
    if credentials.tls_cert is None:
        return server.add_insecure_port(address)

    def current() -> grpc.ServerCertificateConfiguration:
        """The certificate, and the authorities of callers' certificates; asked with each connection."""
        pem = credentials.pem()
        assert pem.key is not None and pem.cert is not None
        return grpc.ssl_server_certificate_configuration([(pem.key, pem.cert)], pem.ca)

    requires_certificates = credentials.wants_certificates
    tls = grpc.dynamic_ssl_server_credentials(current(), current, require_client_authentication=requires_certificates)
    return server.add_secure_port(address, tls)


def connect(credentials: Credentials, target: str, options: Options = ()) -> grpc.Channel:
    """A channel with the files' present certificates, whose calls carry the files' token at that time.

    Raises SettingError where a token would travel unencrypted.
    """
    if not credentials.call_metadata(target):
        return open_bare(credentials, target, options)
    token = _WithToken(lambda: credentials.call_metadata(target))
    return grpc.intercept_channel(open_bare(credentials, target, options), token)


def open_bare(credentials: Credentials, target: str, options: Options = ()) -> grpc.Channel:
    """The same without a token."""
    if credentials.tls_ca is None:
        return grpc.insecure_channel(target, options)
    pem = credentials.pem()
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(pem.ca, pem.key, pem.cert), options)


_Fields = namedtuple("_Fields", "method timeout metadata credentials wait_for_ready compression")


class _Details(_Fields, grpc.ClientCallDetails):
    """Of a call, as gRPC wants them."""


class _WithToken(grpc.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Sends a token with each call."""

    def __init__(self, token: Callable[[], tuple[tuple[str, str], ...]]) -> None:
        self._token = token

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """The call, with one more entry beside it."""
        metadata = (*(details.metadata or ()), *self._token())
        waits, compression = details.wait_for_ready, details.compression
        fields = details.method, details.timeout, metadata, details.credentials, waits, compression
        return continuation(_Details(*fields), request)


def require_name(setting: str, name: str) -> None:
    """Raise SettingError unless it may stand in a certificate."""
    if name and (not name.isprintable() or any(letter in name for letter in " :/,")):
        raise SettingError(setting, name, "a name or address as certificates bear it, such as replica")
