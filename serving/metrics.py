"""Every instrument of a router, a proxy and a replica, and of their calls, on a registry that is handed in.

Those of the proxy are the live system's own, so that rules and dashboards fit it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import grpc
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from simulator.measures.registry import MEASURES
from simulator.measures.window import WindowSums
from simulator.process import instruments
from simulator.store.protocol import StoreRefuses
from simulator.types import Doubles

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of latency buckets, of a router and a proxy."""
REPLICA_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""The same of a replica."""
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Upper ends of the buckets of queries per call, and, the first ones, of queries per pass."""
REFUSED = "Generations that this process did not take, by what was wrong with them"
"""Of flicker_snapshots_refused_total, which replicas and routers have."""
REASONS = ("in_flight", "delay", "bytes", "busy", "half_open", "broken", "unread", "no_token")
"""Why a call is refused at the door, see serving/rpc.py."""


class GrpcMetrics:
    """What every gRPC server counts, under the names of go-grpc-prometheus, whose dashboards fit them."""

    def __init__(self, registry: CollectorRegistry, buckets: Sequence[float]) -> None:
        """`buckets`: upper ends of those of a call's seconds."""
        counter, gauge, histogram = instruments(registry)
        labels = ["grpc_type", "grpc_service", "grpc_method"]
        self._started = counter("grpc_server_started", "Calls begun", labels)
        self._handled = counter("grpc_server_handled", "Calls ended", [*labels, "grpc_code"])
        seconds = "From begin to end of a call"
        self._seconds = histogram("grpc_server_handling_seconds", seconds, labels, buckets=buckets)
        words = "Calls that were too much, by reason; broken: a request larger than allowed, or taken back too early"
        refused = counter("flicker_rpc_refused", words, ["reason"])
        self.refused = {reason: refused.labels(reason) for reason in REASONS}
        self.in_flight = gauge("flicker_rpc_in_flight", "Calls between request and answer")

    def method(self, service: str, name: str) -> tuple[Callable[[], None], Callable[[grpc.StatusCode, float], None]]:
        """To be called where a call of this method begins, and with its code and its seconds where it ends."""
        labels = ("unary", service, name)
        handled = {code: self._handled.labels(*labels, spelled(code)) for code in grpc.StatusCode}
        seconds = self._seconds.labels(*labels)

        def end(code: grpc.StatusCode, took: float) -> None:
            handled[code].inc()
            seconds.observe(took)

        return self._started.labels(*labels).inc, end


def spelled(code: grpc.StatusCode) -> str:
    """As the metrics of other gRPC servers spell it: `InvalidArgument`, `OK`."""
    return "OK" if code is grpc.StatusCode.OK else code.name.title().replace("_", "")


