"""The way to a Redis or Valkey server: one pool of connections, repeated tries, and errors in our own words."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from simulator.errors import SettingError
from simulator.store.access import URL_ALONE, Access, has_password, user_of, without_password, without_user
from simulator.store.protocol import StoreAway, StoreError, StoreRefuses

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two tries: doubled from the first to the longest."""
TIMEOUT = 5.0
"""Seconds without an answer after which the server counts as away."""
BLOCK = 1.0
"""Most seconds that one blocking read waits on the server; longer waits repeat it."""
FOR_NOW = frozenset("BUSY CLUSTERDOWN LOADING MASTERDOWN MISCONF NOREPLICAS OOM READONLY TRYAGAIN UNBLOCKED".split())
"""First words of the answers by which a server refuses for now: it may take the same command later."""
CODES: dict[type[Exception], str] = {
    redis.exceptions.BusyLoadingError: "LOADING",
    redis.exceptions.ClusterDownError: "CLUSTERDOWN",
    redis.exceptions.OutOfMemoryError: "OOM",
    redis.exceptions.ReadOnlyError: "READONLY",
    redis.exceptions.TryAgainError: "TRYAGAIN",
}
"""Errors from whose message the client strips the first word."""


class Connection:
    """Asks one server; may be used from any thread (each takes a connection of its own from the pool)."""

    def __init__(self, url: str, run: str, patience: float, access: Access = URL_ALONE) -> None:
        """`patience`: seconds to go on trying before a call raises StoreAway. Raises SettingError for a bad URL."""
        if access.passwords is not None and has_password(url):
            hint = "store_password_file names another password: leave the one in the URL out"
            raise SettingError("store", without_password(url), hint)
        try:
            # The client's own retries are off: it would repeat changes too, and multiply the pauses of ask().
            self.client: Any = redis.Redis.from_url(
                url if access.passwords is None else without_user(url),
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                **client_options(url, access),
            )
        except ValueError:  # what it says may be a piece of the password
            hint = "a URL such as redis://127.0.0.1:6379/0, special letters of a password as %XX"
            raise SettingError("store", without_password(url), hint) from None
        self.name = without_password(url)
        self._prefix = f"flicker:{run}:"
        self._patience = patience

    def key(self, name: str) -> str:
        """The name of a key of this run."""
        return self._prefix + name

    def script(self, name: str) -> Callable[..., Any]:
        """One of scripts.lua, asked for with a list of keys, and arguments; the server keeps it, and gets it again
        after a restart."""
        script = self.client.register_script(scripts()[name])
        return lambda keys, *args, repeat=True: self.ask(lambda: script(keys=keys, args=args), repeat=repeat)

    def ask(self, command: Callable[[], T], *, repeat: bool = True) -> T:
        """What the server answers; tried again while it is away, unless a second time could change more.

        Raises StoreAway or StoreRefuses after `patience` seconds, StoreError for what is wrong for good.
        """
        give_up, pause = time.monotonic() + self._patience, FIRST_PAUSE
        while True:
            try:
                return command()
            except (redis.AuthenticationError, redis.exceptions.AuthorizationError) as error:
                raise StoreError(f"the store at {self.name} refuses the user or password: {one_line(error)}") from error
            except redis.RedisError as error:
                problem, unchanged = self._in_our_words(error)
                may_repeat = isinstance(problem, StoreAway) and (repeat or unchanged)
                if not may_repeat or time.monotonic() + pause > give_up:
                    raise problem from error
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _in_our_words(self, error: redis.RedisError) -> tuple[StoreError, bool]:
        """Which of the three kinds an error is, and whether the server has surely changed nothing."""
        message = one_line(error)
        if (code := code_of(error)) in FOR_NOW:
            message = message if message.startswith(code) else f"{code} {message}"
            return StoreRefuses(f"the store at {self.name} refuses for now: {message}"), True
        if isinstance(error, (redis.ConnectionError, redis.TimeoutError)):
            return StoreAway(f"the store at {self.name} is away: {message}"), False
        return StoreError(f"the store at {self.name} refuses: {message}"), True

    def wait_for_entry(self, stream: str, after: str, wait: float) -> None:
        """Returns as soon as `stream` has an entry after the id `after`, or after `wait` seconds (or BLOCK)."""
        milliseconds = max(1, int(1000 * min(wait, BLOCK)))  # 0 would wait for ever
        self.ask(lambda: self.client.xread({stream: after}, count=1, block=milliseconds))


class _Password(redis.CredentialProvider):
    """Asked with each connection: a password that has changed is used with the next one."""

    def __init__(self, user: str, passwords: Callable[[], tuple[bytes, ...]]) -> None:
        self._user, self._passwords = user, passwords

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Password, or user and password."""
        password = self._passwords()[0].decode()
        return (self._user, password) if self._user else (password,)


@cache
def scripts() -> dict[str, str]:
    """Name -> text, each with the parts of the file that it starts with."""
    texts: dict[str, str] = {}
    for script in files("simulator.store").joinpath("scripts.lua").read_text().split("\n--- ")[1:]:
        head, _, body = script.partition("\n")
        name, *beginning = head.split()
        texts[name] = "".join(texts[part] for part in beginning) + body + "\n"
    return texts


def client_options(url: str, access: Access) -> dict[str, Any]:
    """The client's options beside the URL. It reads certificates anew with each connection."""
    options: dict[str, Any] = {}
    if access.passwords is not None:
        options["credential_provider"] = _Password(user_of(url), access.passwords)
    if url.startswith("rediss://"):
        files = access.credentials
        options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
        names = {"ssl_ca_certs": files.tls_ca, "ssl_certfile": files.tls_cert, "ssl_keyfile": files.tls_key}
        options |= {name: str(file) for name, file in names.items() if file}
    return options


def code_of(error: redis.RedisError) -> str:
    """The first word of a server's answer, such as OOM; that of any other error says nothing."""
    said = str(error).rpartition(" caused error: ")[2].partition(" ")[0]  # a pipeline names the command before it
    return next((code for kind, code in CODES.items() if isinstance(error, kind)), said)


def one_line(error: Exception) -> str:
    """An error's message, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
