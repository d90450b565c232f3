"""The proxy's instruments beside those of its calls: the live system's own, so that rules and dashboards fit."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from serving.router.metrics import ShadowMetrics
from simulator.process import instruments
from simulator.types import Doubles


class ProxyMetrics(ShadowMetrics):
    """Comparisons, and where on dashboards an arm stands."""

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
