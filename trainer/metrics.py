"""Every Prometheus instrument of the trainer, on the registry that is handed in."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from simulator.process import instruments
from simulator.store.protocol import StoreRefuses
from trainer.progressive import Quality
from trainer.reader import REASONS

LEARN_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
"""Seconds: a chunk of a few thousand events takes from a twentieth of a second to several."""
PUBLISH_BUCKETS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
"""Seconds: from a small model beside its store to a large one far from it."""


class Metrics:
    """What the trainer says about itself."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, gauge, histogram = instruments(registry)
        self.generation = gauge("flicker_generation", "The last published generation, -1 for none.")
        self.generation.set(-1)
        self._arm_position = gauge(
            "flicker_arm_position",
            "0 for the run's first arm, with which the others are compared, then 1, 2 ...",
            ["arm"],
        )
        self.published = gauge(
            "flicker_snapshot_published_timestamp_seconds", "Unix time at which the last published generation was cut."
        )
        self.learned = counter("flicker_events_learned", "Events of the log learned by this process.")
        self._set_aside = counter(
            "flicker_events_set_aside", "Events of the log that do not fit the schema, not learned.", ["reason"]
        )
        for reason in REASONS:  # where a counter begins with its first event, increase() never sees that one
            self._set_aside.labels(reason)
        self.waiting = gauge("flicker_events_waiting", "Events of the log not learned yet (lag).")
        self.learn_seconds = histogram(
            "flicker_learn_seconds",
            "Time to score and learn one chunk with every duplicate of every arm.",
            buckets=LEARN_BUCKETS,
        )
        self.publish_seconds = histogram(
            "flicker_publish_seconds", "Time to make and publish the parts of one generation.", buckets=PUBLISH_BUCKETS
        )
        self.log_loss, self.auc, self.calibration = (
            gauge(
                name,
                f"{title} of the last generation's events, predicted before they were learned; mean over duplicates.",
                ["arm"],
            )
            for name, title in (
                ("flicker_progressive_log_loss", "Log loss in nats"),
                ("flicker_progressive_auc", "Area under the ROC curve"),
                ("flicker_calibration", "Mean prediction / mean label"),
            )
        )
        self.fed = counter("flicker_feeder_events", "Events of the world appended to the log.")
        self.paused_seconds = counter(
            "flicker_feeder_paused_seconds", "Time that the feeder waited because the log was full or the store away."
        )
        self.store_errors = counter("flicker_store_errors", "Attempts to reach the store that failed.")
        self.store_refused = counter(
            "flicker_store_refused",
            "Of these, those that the store answered: it has no memory or disk, or is read-only.",
        )
        self.shards_missing = gauge(
            "flicker_shards_missing",
            "Other trainers that have not handed in their part of the generation that this one waits to see published.",
        )
        self.shards_wait_seconds = counter(
            "flicker_shards_wait_seconds", "Time that this trainer waited for others to hand in a generation."
        )
        self.world_ended = gauge("flicker_world_ended", "1 once every event of the world is fed.")

    def store_failed(self, problem: Exception) -> None:
        """An attempt to reach the store failed."""
        self.store_errors.inc()
        self.store_refused.inc(isinstance(problem, StoreRefuses))

    def set_aside(self, reason: str, events: int) -> None:
        """So many events were not learned."""
        self._set_aside.labels(reason).inc(events)

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
                if value is not None:
                    gauge.labels(arm).set(value)
                else:  # no sample rather than a NaN
                    gauge.remove(arm)
