"""Counts of finished calls and of repeated queries' changes, added up over processes.

**User-visible swap ratio**: the share of queries asked again moments later, by the same user in the same context, whose
slate changed in any slot. A *repeat* is counted by arm and by whether both answers came from one generation: if so only
another duplicate can have changed it, else a refresh may have, too. The counters of repeats are the truth, the ratio of
the metrics page is the live view: never average ratios.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

WINDOW = 500
"""Repeats of an arm that the live ratio looks back on."""
RECENT = 10
"""Seconds that live rates and latencies look back on."""
STEP = 1.02
"""Latencies are counted in buckets this factor wide: quantiles are right to 1 %."""
QUANTILES = (0.5, 0.99)
FAILURES = ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL")
"""Codes shown before they occur: where a counter begins with its first failure, rate() never sees that one. CANCELLED
is what gRPC's core in the router refused, which the router cannot count."""


class FinishedCall(NamedTuple):
    """One finished call."""

    method: str
    """`Recommend` or `Feedback`."""
    code: str
    """gRPC status, `OK` for an answer."""
    seconds: float
    """From sending to answer."""


class Repeat(NamedTuple):
    """One query that was asked twice."""

    arm: str
    same_generation: bool
    changed: int
    """Slots whose item differs."""
    slots: int
    """Slots of the longer slate."""


@dataclass
class RepeatCounts:
    """Repeats, added up."""

    repeats: int = 0
    changed: int = 0
    """Of them, those with any slot changed."""
    slots: int = 0
    changed_slots: int = 0

    def add(self, repeat: Repeat) -> None:
        """One more repeat."""
        self.repeats += 1
        self.changed += repeat.changed > 0
        self.slots += repeat.slots
        self.changed_slots += repeat.changed

    def __add__(self, other: RepeatCounts) -> RepeatCounts:
        return RepeatCounts(*(getattr(self, count.name) + getattr(other, count.name) for count in fields(RepeatCounts)))


def compare(first: Sequence[int], second: Sequence[int]) -> tuple[int, int]:
    """Slots in which two slates differ, and slots of the longer one; a slot that only one of them has differs."""
    same = sum(a == b for a, b in zip(first, second, strict=False))
    slots = max(len(first), len(second))
    return slots - same, slots


def quantile(latencies: Counter[int], share: float) -> float | None:
    """Seconds within which a share of the counted latencies (buckets of STEP) lies; None where there are none."""
    rank = math.ceil(share * latencies.total())
    for bucket in sorted(latencies):
        rank -= latencies[bucket]
        if rank <= 0:
            return STEP**bucket
    return None


