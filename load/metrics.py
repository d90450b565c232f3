"""The load's metrics, read from its counts at every scrape; on the master, or where there are no workers.

The two counters of repeats are the truth, the ratio is the live view: never average ratios.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from load.tally import RECENT, WINDOW, Tally

QUANTILES = (0.5, 0.99)
FAILURES = ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL")
"""Codes shown before they occur: where a counter begins with its first failure, rate() never sees that one. CANCELLED
is what gRPC's core in the router refused, which the router cannot count."""


class LoadCollector(Collector):
    """Puts a tally on a metrics page."""

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
