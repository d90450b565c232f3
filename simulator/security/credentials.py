"""A process's certificate, trusted authorities and tokens, none of them by default; and the files that hold them.

**Who is let in.** A server with a certificate speaks TLS. It asks callers for a token where it has a file of tokens,
and else for a certificate that one of its authorities has signed; a metrics page takes either. Tokens are for users,
certificates for processes.

**Who is called.** A process that is given authorities speaks TLS to all that it calls, believes a server that shows a
certificate of theirs with the name that it was called by, and shows its own certificate and its first token.

**Files** are read when a process starts, and again when they have changed.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from simulator.errors import SettingError

log = logging.getLogger(__name__)
Value = TypeVar("Value")
CHECK_INTERVAL = 1.0
"""Seconds between two checks of the files, at least."""
MIN_CHARACTERS = 16
"""Characters of a token or key: shorter ones can be guessed."""


class Watched(Generic[Value]):
    """A value made from files, made again when they change; the old one while they cannot be used."""

    def __init__(self, files: Sequence[Path], make: Callable[[], Value]) -> None:
        """`make` raises SettingError where the files cannot be used, and so does this."""
        self._files, self._make = files, make
        self._stamps, self._due = stamps(files), time.monotonic() + CHECK_INTERVAL
        self._value = make()
        self.version = 0
        """How often it was made again."""

    def __call__(self) -> Value:
        """The value. Any thread may call."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + CHECK_INTERVAL
            if (current := stamps(self._files)) != self._stamps:
                self._renew(current)
        return self._value

    def _renew(self, stamps: object) -> None:
        """A file that is half-written will have another stamp when it is whole."""
        self._stamps = stamps
        names = ", ".join(map(str, self._files))
        try:
            self._value = self._make()
        except SettingError as problem:
            log.error("%s: changed, and not taken over: %s", names, problem)
        else:
            self.version += 1
            log.info("%s: changed, and taken over", names)


def stamps(files: Sequence[Path]) -> object:
    """Stamps of the files, which change when one of them does."""
    all_stamps = []
    for file in files:
        try:
            status = file.stat()
            all_stamps.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except OSError:
            all_stamps.append((0, 0, 0))
    return all_stamps


def read_file(setting: str, path: Path) -> bytes:
    """The bytes of a file. Raises SettingError."""
    try:
        return path.read_bytes()
    except OSError as problem:
        raise SettingError(setting, path, f"{problem.strerror}: name a file that this process may read") from None


def read_secrets(setting: str, path: Path, min_length: int = MIN_CHARACTERS) -> tuple[bytes, ...]:
    """The secrets of a file, one a line, at least one; lines that begin with # are comments.

    Raises SettingError, which never repeats the file's content.
    """
    lines = [line.strip() for line in read_file(setting, path).splitlines()]
    secrets = tuple(line for line in lines if line and not line.startswith(b"#"))
    if not secrets:
        raise SettingError(setting, path, "holds no secret: one a line, such as `openssl rand -hex 32` prints")
    if any(len(line) < min_length or not all(32 < byte < 127 for byte in line) for line in secrets):
        hint = f"a secret has at least {min_length} characters, no spaces: such as `openssl rand -hex 32` prints"
        raise SettingError(setting, path, hint)
    return secrets


def secret_file(setting: str, path: Path, min_length: int = MIN_CHARACTERS) -> Watched[tuple[bytes, ...]]:
    """The secrets of a file, as they are now: the first is used, all of them are accepted. Raises SettingError."""
    return Watched([path], lambda: read_secrets(setting, path, min_length))


VARIABLES = {
    "tls_cert": "FLICKER_TLS_CERT",
    "tls_key": "FLICKER_TLS_KEY",
    "tls_ca": "FLICKER_TLS_CA",
    "token_file": "FLICKER_TOKEN_FILE",
}
"""Setting -> the environment variable that names its file."""
HEADER, SCHEME = "authorization", "bearer"
WANTED = "no valid token: name the file that holds one in --token-file or FLICKER_TOKEN_FILE"
"""The answer to every caller without a valid token."""
LOOPBACK = ("127.", "localhost", "::1", "[::1]")


@dataclass(frozen=True)
class Pem:
    """The contents of the files of certificates, as bytes."""

    cert: bytes | None
    key: bytes | None
    ca: bytes | None


