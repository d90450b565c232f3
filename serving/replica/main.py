"""`python -m serving replica`: one process that serves one duplicate of every arm."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from dataclasses import dataclass, field

import torch
from prometheus_client import CollectorRegistry

from serving.replica.membership import Membership
from serving.replica.metrics import Metrics
from serving.replica.refresh import Refresher
from serving.replica.server import RankService, Server
from serving.replica.shelf import Shelf
from serving.replica.work import Queue, Worker
from simulator.config import require
from simulator.errors import SettingError
from simulator.flags import parse_flags
from simulator.process import configure_logging, from_environment, serve_metrics, stop_on_signals, whole_number
from simulator.store.open import open_store
from simulator.store.protocol import Store, StoreError

log = logging.getLogger("replica")
LEAVING, DRAINING = 1.0, 2.5
"""Seconds for routers to learn that this replica leaves, and for the calls at work to end."""


@dataclass(frozen=True)
class ReplicaFlags:
    """Serve one duplicate of every arm: rank what routers send, and take newer generations from the store.

    Stopped by SIGTERM or Ctrl-C, after answering what it was sent.
    """

    store: str = field(default_factory=lambda: from_environment("FLICKER_REDIS_URL", ""))
    """The store, such as redis://127.0.0.1:6379/0 (default: the environment's FLICKER_REDIS_URL)."""
    run: str = field(default_factory=lambda: from_environment("FLICKER_RUN", "flicker"))
    """Name of this run among others in the same store (default: FLICKER_RUN)."""
    name: str = field(default_factory=lambda: from_environment("FLICKER_NAME", f"{socket.gethostname()}-{os.getpid()}"))
    """Unique among replicas; one that is started again under its old name gets its old duplicate back."""
    host: str = field(default_factory=lambda: from_environment("FLICKER_HOST", "127.0.0.1"))
    """Address to listen at."""
    advertise: str = field(default_factory=lambda: from_environment("FLICKER_ADVERTISE", ""))
    """Host under which routers find this replica (default: --host)."""
    port: int = field(default_factory=lambda: whole_number("FLICKER_PORT", 0))
    """Port of the gRPC server, 0 for any free one, which is printed."""
    metrics_port: int = field(default_factory=lambda: whole_number("FLICKER_METRICS_PORT", 0))
    """Port of the metrics page, 0 for any free one, which is printed."""
    queue: int = field(default_factory=lambda: whole_number("FLICKER_QUEUE", 1_024))
    """Queries that may wait; beyond it they are refused at once. At least 1."""

    def __post_init__(self) -> None:
        require(self.name != "", "name", self.name, "a name")
        for setting, port in (("port", self.port), ("metrics_port", self.metrics_port)):
            require(0 <= port < 65_536, setting, port, "from 0 to 65535")
        require(self.queue >= 1, "queue", self.queue, "at least 1 query")


class Replica:
    """The process in three verbs: start, run (until the flag is raised), stop."""

    def __init__(self, flags: ReplicaFlags, store: Store, registry: CollectorRegistry, stop: threading.Event) -> None:
        """Listens nowhere yet, but has its address. Raises SettingError where that cannot be had."""
        torch.set_num_threads(1)  # products this small lose by being shared, and the cores are the other replicas'
        self.metrics, self.shelf, self.queue, self._stop = Metrics(registry), Shelf(), Queue(flags.queue), stop
        self.server = Server(RankService(self.shelf, self.queue, self.metrics), flags.host, flags.port)
        self.address = f"{flags.advertise}:{self.server.port}" if flags.advertise else self.server.address
        self.membership = Membership(store, flags.name, self.address, self.shelf, stop)
        ready = lambda: self.server.serving(True)  # noqa: E731
        refresher = Refresher(store, flags.name, self.shelf, self.membership, self.metrics, ready, stop)
        work = {"worker": Worker(self.queue, self.metrics).run, "refresh": refresher.run, "beat": self.membership.run}
        self._threads = [threading.Thread(target=run, name=name, daemon=True) for name, run in work.items()]

    def start(self) -> None:
        """Take calls, be found, and load what is published."""
        self.server.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Leave the members, answer what was sent, end: within 5 seconds."""
        self._stop.set()
        started = time.monotonic()
        self.server.retire()
        leaving = threading.Thread(target=self._leave, daemon=True)  # the store may be away
        leaving.start()
        leaving.join(LEAVING)
        time.sleep(max(0.0, started + LEAVING - time.monotonic()))
        self.server.stop(DRAINING)
        self.queue.close()
        for thread in self._threads:
            thread.join(max(0.0, started + LEAVING + DRAINING + 1.0 - time.monotonic()))

    def _leave(self) -> None:
        try:
            self.membership.leave()
        except StoreError as problem:
            log.warning("not deregistered: %s", problem)


def main(arguments: list[str]) -> None:
    """Serve until a signal comes. Raises FlickerError for what the user can mend."""
    flags = parse_flags(ReplicaFlags, "python -m serving replica", arguments)
    if not flags.store:
        raise SettingError("store", "nothing", "name one with --store, or in FLICKER_REDIS_URL")
    configure_logging()
    stop, registry = stop_on_signals(), CollectorRegistry()
    store = open_store(flags.store, run=flags.run)
    replica = Replica(flags, store, registry, stop)
    port = serve_metrics(registry, flags.metrics_port, flags.host)
    replica.start()
    line = {"ready": "replica", "name": flags.name, "address": replica.address, "metrics": f"{flags.host}:{port}"}
    print(json.dumps(line), flush=True)
    stop.wait()
    log.info("stopping")
    replica.stop()
    store.close()