@dataclass
class Tally:
    """Counts since the start of a test."""

    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By method and code."""
    latencies: Counter[int] = field(default_factory=Counter)
    """Answered queries by bucket of their latency."""
    clicks: int = 0
    repeat_counts: dict[tuple[str, bool], RepeatCounts] = field(default_factory=dict)
    """By arm and whether the generation was the same."""
    offered: float = 0.0
    """Queries that were due."""
    seconds: float = 0.0
    """Length of the test so far."""
    _window: dict[str, deque[bool]] = field(default_factory=dict)
    _recent: deque[tuple[float, float, Counter[int]]] = field(default_factory=lambda: deque(maxlen=RECENT))
    """Per second or so: its length, the queries offered in it, and the latencies of those answered."""
    _second: Counter[int] = field(default_factory=Counter)

    def call(self, call: FinishedCall) -> None:
        """One more call."""
        self.calls[call.method, call.code] += 1
        if call.method == "Recommend" and call.code == "OK":
            bucket = round(math.log(max(call.seconds, 1e-6), STEP))
            self.latencies[bucket] += 1
            self._second[bucket] += 1

    def repeat(self, repeat: Repeat) -> None:
        """One more query that was asked twice."""
        self.repeat_counts.setdefault((repeat.arm, repeat.same_generation), RepeatCounts()).add(repeat)
        self._window.setdefault(repeat.arm, deque(maxlen=WINDOW)).append(repeat.changed > 0)

    def click(self, clicks: int) -> None:
        """So many more clicks."""
        self.clicks += clicks

    def tick(self, seconds: float, offered: float) -> None:
        """`seconds` more have passed, in which `offered` queries were due; call it about once a second."""
        self.seconds += seconds
        self.offered += offered
        self._recent.append((seconds, offered, self._second))
        self._second = Counter()

    def swap_ratios(self) -> dict[str, float]:
        """The live user-visible swap ratio of each arm, over its last WINDOW repeats."""
        return {arm: sum(changed) / len(changed) for arm, changed in sorted(self._window.items())}

    def recent_rates(self) -> tuple[float, float]:
        """Offered and achieved queries per second over the last RECENT seconds; 0 before the first has passed."""
        seconds = sum(second[0] for second in self._recent)
        achieved = sum(second[2].total() for second in self._recent)
        return (sum(second[1] for second in self._recent) / seconds, achieved / seconds) if seconds else (0.0, 0.0)

    def recent_latency(self, share: float) -> float | None:
        """Seconds within which a share of the queries of the last RECENT seconds was answered."""
        return quantile(sum((part[2] for part in self._recent), Counter()), share)

    def summary(self) -> dict[str, Any]:
        """What is written at the end: times in seconds, rates in queries per second, failures by gRPC code.

        `requests`, `failures`, `p50` and `p99` are those of Recommend. Per arm `ratio` is the share of repeats with any
        slot changed, `slot_ratio` the share of slots; in all, and by whether both answers came from one generation.
        What nothing was counted for is null.
        """
        answered = self.calls["Recommend", "OK"]
        arms = sorted({arm for arm, _ in self.repeat_counts})
        return {
            "seconds": self.seconds,
            "requests": self._requests("Recommend"),
            "failures": self._failures("Recommend"),
            "p50": quantile(self.latencies, 0.5),
            "p99": quantile(self.latencies, 0.99),
            "offered": self.offered / self.seconds if self.seconds else 0.0,
            "achieved": answered / self.seconds if self.seconds else 0.0,
            "feedback": {
                "requests": self._requests("Feedback"),
                "failures": self._failures("Feedback"),
                "clicks": self.clicks,
            },
            "user_visible_swap_ratio": {arm: self._arm(arm) for arm in arms},
        }

    def _arm(self, arm: str) -> dict[str, Any]:
        same, other = (self.repeat_counts.get((arm, generation), RepeatCounts()) for generation in (True, False))
        return _ratios(same + other) | {"same_generation": _ratios(same), "other_generation": _ratios(other)}

    def _requests(self, method: str) -> int:
        return sum(count for (name, _), count in self.calls.items() if name == method)

    def _failures(self, method: str) -> dict[str, int]:
        calls = sorted(self.calls.items())
        return {code: count for (name, code), count in calls if name == method and code != "OK"}


def _ratios(repeat_counts: RepeatCounts) -> dict[str, Any]:
    return {
        "ratio": repeat_counts.changed / repeat_counts.repeats if repeat_counts.repeats else None,
        "slot_ratio": repeat_counts.changed_slots / repeat_counts.slots if repeat_counts.slots else None,
        "repeats": repeat_counts.repeats,
        "changed": repeat_counts.changed,
    }


class Outbox:
    """Where a worker counts: what came since its last report to the master, in lists that MessagePack holds."""

    def __init__(self) -> None:
        self._report: dict[str, list[Any]] = {"calls": [], "repeats": [], "clicks": []}

    def call(self, call: FinishedCall) -> None:
        """One more call."""
        self._report["calls"].append(list(call))

    def repeat(self, repeat: Repeat) -> None:
        """One more query that was asked twice."""
        self._report["repeats"].append(list(repeat))

    def click(self, clicks: int) -> None:
        """So many more clicks."""
        self._report["clicks"].append(clicks)

    def take(self) -> dict[str, list[Any]]:
        """The report; it starts anew."""
        report = self._report
        self._report = {name: [] for name in report}
        return report


def add_report(tally: Tally, report: dict[str, list[Any]]) -> None:
    """Add a worker's report to the master's counts."""
    for call in report["calls"]:
        tally.call(FinishedCall(*call))
    for repeat in report["repeats"]:
        tally.repeat(Repeat(*repeat))
    for clicks in report["clicks"]:
        tally.click(clicks)


class LoadCollector(Collector):
    """Puts a tally on a metrics page, at every scrape; on the master, or where there are no workers."""

    def __init__(self, tally: Callable[[], Tally], users: Callable[[], int], registry: CollectorRegistry) -> None:
        """`tally` gives the counts of the test that runs now, `users` the number of simulated users."""
        self._tally, self._users = tally, users
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """All of the load's metrics."""
        tally = self._tally()
        yield from _swaps(tally)
        yield from _calls(tally)
        yield from _rates(tally)
        yield GaugeMetricFamily("flicker_load_users", "Simulated users that run now", value=self._users())


