"""Progressive validation: how good the predictions for a generation's events were, each made before it was learned.

Shapes: A arms, R duplicates, M = A x R models, n events.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from simulator.measures.quality import auc, calibration, log_loss
from simulator.types import Floats

Quality = dict[str, dict[str, float | None]]
"""Label of an arm -> {"log_loss", "auc", "calibration"}, the means over its duplicates; None where undefined."""


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

    def cut(self) -> Quality:
        """The quality of what was added since the last call."""
        logits, labels = np.concatenate(self._logits, axis=1), np.concatenate(self._labels)
        self._clear()
        quality: Quality = {}
        for number, arm in enumerate(self._arms):
            models = logits[number * self._duplicates : (number + 1) * self._duplicates]
            quality[arm] = {
                "log_loss": _mean([float(log_loss(scores, labels).mean()) for scores in models]),
                "auc": _mean([auc(scores, labels) for scores in models]),
                "calibration": _mean([calibration(scores, labels).ratio for scores in models]),
            }
        return quality

    def state(self) -> dict[str, Tensor]:
        """What was added since the last cut."""
        logits, labels = np.concatenate(self._logits, axis=1), np.concatenate(self._labels)
        return {"progressive.logits": torch.from_numpy(logits), "progressive.labels": torch.from_numpy(labels)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self._logits, self._labels = [state["progressive.logits"].numpy()], [state["progressive.labels"].numpy()]


def _mean(values: list[float]) -> float | None:
    mean = float(np.mean(values))
    return mean if math.isfinite(mean) else None
