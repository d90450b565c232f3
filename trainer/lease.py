"""Which shard a trainer is: named, or the first that is free by a lease in the store (`--shard any/N`).

A lease is renewed three times before it runs out. A trainer that was frozen for longer may have lost it to
another: then it ends without saving or publishing anything more. The lock of the state folder keeps a second one out,
wherever its file system has locks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable

from simulator.errors import FlickerError, SettingError
from simulator.process import Stopped, retry
from simulator.store.protocol import Leases, Shard, StoreAway

log = logging.getLogger("trainer")

SECONDS = 15.0
"""A lease runs out after so long, and the shard of a trainer that was lost with its machine is free again."""
LOOK = 1.0
"""Seconds between looks where all shards are held."""
PATTERN = re.compile(r"(any|0|[1-9][0-9]{0,3})/([1-9][0-9]{0,3})")


def parse_shard(text: str) -> tuple[int | None, int]:
    """I and N of `I/N`; None for `any`. Raises SettingError."""
    match = PATTERN.fullmatch(text)
    number = int(match[1]) if match and match[1] != "any" else None
    if not match or (number is not None and number >= int(match[2])):
        raise SettingError("shard", text or "nothing", "I/N, such as 0/2: I from 0 to N - 1, or any/N")
    return number, int(match[2])


class Named:
    """The shard that a flag names; the state folder's lock keeps a second trainer out."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard

    def check(self) -> None:
        """See Lease."""

    def release(self) -> None:
        """See Lease."""


class Lease:
    """A shard that no other trainer holds, for as long as the lease is renewed."""

    def __init__(
        self,
        store: Leases,
        count: int,
        stop: threading.Event,
        on_error: Callable[[Exception], None],
        seconds: float = SECONDS,
        owner: str = "",
    ) -> None:
        """Of `count` shards, as `owner` (default: host and process id). Waits until one is free. Raises Stopped."""
        self._store, self._stop, self._on_error, self._seconds = store, stop, on_error, seconds
        self._owner = owner or f"{socket.gethostname()}-{os.getpid()}"
        self._lock = threading.Lock()
        self._until, self._lost = 0.0, False
        self.shard = self._claim(count)
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises FlickerError where another trainer holds the shard by now; Stopped."""
        if not self._lost and time.monotonic() >= self._until:
            retry(self._renew, StoreAway, self._stop, self._on_error)
        if self._lost:
            raise FlickerError(
                f"shard = {self.shard}: another trainer has taken it, since this one was not heard of for "
                f"{self._seconds:g} s: start it again, it will find a free one"
            )

    def release(self) -> None:
        """Give it back, where the store can be reached."""
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(StoreAway):
            self._store.release_shard(self._owner)

    def _claim(self, count: int) -> Shard:
        waits = False
        while True:
            asked = time.monotonic()
            number = retry(self._ask(count), StoreAway, self._stop, self._on_error)
            if number >= 0:
                self._until = asked + self._seconds
                return Shard(number, count)
            if not waits:
                log.info("all of %s shards are held: waiting for one to be free", count)
                waits = True
            if self._stop.wait(LOOK):
                raise Stopped

    def _ask(self, count: int) -> Callable[[], int]:
        return lambda: self._store.claim_shard(self._owner, count, self._seconds)

    def _keep(self) -> None:
        while not self._stop.wait(self._seconds / 3):
            try:
                self._renew()
            except StoreAway as problem:
                self._on_error(problem)

    def _renew(self) -> None:
        """Raises StoreAway."""
        with self._lock:
            asked = time.monotonic()
            if self._lost:
                return
            self._lost = self._ask(self.shard.count)() != self.shard.number
            self._until = asked + self._seconds
        if self._lost:
            self._stop.set()


def hold(text: str, store: Leases, stop: threading.Event, on_error: Callable[[Exception], None]) -> Named | Lease:
    """The shard that `--shard` says. Waits until one is free. Raises SettingError, Stopped."""
    number, count = parse_shard(text)
    return Lease(store, count, stop, on_error) if number is None else Named(Shard(number, count))
