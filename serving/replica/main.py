"""`python -m serving replica`: flags and environment to a running replica, and the address by which others find it."""

from __future__ import annotations

import logging
import os
import socket
import threading
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry

from serving.process import Server, ServerFlags, serve
from simulator.config import require
from simulator.flags import from_env, parse_flags
from simulator.process import retry
from simulator.store.protocol import Store

log = logging.getLogger(__name__)
EVERYWHERE = "0.0.0.0"
"""A host that listens at every address, and so names none by which others could find it."""


@dataclass(frozen=True)
class ReplicaFlags(ServerFlags):
    """Serve one duplicate of every arm: rank what routers send, and take newer generations from the store.

    Stopped by SIGTERM or Ctrl-C, after answering what it was sent.
    """

    name: str = from_env("FLICKER_NAME", f"{socket.gethostname()}-{os.getpid()}")
    """Unique among replicas; one that is started again under its old name gets its old duplicate back."""
    advertise: str = from_env("FLICKER_ADVERTISE", "")
    """Host under which routers find this replica (default: --host; where that is 0.0.0.0, the address of this machine
    or container on the network by which it reaches the store)."""
    queue: int = from_env("FLICKER_QUEUE", 1_024)
    """Queries that may wait; beyond it they are refused at once. At least 1."""
    device: str = from_env("FLICKER_DEVICE", "cpu")
    """Where candidates are scored: cpu or cuda (default: FLICKER_DEVICE, else cpu)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.name != "", "name", self.name, "a name")
        require(self.queue >= 1, "queue", self.queue, "at least 1 query")
        require(self.device in ("cpu", "cuda"), "device", self.device, "cpu or cuda")


def own_address(store: str) -> str:
    """This machine's or container's IPv4 address on the network by which it reaches the store.

    Whoever reaches the store by the same network reaches this address: in a network of Docker Compose it is the
    container's own. (Its host name would do there too, but not where containers share names or names are not resolved.)
    Nothing is sent. Raises OSError where the store's name cannot be resolved, as before its container runs.
    """
    url = urlsplit(store)
    if url.hostname is None:  # unix: all are on this machine
        return "127.0.0.1"
    addresses = socket.getaddrinfo(url.hostname, url.port or 6379, socket.AF_INET, socket.SOCK_DGRAM)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        route.connect(addresses[0][4])  # of a datagram socket: only looks up the route
        return str(route.getsockname()[0])


def main(arguments: list[str]) -> None:
    """Serve until a signal comes. Raises FlickerError for what the user can mend."""
    flags = parse_flags(ReplicaFlags, "python -m serving replica", arguments)

    def make(store: Store, registry: CollectorRegistry, stop: threading.Event) -> Server:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # a query is too small to share: threads would wait
        from serving.replica.replica import Replica  # brings torch: seconds that --help need not wait for

        advertise = flags.advertise
        if not advertise and flags.host == EVERYWHERE:
            warn = lambda problem: log.warning("where the store is cannot be found yet: %s", problem)  # noqa: E731
            advertise = retry(lambda: own_address(flags.store), OSError, stop, warn)
        return Replica(replace(flags, advertise=advertise), store, registry, stop)

    serve("replica", flags, make)
