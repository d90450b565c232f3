"""How much two models differ, as metrics of torchmetrics: numerator and denominator are sums, over batches and over
processes alike. Needs the extra `flicker-recsys[torchmetrics]`.

Shapes: n examples, Q queries, N candidates of each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from simulator.errors import FlickerError, SettingError
from simulator.measures.differences import pd_of_logits
from simulator.measures.registry import MEASURES
from simulator.predictions.align import Ranked
from simulator.predictions.parts import Block

try:
    from torchmetrics import Metric
except ImportError:
    raise FlickerError("flicker.metrics needs torchmetrics: pip install 'flicker-recsys[torchmetrics]'") from None


class _Ratio(Metric):
    """Sum of numerators / sum of denominators; NaN before anything was counted."""

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    numerator: Tensor
    denominator: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("numerator", "denominator"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def _count(self, numerator: float, denominator: float) -> None:
        self.numerator += numerator
        self.denominator += denominator

    def compute(self) -> Tensor:
        """The ratio, a scalar in double precision."""
        return self.numerator / self.denominator


class PredictionDifference(_Ratio):
    """Mean relative prediction difference 2 |p1 - p2| / (p1 + p2) of two models, from 0 to 2.

    Source: Shamir and Lin, arXiv 2202.06499. A constant model has 0: never show it without accuracy beside it.
    """

    def update(self, first: Tensor, second: Tensor) -> None:
        """Log-odds [n], or of any one shape, of the same examples by two models. Raises SettingError."""
        one, other = _arrays(first, second)
        self._count(float(pd_of_logits(one, other).sum()), one.size)


class SwapRatio(_Ratio):
    """Share of what two models rank in another order; see `flicker.measures` for the measures.

    `SwapRatio("pair")` is (1 - Kendall's tau) / 2; `top1`, `slot`, `set`, `rbo` and `slate` compare the first `k`.
    """

    def __init__(self, measure: str = "pair", k: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if measure not in MEASURES:
            raise SettingError("measure", measure, f"one of {', '.join(MEASURES)}")
        if k < 1:
            raise SettingError("k", k, "at least 1 item")
        self.measure, self.k = measure, k

    def update(self, first: Tensor, second: Tensor) -> None:
        """Scores [Q, N] (or [N] of one query) of the same candidates by two models, higher is better; equal ones in the
        order of the candidates. Raises SettingError."""
        answers = [Ranked(_block(scores), self.k).answers() for scores in _arrays(first, second)]
        numerator, denominator = MEASURES[self.measure].fn(*answers)
        self._count(float(numerator.sum()), float(denominator.sum()))


def _arrays(first: Tensor, second: Tensor) -> tuple[Any, Any]:
    if first.shape != second.shape:
        raise SettingError("second", tuple(second.shape), f"the shape of first, {tuple(first.shape)}")
    one, other = (tensor.detach().cpu().double().numpy() for tensor in (first, second))
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise SettingError("first or second", "NaN or infinite", "finite values")
    if not one.size:
        raise SettingError("first and second", tuple(first.shape), "at least one example or candidate")
    return one, other


def _block(scores: Any) -> Block:
    scores = np.atleast_2d(scores)
    items = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return Block(np.arange(len(scores)), {"item": items, "score": scores})
