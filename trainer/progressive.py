"""Progressive validation: how good the predictions for a generation's events were, each made before it was learned.

A trainer of some of the duplicates says what each of its own is worth; the means are of all of them, to the last bit as
where one trainer has them all.

Shapes: A arms, R duplicates of this trainer, M = A x R models, n events.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from simulator.measures.quality import auc, calibration, log_loss
from simulator.types import Floats

Scores = dict[str, dict[str, list[float | None]]]
"""Label of an arm -> {"log_loss", "auc", "calibration"}, of each of its duplicates; None where undefined."""
Quality = dict[str, dict[str, float | None]]
"""The same, the means over all duplicates."""


class Progressive:
    """The predictions since the last generation was cut."""

    def __init__(self, labels: list[str], duplicates: int) -> None:
        """`labels` [A] of the arms, R `duplicates` each."""
        self._arms, self._duplicates = labels, duplicates
        self._clear()

    def _clear(self) -> None:
        self._logits = [np.empty((len(self._arms) * self._duplicates, 0), np.float32)]
        self._labels = [np.empty(0, np.float32)]

    def add(self, logits: Floats, labels: Floats) -> None:
        """Log-odds [M, n] given to events before learning them, and what came of them [n]."""
        self._logits.append(logits)
        self._labels.append(labels)

    def cut(self) -> Scores:
        """Log loss, AUC and calibration of each model over what was added since the last call."""
        logits, labels = np.concatenate(self._logits, axis=1), np.concatenate(self._labels)
        self._clear()
        scores: Scores = {}
        for number, arm in enumerate(self._arms):
            models = logits[number * self._duplicates : (number + 1) * self._duplicates]
            scores[arm] = {
                "log_loss": [_finite(float(log_loss(predictions, labels).mean())) for predictions in models],
                "auc": [_finite(auc(predictions, labels)) for predictions in models],
                "calibration": [_finite(calibration(predictions, labels)) for predictions in models],
            }
        return scores

    def state(self) -> dict[str, Tensor]:
        """What was added since the last cut."""
        logits, labels = np.concatenate(self._logits, axis=1), np.concatenate(self._labels)
        return {"progressive.logits": torch.from_numpy(logits), "progressive.labels": torch.from_numpy(labels)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self._logits, self._labels = [state["progressive.logits"].numpy()], [state["progressive.labels"].numpy()]


def quality_of(shards: list[Scores]) -> Quality:
    """The means over the duplicates of all shards, in order."""
    return {
        arm: {measure: _mean([value for shard in shards for value in shard[arm][measure]]) for measure in measures}
        for arm, measures in shards[0].items()
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
