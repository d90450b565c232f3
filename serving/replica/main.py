"""`python -m serving replica`: flags and environment to a running replica."""

from __future__ import annotations

import json
import logging
import socket
from dataclasses import replace
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry

from serving.replica.flags import ReplicaFlags
from simulator.errors import SettingError
from simulator.flags import parse_flags
from simulator.process import Stopped, configure_logging, insist, serve_metrics, stop_on_signals
from simulator.store.open import open_store

log = logging.getLogger(__name__)
EVERYWHERE = {"0.0.0.0": socket.AF_INET, "::": socket.AF_UNSPEC}
"""Hosts that listen at every address, and so name none by which others could find it; and what addresses those are."""


def own_address(store: str, family: socket.AddressFamily) -> str:
    """This machine's or container's address on the network by which it reaches the store, as part of host:port.

    Whoever reaches the store by the same network reaches this address: in a network of Docker Compose it is the
    container's own. (Its host name would do there too, but not where containers share names or names are not resolved.)
    Nothing is sent. Raises OSError where the store's name cannot be resolved, as before its container runs.
    """
    url = urlsplit(store)
    if url.hostname is None:  # unix: all are on this machine
        return "127.0.0.1"
    family, *_, address = socket.getaddrinfo(url.hostname, url.port or 6379, family, socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as route:
        route.connect(address)  # of a datagram socket: only looks up the route
        own = str(route.getsockname()[0])
    return f"[{own}]" if ":" in own else own


def main(arguments: list[str]) -> None:
    """Serve until a signal comes. Raises FlickerError for what the user can mend."""
    flags = parse_flags(ReplicaFlags, "python -m serving replica", arguments)
    if not flags.store:
        raise SettingError("store", "nothing", "name one with --store, or in FLICKER_REDIS_URL")
    store = open_store(flags.store, run=flags.run)

    from serving.replica.replica import Replica  # brings torch: seconds that --help need not wait for

    configure_logging()
    stop, registry = stop_on_signals(), CollectorRegistry()
    if not flags.advertise and flags.host in EVERYWHERE:
        family = EVERYWHERE[flags.host]
        told = lambda problem: log.warning("where the store is cannot be found yet: %s", problem)  # noqa: E731
        try:
            flags = replace(flags, advertise=insist(lambda: own_address(flags.store, family), OSError, stop, told))
        except Stopped:
            return
    replica = Replica(flags, store, registry, stop)
    port = serve_metrics(registry, flags.metrics_port, flags.host)
    replica.start()
    metrics = f"{flags.advertise or flags.host}:{port}"
    print(
        json.dumps({"ready": "replica", "name": flags.name, "address": replica.address, "metrics": metrics}), flush=True
    )
    stop.wait()
    log.info("stopping")
    replica.stop()
    store.close()
