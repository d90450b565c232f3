"""Every Prometheus instrument of the trainer, on the registry that is handed in."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from trainer.progressive import Quality

LEARN_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
"""Seconds: a chunk of a few thousand events takes from a twentieth of a second to several."""
PUBLISH_BUCKETS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
"""Seconds: from a small model beside its store to a large one far from it."""


class Metrics:
    """What the trainer says about itself."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.generation = Gauge("flicker_generation", "The last published generation, -1 for none.", registry=registry)
        self.generation.set(-1)
        self._arm_position = Gauge(
            "flicker_arm_position",
            "0 for the run's first arm, with which the others are compared, then 1, 2 ...",
            ["arm"],
            registry=registry,
        )
        self.published = Gauge(
            "flicker_snapshot_published_timestamp_seconds",
            "Unix time at which the last published generation was cut.",
            registry=registry,
        )
        self.learned = Counter(
            "flicker_events_learned", "Events of the log learned by this process.", registry=registry
        )
        self.waiting = Gauge("flicker_events_waiting", "Events of the log not learned yet (lag).", registry=registry)
        self.learn_seconds = Histogram(
            "flicker_learn_seconds",
            "Time to score and learn one chunk with every duplicate of every arm.",
            buckets=LEARN_BUCKETS,
            registry=registry,
        )
        self.publish_seconds = Histogram(
            "flicker_publish_seconds",
            "Time to make and publish the parts of one generation.",
            buckets=PUBLISH_BUCKETS,
            registry=registry,
        )
        self.log_loss, self.auc, self.calibration = (
            Gauge(
                name,
                f"{what} of the last generation's events, predicted before they were learned; mean over duplicates.",
                ["arm"],
                registry=registry,
            )
            for name, what in (
                ("flicker_progressive_log_loss", "Log loss in nats"),
                ("flicker_progressive_auc", "Area under the ROC curve"),
                ("flicker_calibration", "Mean prediction / mean label"),
            )
        )
        self.fed = Counter("flicker_feeder_events", "Events of the world appended to the log.", registry=registry)
        self.paused_seconds = Counter(
            "flicker_feeder_paused_seconds",
            "Time that the feeder waited because the log was full or the store away.",
            registry=registry,
        )
        self.store_errors = Counter(
            "flicker_store_errors", "Attempts to reach the store that failed.", registry=registry
        )
        self.world_ended = Gauge("flicker_world_ended", "1 once every event of the world is fed.", registry=registry)

    def show_arms(self, arms: Sequence[str]) -> None:
        """The arms of the run, in order."""
        for position, arm in enumerate(arms):
            self._arm_position.labels(arm).set(position)

    def show_generation(self, number: int, cut: float, quality: Quality) -> None:
        """A published generation, when it was cut (unix seconds), and how good its predictions were."""
        self.generation.set(number)
        self.published.set(cut)
        for arm, measures in quality.items():
            for gauge, name in ((self.log_loss, "log_loss"), (self.auc, "auc"), (self.calibration, "calibration")):
                value = measures[name]
                gauge.labels(arm).set(float("nan") if value is None else value)
