"""A replica with a real server, in the threads of the test, and what asks it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from protos.recommender_pb2 import Failure, RankRequest, RankResponse, RecommendRequest, RecommendResponse
from serving.metrics import ReplicaMetrics
from serving.replica.generation import Shelf
from serving.replica.main import ReplicaFlags
from serving.replica.refresh import Refresher
from serving.replica.replica import Replica
from simulator.models.ranker import Ranker, Rankers
from simulator.store.protocol import Store
from simulator.types import Floats, Ints, Rows

RANK = "/flicker.v1.Replica/Rank"


class Asking:
    """A replica's clients."""

    def __init__(self, replica: Replica, channel: grpc.Channel, registry: CollectorRegistry) -> None:
        self.replica, self.channel, self.registry = replica, channel, registry

    def rank(self, *queries: RecommendRequest, timeouts: list[int] | None = None, timeout: float = 10) -> RankResponse:
        """One call with several queries."""
        raw = [query.SerializeToString() for query in queries]
        return self.send(RankRequest(queries=raw, timeouts_ms=timeouts).SerializeToString(), timeout)

    def send(self, raw: bytes, timeout: float = 10) -> RankResponse:
        """One call with these bytes."""
        return RankResponse.FromString(self.channel.unary_unary(RANK)(raw, timeout=timeout))

    def ask(self, query: RecommendRequest) -> RecommendResponse:
        """The answer to one query, which must have one."""
        response = self.rank(query)
        assert not response.failures, response.failures
        return RecommendResponse.FromString(response.answers[0])

    def refused(self, query: RecommendRequest) -> Failure:
        """Why a query has no answer."""
        response = self.rank(query)
        assert list(response.answers) == [b""] and len(response.failures) == 1
        return response.failures[0]

    def health(self, service: str = "") -> int:
        """What a probe is told."""
        stub = health_pb2_grpc.HealthStub(self.channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status

    def metric(self, name: str, **labels: str) -> float:
        """A sample of the replica's metrics, 0 where there is none."""
        return self.registry.get_sample_value(name, labels) or 0.0


class Gate:
    """A ranker that waits to be let through, to keep the worker busy."""

    def __init__(self, ranker: Ranker, reached: threading.Event, through: threading.Event) -> None:
        self._ranker, self.name, self.pairs_at_once = ranker, ranker.name, ranker.pairs_at_once
        self.reached, self.open = reached, through

    def scores(self, users: Ints, context: Rows, items: Ints) -> Floats:
        """As the ranker's."""
        self.reached.set()
        assert self.open.wait(30)
        return self._ranker.scores(users, context, items)


class Lease:
    """A membership of one."""

    def __init__(self) -> None:
        self.name, self.shelf, self.stop, self.duplicate = "a", Shelf(), threading.Event(), 0

    def claim(self, duplicates: int) -> int:
        """The same every time."""
        return self.duplicate

    def tell(self) -> None:
        """Nobody asks."""


class Loading:
    """How a replica takes generations, without its server: `refresh` looks once."""

    def __init__(self, store: Store) -> None:
        self.lease, self.registry = Lease(), CollectorRegistry()
        self.shelf, metrics = self.lease.shelf, ReplicaMetrics(self.registry)
        self._refresher = Refresher(store, self.lease, metrics, lambda: None, Rankers())  # type: ignore[arg-type]

    def refresh(self) -> int:
        """The generation that is served then, -1 for none."""
        self._refresher.once(0.0)
        return self.shelf.current.number if self.shelf.current else -1

    def refused(self) -> dict[str, float]:
        """How many, by reason."""
        samples = [sample for family in self.registry.collect() for sample in family.samples]
        return {s.labels["reason"]: s.value for s in samples if s.name == "flicker_snapshots_refused_total"}


def put_gate(replica: Replica) -> Gate:
    """Make a replica's worker stop at its next pass."""
    current = replica.shelf.current
    assert current is not None
    events = threading.Event(), threading.Event()
    gates = tuple(Gate(ranker, *events) for ranker in current.rankers)
    replica.shelf.put(replace(current, rankers=gates))
    return gates[0]


@contextmanager
def running(store: Store, name: str = "a", queue: int = 1_024) -> Iterator[Asking]:
    """A replica that serves from a store."""
    registry, flags = CollectorRegistry(), ReplicaFlags(store="", name=name, queue=queue)
    replica = Replica(flags, store, registry, threading.Event())
    replica.start()
    try:
        with grpc.insecure_channel(replica.address) as channel:
            yield Asking(replica, channel, registry)
    finally:
        replica.stop(leaving=0.0)


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    """Returns once the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.01)


def wait_for_generation(asking: Asking, number: int) -> None:
    """Returns once a generation is served, and health says so."""
    wait_for(lambda: asking.metric("flicker_generation") == number and asking.health() == 1)


def best_first(scores: Floats, items: Ints) -> list[int]:
    """Items by falling score, equal ones by number: the rule in one line of plain Python."""
    pairs = sorted(zip((-scores.astype(np.float64)).tolist(), items.tolist(), strict=True))
    return [item for _, item in pairs]
