"""A router, a replica or a proxy as a process: flags to a server that answers, until a signal comes."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from prometheus_client import CollectorRegistry

from simulator.config import require
from simulator.flags import Listening, Wiring, from_env
from simulator.process import Stopped, configure_logging, say_ready, stop_on_signals
from simulator.security.pages import serve_metrics
from simulator.store.protocol import Store


@dataclass(frozen=True)
class ServerFlags(Wiring):
    """What both have beside their wiring."""

    port: int = from_env("FLICKER_PORT", 0)
    """Port for gRPC, 0 for any free one, which is printed (default: FLICKER_PORT)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.port < 65_536, "port", self.port, "from 0 to 65535")


class Server(Protocol):
    """What is run."""

    name: str
    address: str
    """host:port, once it is started."""

    def start(self) -> None:
        """Take calls. Raises Stopped where the stop flag ends its preparations."""

    def stop(self) -> None:
        """End in order, in a few seconds; also where it was not started."""


Make = Callable[[Store, CollectorRegistry, threading.Event], Server]
"""From store, registry and stop flag to what is run. Raises SettingError, and Stopped where the flag ends its
preparations."""


def serve(kind: str, flags: ServerFlags, make: Make, **bounds: int) -> None:
    """Until a signal comes; `bounds` of the store. Raises FlickerError for what the user can mend."""
    store = flags.open_store(**bounds)
    try:
        serve_alone(kind, flags, partial(make, store))
    finally:
        store.close()


def serve_alone(kind: str, flags: Listening, make: Callable[[CollectorRegistry, threading.Event], Server]) -> None:
    """The same of what needs no store."""
    configure_logging()
    log = logging.getLogger(kind)
    stop, registry = stop_on_signals(), CollectorRegistry()
    try:
        server = make(registry, stop)
        credentials = flags.security.credentials()
        port = serve_metrics(registry, flags.metrics_port, flags.host, credentials)
        log.info("metrics at %s://%s:%d/metrics", "https" if credentials.tls_cert else "http", flags.host, port)
        gc.freeze()  # what is there by now stays: no need to look through it again and again
        try:
            server.start()
            host = server.address.rpartition(":")[0]
            say_ready(kind, name=server.name, address=server.address, metrics=f"{host}:{port}")
            stop.wait()
        finally:
            log.info("stopping")
            server.stop()
    except Stopped:
        pass
