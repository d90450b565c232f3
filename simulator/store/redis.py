"""The store that processes and machines share: a Redis or Valkey server (7.0 or newer; 7.2 for Valkey)."""

from __future__ import annotations

from simulator.store.connection import Connection
from simulator.store.redis_leases import RedisLeases
from simulator.store.redis_log import RedisLog
from simulator.store.redis_registry import RedisRegistry


class RedisStore(RedisLog, RedisRegistry, RedisLeases):
    """The whole protocol on one server; may be used from any thread.

    Keys are named `flicker:RUN:...`, so that several runs may share a server. A call that finds the server away tries
    again with growing pauses for `patience` seconds and then raises StoreAway; the next call finds it when it is back.
    """

    def __init__(self, url: str, *, run: str, capacity: int, patience: float = 1.0) -> None:
        """Does not connect yet. `capacity` in events. Raises SettingError for a URL that cannot be one."""
        server = Connection(url, run, patience)
        RedisLog.__init__(self, server, capacity)
        RedisRegistry.__init__(self, server)
        RedisLeases.__init__(self, server)

    def ping(self) -> None:
        """See Store."""
        self._server.ask(self._server.client.ping)

    def close(self) -> None:
        """See Store."""
        self._server.client.close()
