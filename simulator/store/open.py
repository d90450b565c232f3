"""One store from one URL, so that every process names the store in the same way."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from simulator.errors import SettingError
from simulator.security.watched import secret_file
from simulator.store.access import URL_ALONE, Access, without_password
from simulator.store.objects import ObjectParts
from simulator.store.parts import RedisParts
from simulator.store.protocol import Store
from simulator.store.redis import RedisStore

CAPACITY = 200_000
"""Events that may wait unless a process asks for another bound (about 8 MB of a server's memory)."""
WORLD_CAPACITY = 150_000
"""Of these, what the feeder may fill with the world's events: the rest is left for the feedback of users."""


def open_store(
    url: str,
    *,
    run: str = "default",
    capacity: int = CAPACITY,
    access: Access = URL_ALONE,
    signing_key: Path | None = None,
    weights: str = "",
) -> Store:
    """The store at `redis://host:port/database`, or by TLS at `rediss://`.

    `run` names the store among others on the same server; `capacity` is the most events that may wait before this
    process's `append` refuses. With a `signing_key`, a file of one or several, generations are signed with the first,
    and none is read that no key has signed. `weights`: URL under which the parts of generations lie, see objects.py
    (default: on the store's server). Does not wait for the server: the first use may raise StoreAway.
    Raises SettingError, and FlickerError where a package is missing.
    """
    if capacity < 1:
        raise SettingError("capacity", capacity, "at least 1 event")
    if url.partition("://")[0] not in ("redis", "rediss", "unix"):
        raise SettingError("store", without_password(url), "a URL such as redis://127.0.0.1:6379/0")
    keys = secret_file("signing_key", signing_key) if signing_key else tuple
    parts = partial(ObjectParts, weights, run) if weights else RedisParts
    return RedisStore(url, run=run, capacity=capacity, access=access, signing_keys=keys, parts=parts)