def _swaps(tally: Tally) -> Iterable[Metric]:
    labels = ["arm", "same_generation"]
    counters = [
        CounterMetricFamily("flicker_user_repeats", "Queries asked again moments later and answered", labels=labels),
        CounterMetricFamily("flicker_user_changed", "Of them, those whose slate changed in any slot", labels=labels),
        CounterMetricFamily("flicker_user_slots", "Slots of the slates of repeated queries", labels=labels),
        CounterMetricFamily("flicker_user_changed_slots", "Of them, those whose item changed", labels=labels),
    ]
    for (arm, same_generation), repeats in sorted(tally.repeat_counts.items()):
        values = repeats.repeats, repeats.changed, repeats.slots, repeats.changed_slots
        for counter, count in zip(counters, values, strict=True):
            counter.add_metric([arm, "true" if same_generation else "false"], count)
    yield from counters
    ratio = GaugeMetricFamily(
        "flicker_user_visible_swap_ratio",
        f"Share of repeated queries whose slate changed in any slot, over the last {WINDOW} of the arm",
        labels=["arm"],
    )
    for arm, value in tally.swap_ratios().items():
        ratio.add_metric([arm], value)
    yield ratio


def _calls(tally: Tally) -> Iterable[Metric]:
    handled = CounterMetricFamily("flicker_load_calls", "Finished calls", labels=["method", "code"])
    failed = CounterMetricFamily("flicker_load_failures", "Of them, those that failed", labels=["method", "code"])
    zeros = {(method, code): 0 for method, _ in tally.calls for code in FAILURES}
    for (method, code), count in sorted((zeros | tally.calls).items()):
        handled.add_metric([method, code], count)
        if code != "OK":
            failed.add_metric([method, code], count)
    yield handled
    yield failed
    yield CounterMetricFamily("flicker_load_clicks", "Clicks that users reported", value=tally.clicks)


def _rates(tally: Tally) -> Iterable[Metric]:
    offered, achieved = tally.recent_rates()
    period = f"over the last {RECENT} seconds"
    yield CounterMetricFamily("flicker_load_offered", "Queries that were due", value=tally.offered)
    yield GaugeMetricFamily("flicker_load_offered_rate", f"Queries per second that were due, {period}", value=offered)
    yield GaugeMetricFamily("flicker_load_achieved_rate", f"Queries per second answered, {period}", value=achieved)
    latency = GaugeMetricFamily(
        "flicker_load_latency_seconds", f"Time to answer a query as its user sees it, {period}", labels=["quantile"]
    )
    for share in QUANTILES:
        value = tally.recent_latency(share)
        if value is not None:
            latency.add_metric([str(share)], value)
    yield latency
