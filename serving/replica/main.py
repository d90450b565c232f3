"""`python -m serving replica`: flags and environment to a running replica."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import replace

from prometheus_client import CollectorRegistry

from serving.process import Server, serve
from serving.replica.flags import EVERYWHERE, ReplicaFlags, own_address
from simulator.flags import parse_flags
from simulator.process import retry
from simulator.store.protocol import Store

log = logging.getLogger(__name__)


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
