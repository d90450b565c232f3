"""Every metric that can stand on a panel or in a rule, with its labels: what a scrape of the real instruments shows.

Each process's instruments are made on a fresh registry, as the process makes them, and each is given one sample.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from load.tally import FinishedCall, LoadCollector, Repeat, Tally
from serving.metrics import GrpcMetrics, ProxyMetrics, ReplicaMetrics, RouterMetrics, ShadowMetrics
from simulator.measures.registry import MEASURES
from tests.promql import Labels, labels
from trainer.metrics import Metrics as TrainerMetrics

PROMETHEUS = Path(__file__).parents[1] / "deploy" / "prometheus"
SCRAPED = frozenset({"job", "instance"})
"""Labels that Prometheus gives to each sample."""
FROM_PROMETHEUS = {"up": SCRAPED, "ALERTS": SCRAPED | {"alertname", "alertstate", "severity"}}
"""Metrics that Prometheus makes itself; an alert also carries the labels of its expression."""


class Listening(CollectorRegistry):
    """A registry that knows what was registered."""

    def __init__(self) -> None:
        super().__init__()
        self.collectors: list[Collector] = []

    def register(self, collector: Collector) -> None:
        """See CollectorRegistry."""
        super().register(collector)
        self.collectors.append(collector)


def _router(registry: CollectorRegistry) -> None:
    RouterMetrics(registry, 3)
    GrpcMetrics(registry, (1.0,))
    ShadowMetrics(registry, 60.0).record("arm", "cause", np.ones((len(MEASURES), 2)))


def _shadow(registry: CollectorRegistry) -> None:
    GrpcMetrics(registry, (1.0,))
    ProxyMetrics(registry, 60.0).record("arm", "cause", np.ones((len(MEASURES), 2)))


def _load(registry: CollectorRegistry) -> None:
    tally = Tally()
    for code in ("OK", "UNAVAILABLE"):
        tally.call(FinishedCall("Recommend", code, 0.01))
    tally.repeat(Repeat("arm", True, 1, 10))
    tally.click(1)
    tally.tick(1.0, 1.0)
    LoadCollector(lambda: tally, lambda: 1, registry)


JOBS: dict[str, Callable[[CollectorRegistry], Any]] = {
    "trainer": TrainerMetrics,
    "replica": ReplicaMetrics,
    "router": _router,
    "shadow": _shadow,
    "load": _load,
}
"""Prometheus' job -> what puts that process's instruments on a registry."""


def scraped(job: str) -> dict[str, Labels]:
    """Sample name -> its labels, of one job."""
    registry = Listening()
    JOBS[job](registry)
    ProcessCollector(registry=registry)  # simulator.process.serve_metrics adds it to each page
    for collector in registry.collectors:
        if isinstance(collector, MetricWrapperBase) and collector._labelnames:  # nothing public says what they are
            collector.labels(**dict.fromkeys(collector._labelnames, "any"))
    found: dict[str, Labels] = {}
    for sample in (sample for family in registry.collect() for sample in family.samples):
        found[sample.name] = found.get(sample.name, SCRAPED) | frozenset(sample.labels)
    return {name: there for name, there in found.items() if not name.endswith("_created")}


@functools.cache
def declared() -> dict[str, Labels]:
    """Sample name or name of a recording rule -> its labels, of all jobs together."""
    names = dict(FROM_PROMETHEUS)
    for job in JOBS:
        for name, there in scraped(job).items():
            names[name] = names.get(name, SCRAPED) | there
    for rule in rules("rules.yml"):  # each after those that it builds on
        made = labels(rule["expr"], names) | frozenset(rule.get("labels", {}))
        names[rule["record"]] = names.get(rule["record"], made) | made
    return names


def rules(file: str) -> list[dict[str, Any]]:
    """All rules of a file of deploy/prometheus, in order."""
    groups = yaml.safe_load((PROMETHEUS / file).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]