@dataclass(frozen=True)
class Credentials:
    """Files, each of which may be missing; their content is followed when it changes."""

    tls_cert: Path | None = None
    """This process's certificate and those between it and its authority, PEM."""
    tls_key: Path | None = None
    """Its private key, PEM, without a password."""
    tls_ca: Path | None = None
    """Authorities that are trusted, PEM."""
    token_file: Path | None = None
    """Tokens, one a line."""

    def __post_init__(self) -> None:
        """Raises SettingError where a file cannot be used."""
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("tls_cert", "tls_key") if self.tls_key is None else ("tls_key", "tls_cert")
            raise SettingError(
                given, getattr(self, given), f"a certificate and its key come together: name {missing} too"
            )
        if self.tls_cert and not (self.tls_ca or self.token_file):
            hint = "anybody could call: name tls_ca, whose certificates callers must show, or token_file"
            raise SettingError("tls_cert", self.tls_cert, hint)
        _ = self.pem, self.tokens

    @staticmethod
    def from_environment() -> Credentials:
        """Those that the environment names. Raises SettingError."""
        return Credentials(**{name: file_from_environment(variable) for name, variable in VARIABLES.items()})

    @cached_property
    def pem(self) -> Watched[Pem]:
        """The certificates now."""
        return Watched(self._files, self._read)

    def _read(self) -> Pem:
        """Raises SettingError where a file cannot be read, or the certificate is another key's."""
        files = [(name, getattr(self, name)) for name in ("tls_cert", "tls_key", "tls_ca")]
        contents = [read_file(name, file) if file else None for name, file in files]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self.tls_cert and self.tls_key:
            try:
                context.load_cert_chain(self.tls_cert, self.tls_key, password=refuse_password)
            except (ssl.SSLError, ValueError) as problem:
                hint = f"no certificate in PEM with the key of {self.tls_key}, without a password ({reason(problem)})"
                raise SettingError("tls_cert", self.tls_cert, hint) from None
        if self.tls_ca:
            try:
                context.load_verify_locations(self.tls_ca)
            except (ssl.SSLError, ValueError) as problem:
                raise SettingError("tls_ca", self.tls_ca, f"no certificates in PEM ({reason(problem)})") from None
        return Pem(*contents)

    @cached_property
    def tokens(self) -> Callable[[], tuple[bytes, ...]] | None:
        """The tokens now; None where there is no file of them."""
        return secret_file("token_file", self.token_file) if self.token_file else None

    @property
    def wants_certificates(self) -> bool:
        """Whether callers of this process's gRPC server must show a certificate."""
        return self.tokens is None and self.tls_ca is not None

    def admits(self, authorization: str | bytes | None) -> bool:
        """Whether what a caller sent under HEADER holds one of the tokens. Takes the same time for all wrong ones."""
        text = authorization.encode() if isinstance(authorization, str) else authorization or b""
        scheme, _, token = text.partition(b" ")
        sent, tokens = digest(token.strip()), self.tokens() if self.tokens else ()
        matches = [hmac.compare_digest(sent, digest(known)) for known in tokens]
        return any(matches) and scheme.lower() == SCHEME.encode()

    def call_metadata(self, address: str) -> tuple[tuple[str, str], ...]:
        """Metadata of a call to an address: the first token, where there is one.

        Raises SettingError where it would travel unencrypted.
        """
        if self.tokens is None:
            return ()
        if self.tls_ca is None and not is_loopback(address):
            hint = f"a token must not travel unencrypted to {address}: name tls_ca, whose certificate it must show"
            raise SettingError("token_file", self.token_file, hint)
        return ((HEADER, f"Bearer {self.tokens()[0].decode()}"),)

    def require_safe(self, host: str) -> None:
        """Raise SettingError where callers would send tokens unencrypted to a server that listens at this host."""
        if self.token_file and not self.tls_cert and not is_loopback(host):
            hint = "tokens would come unencrypted: name tls_cert and tls_key, or listen at 127.0.0.1"
            raise SettingError("host", host, hint)

    @property
    def scheme(self) -> str:
        """Of the address of a page that is served with these."""
        return "https" if self.tls_cert else "http"

    @cached_property
    def server_context(self) -> Watched[ssl.SSLContext] | None:
        """TLS of a server that is not gRPC's; it asks for a certificate and takes callers without. None: no TLS."""
        return Watched(self._files, lambda: self._server_context(self.tls_ca)) if self.tls_cert else None

    @cached_property
    def browser_context(self) -> Watched[ssl.SSLContext] | None:
        """The same for browsers: they are asked for none, since they would ask their users. None: no TLS."""
        return Watched(self._files, lambda: self._server_context(None)) if self.tls_cert else None

    def _server_context(self, callers: Path | None) -> ssl.SSLContext:
        """`callers`: authorities of those who are asked for a certificate."""
        self._read()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        assert self.tls_cert is not None
        context.load_cert_chain(self.tls_cert, self.tls_key)
        if callers:
            context.load_verify_locations(callers)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def client_context(self) -> ssl.SSLContext | None:
        """TLS of a client that is not gRPC's; None: no TLS."""
        if self.tls_ca is None:
            return None
        context = ssl.create_default_context(cafile=str(self.tls_ca))
        if self.tls_cert:
            context.load_cert_chain(self.tls_cert, self.tls_key)
        return context

    @property
    def _files(self) -> list[Path]:
        return [file for file in (self.tls_cert, self.tls_key, self.tls_ca) if file]


PLAIN = Credentials()
"""No credentials: no TLS, everybody is let in."""


def file_from_environment(variable: str) -> Path | None:
    """The file that an environment variable names; None where it names none."""
    return Path(name) if (name := os.environ.get(variable)) else None


def is_loopback(address: str) -> bool:
    """Whether a host, host:port or gRPC target is of this machine alone; of several all."""
    hosts = address.removeprefix("dns:///").removeprefix("ipv4:").split(",")
    return address.startswith("unix:") or all(host.strip().startswith(LOOPBACK) for host in hosts)


def digest(token: bytes) -> bytes:
    """A digest of fixed length, so that a comparison does not leak a token's length."""
    return hashlib.sha256(token).digest()


def refuse_password() -> str:
    """For a key with a password: OpenSSL would ask for it at the terminal."""
    raise ValueError("it has a password")


def reason(problem: Any) -> str:
    """OpenSSL's reason for refusing a file."""
    return str(getattr(problem, "reason", None) or problem)
