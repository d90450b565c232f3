"""The process of a replica in three verbs."""

from __future__ import annotations

import logging
import threading
import time

import torch
from prometheus_client import CollectorRegistry

from protos.recommender_pb2 import DESCRIPTOR
from serving.metrics import ReplicaMetrics
from serving.replica.generation import Shelf
from serving.replica.main import ReplicaFlags
from serving.replica.rank import Queue, RankService
from serving.replica.refresh import Membership, Refresher
from serving.rpc import Door, GrpcServer, Handler, Limits
from simulator.models.ranker import Rankers
from simulator.store.protocol import Store, StoreError

log = logging.getLogger(__name__)
LEAVING, DRAINING = 1.0, 2.5
"""Seconds for routers to learn that this replica leaves, and for the calls at work to end."""
SERVICE = DESCRIPTOR.services_by_name["Replica"].full_name
LIMITS = Limits(
    calls=256,
    request_bytes=(1 << 20) + (256 << 10),
    bytes=64 << 20,
    half_open=32,
    unread_bytes=64 << 20,
    pending=1_024,
)
"""Of calls that hold many queries each; a router has two at a time, of 1 MiB and what a last query is more. One that
gRPC's core refuses looks to a router like a lost replica: so what is pending is refused here, not there."""


class Replica:
    """The process in three verbs: start, run (until the flag is raised), stop."""

    def __init__(self, flags: ReplicaFlags, store: Store, registry: CollectorRegistry, stop: threading.Event) -> None:
        """Listens nowhere yet, but has its address. Raises SettingError where that or the device cannot be had."""
        rankers = Rankers(flags.device)
        torch.set_num_threads(1)  # products this small lose by being shared, and the cores are the other replicas'
        self.metrics, self.shelf, self.queue, self._stop = ReplicaMetrics(registry), Shelf(), Queue(flags.queue), stop
        self.name = flags.name
        service = RankService(self.shelf, self.queue, self.metrics)
        rank = Handler(service.rank, "replica", sheds=True)
        door = Door(LIMITS, self.metrics.grpc)
        address, credentials = (flags.host, flags.port), flags.security.credentials()
        self.server = GrpcServer(SERVICE, {"Rank": rank}, door, address, credentials=credentials)
        self.address = f"{flags.advertise}:{self.server.port}" if flags.advertise else self.server.address
        self.membership = Membership(store, flags.name, self.address, self.shelf, stop)
        ready = lambda: self.server.serving(True)  # noqa: E731
        refresher = Refresher(store, self.membership, self.metrics, ready, rankers)
        work = {"worker": service.run, "refresh": refresher.run, "beat": self.membership.run}
        self._threads = [threading.Thread(target=run, name=name, daemon=True) for name, run in work.items()]

    def start(self) -> None:
        """Take calls, be found, and load what is published."""
        self.server.start()
        for thread in self._threads:
            thread.start()

    def stop(self, leaving: float = LEAVING) -> None:
        """Leave the members, answer what is sent for `leaving` more seconds, end: within 5 seconds."""
        self._stop.set()
        started = time.monotonic()
        self.server.retire()
        farewell = threading.Thread(target=self._leave, daemon=True)  # the store may be away
        farewell.start()
        farewell.join(LEAVING)
        time.sleep(max(0.0, started + leaving - time.monotonic()))
        self.server.stop(DRAINING)
        self.queue.close()
        for thread in self._threads:
            thread.join(max(0.0, started + LEAVING + DRAINING + 1.0 - time.monotonic()))

    def _leave(self) -> None:
        try:
            self.membership.leave()
        except StoreError as problem:
            log.warning("not deregistered: %s", problem)