class ReplicaMetrics:
    """Generations, queries and passes of a replica."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, gauge, histogram = instruments(registry)
        self.generation = gauge("flicker_generation", "Generation that is served, -1 while none")
        self.generation.set(-1)
        self._age = gauge("flicker_snapshot_age_seconds", "Since the served generation was published, -1 while none")
        self._age.set(-1)
        native = "Arms that the native engine scores; replicas that do not agree here round differently"
        self.native = gauge("flicker_native_arms", native)
        self.refreshes = counter("flicker_refreshes", "Generations taken into service")
        self.refused = counter("flicker_snapshots_refused", REFUSED, ["reason"])
        seconds = "Fetch, verify and prepare a generation"
        self.load_seconds = histogram("flicker_load_seconds", seconds, buckets=REPLICA_SECONDS)
        self.queries = counter("flicker_queries", "Queries answered", ["arm"])
        self.bad_queries = counter("flicker_bad_queries", "Queries refused for a value", ["field"])
        self.shed = counter("flicker_shed", "Queries refused because the queue was full")
        self.expired = counter("flicker_expired", "Queries dropped because nobody waited any more")
        self.queue = gauge("flicker_queue_length", "Queries that wait")
        self.batch = histogram("flicker_batch_size", "Queries ranked in one pass", buckets=SIZES[:6])
        self.rank = histogram("flicker_rank_seconds", "One pass of ranking", buckets=REPLICA_SECONDS)
        self.grpc = GrpcMetrics(registry, REPLICA_SECONDS)

    def refreshed(self, generation: int, published: float, seconds: float) -> None:
        """A generation, published at unix second `published`, was taken into service after loading for `seconds`."""
        self.generation.set(generation)
        self._age.set_function(lambda: time.time() - published)
        self.refreshes.inc()
        self.load_seconds.observe(seconds)


class RouterMetrics:
    """Queries, replicas and feedback; the comparisons' are ShadowMetrics."""

    def __init__(self, registry: CollectorRegistry, replicas_expected: int | None = None) -> None:
        """`replicas_expected`: how many should serve, shown where it is known."""
        counter, gauge, histogram = instruments(registry)
        self.queries = counter("flicker_router_queries", "Queries by the code they ended with", ["arm", "code"])
        self.seconds = histogram("flicker_router_query_seconds", "From query to answer", ["arm"], buckets=SECONDS)
        self.unknown_users = counter("flicker_router_unknown_users", "Queries of users whom the world has not")
        self.retried = counter("flicker_router_retried", "Queries sent to a second replica after the first was lost")
        self.replicas = gauge("flicker_router_replicas", "Replicas known", ["healthy"])
        if replicas_expected is not None:
            gauge("flicker_router_replicas_expected", "Replicas that should serve").set(replicas_expected)
        sent = "Users' queries sent to a replica"
        self.replica_queries = counter("flicker_router_replica_queries", sent, ["replica"])
        shared = "Queries that share a call"
        self.coalesced = histogram("flicker_router_coalesced_queries", shared, ["lane"], buckets=SIZES)
        self.generation = gauge("flicker_router_generation", "Newest generation published")
        self.refused = counter("flicker_snapshots_refused", REFUSED, ["reason"])
        self.store_up = gauge("flicker_router_store_up", "1 while the store can be reached")
        shown = "Shown items reported, by whether they were clicked"
        self.feedback_events = counter("flicker_feedback_events", shown, ["clicked"])
        refused = "Shown items refused: neither the store nor a spool took them in time"
        self.feedback_refused = counter("flicker_feedback_refused", refused)
        buffered = "Reports in the spool that the store does not have yet"
        self.feedback_buffered = gauge("flicker_feedback_buffered", buffered)
        self.spool_bytes = gauge("flicker_feedback_spool_bytes", "Bytes in the spool")
        self.spool_limit = gauge("flicker_feedback_spool_limit_bytes", "Bytes that it may hold, 0 without one")
        self.store_errors = counter("flicker_store_errors", "Attempts to reach the store that failed.")
        answered = "Of these, those that the store answered: it has no memory or disk, or is read-only."
        self.store_refused = counter("flicker_store_refused", answered)

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
        failed = "Comparisons without an answer of both sides, or with one that cannot be compared"
        self._failed = counter("flicker_comparisons_failed", failed, ["cause", "code"])
        self.backlog = gauge("flicker_shadow_backlog", "Sampled queries that wait to be compared")
        self.dropped = counter("flicker_shadow_dropped", "Sampled queries not compared: the backlog was full")
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

    def collect(self) -> Iterator[Metric]:
        """The gauges; none for an arm and cause without a comparison in the window."""
        labels = ["arm", "cause"]
        swaps, differences = "Swaps over the last seconds, 0 to 1", "PD of candidates over the last seconds, 0 to 2"
        swap = GaugeMetricFamily("flicker_swap_ratio", swaps, labels=[*labels, "measure"])
        pd = GaugeMetricFamily("flicker_prediction_difference", differences, labels=labels)
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


class ProxyMetrics(ShadowMetrics):
    """Comparisons of a proxy, and where on dashboards an arm stands."""

    def __init__(self, registry: CollectorRegistry, window: float) -> None:
        """`window` of the gauges in seconds."""
        super().__init__(registry, window)
        _, gauge, _ = instruments(registry)
        self._position = gauge("flicker_arm_position", "Place of an arm, from 1: place 0 is a trainer's first", ["arm"])
        self._arms: set[str] = set()

    def record(self, arm: str, cause: str, sums: Doubles) -> None:
        """See ShadowMetrics."""
        if arm not in self._arms:
            self._arms.add(arm)
            self._position.labels(arm).set(len(self._arms))
        super().record(arm, cause, sums)
