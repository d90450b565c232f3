"""Every instrument of a replica."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry

from serving.codec import REFUSED
from serving.rpc import GrpcMetrics
from simulator.process import instruments

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
QUERIES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """Instruments in a registry of the caller's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, gauge, histogram = instruments(registry)
        self.generation = gauge("flicker_generation", "Generation that is served, -1 while none")
        self.generation.set(-1)
        self._age = gauge("flicker_snapshot_age_seconds", "Since the served generation was published, -1 while none")
        self._age.set(-1)
        self.native = gauge(
            "flicker_native_arms",
            "Arms that the native engine scores; replicas that do not agree here round differently",
        )
        self.refreshes = counter("flicker_refreshes", "Generations taken into service")
        self.refused = counter("flicker_snapshots_refused", REFUSED, ["reason"])
        self.load_seconds = histogram("flicker_load_seconds", "Fetch, verify and prepare a generation", buckets=SECONDS)
        self.queries = counter("flicker_queries", "Queries answered", ["arm"])
        self.bad_queries = counter("flicker_bad_queries", "Queries refused for a value", ["field"])
        self.shed = counter("flicker_shed", "Queries refused because the queue was full")
        self.expired = counter("flicker_expired", "Queries dropped because nobody waited any more")
        self.queue = gauge("flicker_queue_length", "Queries that wait")
        self.batch = histogram("flicker_batch_size", "Queries ranked in one pass", buckets=QUERIES)
        self.rank = histogram("flicker_rank_seconds", "One pass of ranking", buckets=SECONDS)
        self.grpc = GrpcMetrics(registry, SECONDS)

    def refreshed(self, generation: int, published: float, seconds: float) -> None:
        """A generation, published at unix second `published`, was taken into service after loading for `seconds`."""
        self.generation.set(generation)
        self._age.set_function(lambda: time.time() - published)
        self.refreshes.inc()
        self.load_seconds.observe(seconds)
