"""The formula: memory and time of a run, and of a replica, from counts that are known before it starts.

E users and items, V table rows, A arms, R duplicates, M = A R models, P = R (R - 1) / 2 pairs, N candidates,
G generations, C candidates ranked by each model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
from scaling_axes import MODEL, Setting
from scaling_laws import Law, Sum, fit, fit_sum

from simulator.experiment.folder import CHECKPOINT_SHARE

Point = Mapping[str, Any]
"""Medians over the repeated processes of one setting."""
Points = Sequence[tuple[Setting, Point]]
MAPPED = 32 << 20
"""Bytes beyond which the C library gets memory from the system each time, and gives it back (mallopt(3)): every page of
it is then made anew."""


def memory_counts(setting: Setting, rows: int) -> tuple[float, ...]:
    """1, E, M V, M N."""
    return 1.0, 2.0 * setting.entities, float(setting.models * rows), float(setting.models * setting.candidates)


def comparing_counts(setting: Setting) -> tuple[float, ...]:
    """1, A, A P, A P N: intervals of each arm, pairs of duplicates, and their candidates."""
    pairs = setting.arms * setting.duplicates * (setting.duplicates - 1) / 2
    return 1.0, float(setting.arms), pairs, pairs * setting.candidates


def measuring_counts(setting: Setting) -> tuple[float, ...]:
    """1, A, A P, M N^2: bootstraps per arm, pairs of duplicates, and pairs of candidates for each model."""
    pairs = setting.duplicates * (setting.duplicates - 1) / 2
    return 1.0, float(setting.arms), setting.arms * pairs, float(setting.models * setting.candidates**2)


def replica_counts(setting: Setting, rows: int) -> tuple[float, ...]:
    """1, E, A V, A I."""
    return 1.0, 2.0 * setting.entities, float(setting.arms * rows), float(setting.arms * setting.entities)


def prepare_counts(setting: Setting, rows: int) -> tuple[float, ...]:
    """The same, and A I once more where an arm's items' parts are mapped anew with every generation."""
    counts = replica_counts(setting, rows)
    return *counts, counts[-1] if 4 * MODEL.hidden[0] * setting.entities > MAPPED else 0.0


@dataclass(frozen=True)
class RunEstimate:
    """Fitted to all points of learning."""

    start: float
    """Seconds of Python and its imports."""
    world: Sum
    """Seconds per (1, E) to make the world."""
    learn: Law
    """Seconds per event and model, by V."""
    rank: float
    """Seconds per ranked candidate and model."""
    checkpoint: Sum
    """Seconds per (1, M V), at each generation."""
    compare: Sum
    """Seconds per `comparing_counts`, at each generation."""
    measure: Sum
    """Seconds per `measuring_counts`, at the end."""
    saving: Sum
    """Peak bytes while a checkpoint is written, by (1, E, M V)."""
    measuring: Sum
    """Peak bytes of ranking and the final measurement, by `memory_counts`."""
    beside: float = 0.0
    """Bytes that `flicker run` needs beside the experiment: flags, the report, drawing."""

    def calibrated(self, base: Setting, said: Point, ranked: float, rows: int) -> RunEstimate:
        """With `start` and `beside` such that it says of the base point what the whole of `flicker run` took there."""
        missed = said["cpu"] - sum(self.parts(base, rows, said["learned"], ranked).values())
        return replace(self, start=self.start + missed, beside=said["peak"] - self.memory(base, rows))

    def memory(self, setting: Setting, rows: int) -> float:
        """Peak bytes of a run."""
        counts = memory_counts(setting, rows)
        return self.beside + max(self.saving(counts[:3]), self.measuring(counts))

    def parts(self, setting: Setting, rows: int, learned: float, ranked: float) -> dict[str, float]:
        """CPU seconds of a run that learns so many events and in which each model ranks so many candidates."""
        models, refreshes = setting.models, setting.generations - 1
        parts = {
            "start and world": self.start + self.world((1.0, 2.0 * setting.entities)),
            "learning": learned * models * float(self.learn(np.array(float(rows)))),
            "ranking": ranked * models * self.rank,
            "comparing": refreshes * self.compare(comparing_counts(setting)),
            "measuring": self.measure(measuring_counts(setting)),
        }
        one = self.checkpoint((1.0, float(models * rows)))
        most = one + CHECKPOINT_SHARE * sum(parts.values())
        return parts | {"checkpoints": min(refreshes * one, most)}


def run_estimate(points: Points) -> RunEstimate:
    """The formula of a run."""
    memory = [memory_counts(setting, point["rows"]) for setting, point in points]
    tables = [counts[0:1] + counts[2:3] for counts in memory]

    def seconds(part: str) -> list[float]:
        return [point["cpu"][part] for _, point in points]

    def peaks(*parts: str) -> list[float]:
        return [max(point["peak"][part] for part in parts) for _, point in points]

    by_rows = [(s, p) for s, p in points if s.models == points[0][0].models]
    return RunEstimate(
        median(seconds("start")),
        fit_sum([counts[:2] for counts in memory], seconds("world")),
        fit([p["rows"] for _, p in by_rows], [learning_time(s, p) for s, p in by_rows]),
        median(p["cpu"]["rank"] / (p["ranked"] * s.models) for s, p in points),
        fit_sum(tables, seconds("checkpoint")),
        fit_sum([comparing_counts(setting) for setting, _ in points], seconds("compare")),
        fit_sum([measuring_counts(setting) for setting, _ in points], seconds("measure")),
        fit_sum([counts[:3] for counts in memory], peaks("checkpoint")),
        fit_sum(memory, peaks("learn", "compare", "rank", "measure")),
    )


def learning_time(setting: Setting, point: Point) -> float:
    """CPU seconds per event and model."""
    return float(point["learn"] / (point["learned"] * setting.models))


@dataclass(frozen=True)
class ReplicaEstimate:
    """Fitted to all points of serving."""

    memory: Sum
    """Peak bytes while it refreshes, by `replica_counts`."""
    prepare: Sum
    """Seconds to prepare a generation, by `prepare_counts`."""
    query: Law
    """Seconds of one query, by N."""


def replica_estimate(points: Points, candidates: Points) -> ReplicaEstimate:
    """The formula of a replica; `candidates` are the points in which nothing but N differs."""
    counts = [replica_counts(setting, point["rows"]) for setting, point in points]
    preparing = [prepare_counts(setting, point["rows"]) for setting, point in points]
    return ReplicaEstimate(
        fit_sum(counts, [point["peak"]["refresh"] for _, point in points]),
        fit_sum(preparing, [point["cpu"]["refresh"] for _, point in points]),
        fit([s.candidates for s, _ in candidates], [p["cpu"]["one"] for _, p in candidates]),
    )
