"""Every instrument of a replica."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serving.grpc_server import GrpcMetrics

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
QUERIES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """Instruments in a registry of the caller's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.generation = Gauge("flicker_generation", "Generation that is served, -1 while none", registry=registry)
        self.generation.set(-1)
        self._age = Gauge(
            "flicker_snapshot_age_seconds", "Since the served generation was published", registry=registry
        )
        self._age.set(float("nan"))
        self.native = Gauge(
            "flicker_native_arms",
            "Arms that the native engine scores; replicas that do not agree here round differently",
            registry=registry,
        )
        self.refreshes = Counter("flicker_refreshes", "Generations taken into service", registry=registry)
        self.refused = Counter("flicker_snapshots_refused", "Generations refused", ["reason"], registry=registry)
        self.load_seconds = Histogram(
            "flicker_load_seconds", "Fetch, verify and prepare a generation", registry=registry, buckets=SECONDS
        )
        self.queries = Counter("flicker_queries", "Queries answered", ["arm"], registry=registry)
        self.bad_queries = Counter("flicker_bad_queries", "Queries refused for a value", ["field"], registry=registry)
        self.shed = Counter("flicker_shed", "Queries refused because the queue was full", registry=registry)
        self.expired = Counter("flicker_expired", "Queries dropped because nobody waited any more", registry=registry)
        self._queue = Gauge("flicker_queue_length", "Queries that wait", registry=registry)
        self._batch = Histogram("flicker_batch_size", "Queries ranked in one pass", registry=registry, buckets=QUERIES)
        self._rank = Histogram("flicker_rank_seconds", "One pass of ranking", registry=registry, buckets=SECONDS)
        self.rank_begins = GrpcMetrics(registry, SECONDS).method("flicker.v1.Replica", "Rank")

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Read the length of the queue from `length` whenever it is asked for."""
        self._queue.set_function(lambda: float(length()))

    def refreshed(self, generation: int, published: float, seconds: float) -> None:
        """A generation, published at unix second `published`, was taken into service after loading for `seconds`."""
        self.generation.set(generation)
        self._age.set_function(lambda: time.time() - published)
        self.refreshes.inc()
        self.load_seconds.observe(seconds)

    def ranked(self, queries: int, seconds: float) -> None:
        """One pass over so many queries took so long."""
        if queries:
            self._batch.observe(queries)
            self._rank.observe(seconds)
