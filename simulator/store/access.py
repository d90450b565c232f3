"""How a store's server is reached: its URL, which may be shown without its password, certificates and passwords."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from simulator.errors import SettingError
from simulator.security.credentials import PLAIN, Credentials, secret_file

URL_VARIABLE = "FLICKER_REDIS_URL"


@dataclass(frozen=True)
class Access:
    """What a server asks for beside its URL."""

    credentials: Credentials = PLAIN
    """Authorities that a server of rediss:// is verified by (this machine's where none are named), and the
    certificate that is shown to it."""
    password_file: Path | None = None
    """File with the password of the user that the URL names, or of the server's default user."""

    @cached_property
    def passwords(self) -> Callable[[], tuple[bytes, ...]] | None:
        """The first is the password now. Raises SettingError where the file cannot be used."""
        return secret_file("store_password_file", self.password_file, min_length=1) if self.password_file else None


URL_ALONE = Access()
"""Of a server that asks for nothing else."""


def has_password(url: str) -> bool:
    """Whether a URL holds a password, or something that may be meant as one."""
    return ":" in _user(url) or "password=" in url


def user_of(url: str) -> str:
    """The user that a URL names, empty where it names none."""
    return unquote(_user(url).partition(":")[0])


def without_password(url: str) -> str:
    """A URL that may be shown: without user and query, also where a password has letters that end a host's name."""
    address = url.partition("?")[0] if "password=" in url else url
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address.rpartition("@")[2]
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


def without_user(url: str) -> str:
    """The same with its query, which says how to connect."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def require_weights(url: str) -> None:
    """Raise SettingError unless published weights may lie under a URL, as far as can be told without asking."""
    if has_password(url):
        hint = "leave the secret out: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY say it, or a file of its library"
        raise SettingError("weights", without_password(url), hint)
    _, separator, path = url.partition("://")
    if not separator or not path.strip("/") or "::" in url:
        raise SettingError("weights", url or "nothing", "a URL such as s3://bucket/prefix or file:///folder")


def _user(url: str) -> str:
    """What stands before the last @."""
    return url.partition("://")[2].rpartition("@")[0]
