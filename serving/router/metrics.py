"""Every instrument of the router, on a registry that is handed in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from serving.codec import REFUSED
from simulator.measures.registry import MEASURES
from simulator.measures.window import WindowSums
from simulator.process import instruments
from simulator.store.protocol import StoreRefuses
from simulator.types import Doubles

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of latency buckets."""
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Upper ends of the buckets of queries per call."""


class RouterMetrics:
    """Queries, replicas and feedback; the comparisons' are ShadowMetrics, the calls' own are GrpcMetrics."""

    def __init__(self, registry: CollectorRegistry, replicas_expected: int | None = None) -> None:
        """`replicas_expected`: how many should serve, shown where it is known."""
        counter, gauge, histogram = instruments(registry)
        self.queries = counter("flicker_router_queries", "Queries by the code they ended with", ["arm", "code"])
        self.seconds = histogram("flicker_router_query_seconds", "From query to answer", ["arm"], buckets=SECONDS)
        self.unknown_users = counter("flicker_router_unknown_users", "Queries of users whom the world has not")
        self.retried = counter("flicker_router_retried", "Queries sent to a second replica after the first was lost")
        self.replicas = gauge("flicker_router_replicas", "Replicas known", ["healthy"])
        if replicas_expected is not None:
            expected = gauge("flicker_router_replicas_expected", "Replicas that should serve")
            expected.set(replicas_expected)
        self.replica_queries = counter(
            "flicker_router_replica_queries", "Users' queries sent to a replica", ["replica"]
        )
        self.coalesced = histogram(
            "flicker_router_coalesced_queries", "Queries that share a call", ["lane"], buckets=SIZES
        )
        self.generation = gauge("flicker_router_generation", "Newest generation published")
        self.refused = counter("flicker_snapshots_refused", REFUSED, ["reason"])
        self.store_up = gauge("flicker_router_store_up", "1 while the store can be reached")
        self.feedback_events = counter(
            "flicker_feedback_events", "Shown items reported, by whether they were clicked", ["clicked"]
        )
        self.feedback_refused = counter(
            "flicker_feedback_refused", "Shown items refused: neither the store nor a spool took them in time"
        )
        self.feedback_buffered = gauge(
            "flicker_feedback_buffered", "Reports in the spool that the store does not have yet"
        )
        self.spool_bytes = gauge("flicker_feedback_spool_bytes", "Bytes in the spool")
        self.spool_limit = gauge("flicker_feedback_spool_limit_bytes", "Bytes that it may hold, 0 without one")
        self.store_errors = counter("flicker_store_errors", "Attempts to reach the store that failed.")
        self.store_refused = counter(
            "flicker_store_refused",
            "Of these, those that the store answered: it has no memory or disk, or is read-only.",
        )

    def store_failed(self, problem: Exception) -> None:
        """An attempt to reach the store failed."""
        self.store_errors.inc()
        self.store_refused.inc(isinstance(problem, StoreRefuses))


class ShadowMetrics(Collector):
    """Comparisons: counters, from which recording rules make ratios, and gauges of the last seconds."""

    def __init__(self, registry: CollectorRegistry, window: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`window` of the gauges in seconds."""
        counter, gauge, _ = instruments(registry)
        labels = ["arm", "cause", "measure"]
        self._sums = (
            counter("flicker_differences", "What differs between pairs of answers, in the measure's own count", labels),
            counter("flicker_compared", "What it is a share of: of top1, for one, the pairs of answers", labels),
        )
        self._failed = counter(
            "flicker_comparisons_failed",
            "Comparisons without an answer of both sides, or with one that cannot be compared",
            ["cause", "code"],
        )
        self._backlog = gauge("flicker_shadow_backlog", "Sampled queries that wait to be compared")
        self._dropped = counter("flicker_shadow_dropped", "Sampled queries not compared: the backlog was full")
        self._window, self._clock = window, clock
        self._lock = threading.Lock()
        self._recent: dict[tuple[str, str], WindowSums] = {}
        registry.register(self)

    def record(self, arm: str, cause: str, sums: Doubles) -> None:
        """The sums [measures, 2] of one comparison, or of several, in the order of MEASURES."""
        for measure, parts in zip(MEASURES, sums.tolist(), strict=True):
            for counter, value in zip(self._sums, parts, strict=True):
                counter.labels(arm, cause, measure).inc(value)
        with self._lock:
            recent = self._recent.setdefault((arm, cause), WindowSums(self._window, sums.size))
            recent.add(self._clock(), sums.ravel())

    def fail(self, cause: str, code: str) -> None:
        """A comparison without an answer of both sides: a status, or, in lower case, what is wrong with an answer."""
        self._failed.labels(cause, code).inc()

    def backlog(self, length: int) -> None:
        """Sampled queries that wait."""
        self._backlog.set(length)

    def drop(self) -> None:
        """A sampled query for which there was no room."""
        self._dropped.inc()

    def collect(self) -> Iterator[Metric]:
        """The gauges; none for an arm and cause without a comparison in the window."""
        labels = ["arm", "cause"]
        swap = GaugeMetricFamily(
            "flicker_swap_ratio", "Swaps over the last seconds, 0 to 1", labels=[*labels, "measure"]
        )
        pd = GaugeMetricFamily(
            "flicker_prediction_difference", "PD of candidates over the last seconds, 0 to 2", labels=labels
        )
        with self._lock:
            now = self._clock()
            recent = {who: sums.sums(now).reshape(-1, 2).tolist() for who, sums in self._recent.items()}
        for who, sums in recent.items():
            for measure, (part, whole) in zip(MEASURES.values(), sums, strict=True):
                if whole and measure.swap:
                    swap.add_metric([*who, measure.name], part / whole)
                elif whole and measure.name == "pd_candidates":
                    pd.add_metric(who, part / whole)
        yield swap
        yield pd
