"""Cures for irreproducibility other than the activation: how many models learn, towards what, and which one is served.

A *served* model, which is what is compared, is made of m *parts*: models that share the noise of their duplicate, but
for their initial weights. With a log loss the gradient of the log-odds is p - y: a further term in the loss is the
same as learning towards another target than the label y, so a cure that couples models only changes what they learn
towards, and every model learns by the same code.

Shapes: m parts, B events of a mini-batch, k models (whole duplicates in a row).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from simulator.config import ModelConfig, require
from simulator.errors import SettingError
from simulator.types import Floats

MAX_PARTS = 64


@dataclass(frozen=True)
class Cure:
    """None: one model learns from the labels, and it is served."""

    coupled: ClassVar[bool] = False
    """Whether parts learn from each other's predictions, mini-batch by mini-batch."""
    m: ClassVar[int] = 1
    """Parts that learn."""

    @property
    def live(self) -> bool:
        """Whether the live system can serve it: one model, that only goes on learning."""
        return self.m == 1

    @property
    def served_parts(self) -> int:
        """Parts that score in serving, the first ones."""
        return 1

    def served(self, scores: Floats) -> Floats:
        """Log-odds [m, ...] of the parts -> those of the served model."""
        mean: Floats = scores[: self.served_parts].mean(0)
        return mean

    def targets(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Targets of coupled parts [k, B], from their log-odds [k, B] and the labels [k, B]."""
        return labels

    def model(self, model: ModelConfig, dense_parameters: Callable[[ModelConfig], int]) -> ModelConfig:
        """The shape of a part, given that of a plain model, and what counts a model's dense parameters."""
        return model


@dataclass(frozen=True)
class Ensemble(Cure):
    """m models learn apart; the mean of their log-odds is served."""

    m: int = 3  # type: ignore[misc]
    narrow: bool = False
    """Whether all parts together have no more parameters than one plain model."""

    def __post_init__(self) -> None:
        _require_parts("ensemble", self.m, 1)

    @property
    def served_parts(self) -> int:
        """All."""
        return self.m

    def model(self, model: ModelConfig, dense_parameters: Callable[[ModelConfig], int]) -> ModelConfig:
        """Narrow: an m-th of the embedding length, rounded down, and the widest hidden layers of equal proportions
        with which the parts have no more dense parameters than the plain model.
        """
        if not self.narrow or self.m == 1:
            return model
        require(model.dim >= self.m, "ensemble: narrow, m", self.m, f"at most the embedding length ({model.dim})")
        limit = dense_parameters(model)
        for percent in range(99, 0, -1):
            hidden = tuple(max(1, width * percent // 100) for width in model.hidden)
            part = replace(model, dim=model.dim // self.m, hidden=hidden)
            if dense_parameters(part) * self.m <= limit:
                return part
        raise SettingError("ensemble: narrow, m", self.m, "fewer parts, or a wider model: not even widths of 1 fit")


@dataclass(frozen=True)
class Codistill(Cure):
    """m models learn from the labels and from each other's predictions; the first one is served.

    Loss of a part: (L(y, p) + weight L(q, p)) / (1 + weight), with the log loss L and q the mean prediction of the
    others for the same mini-batch. Anil et al., "Large scale distributed neural network training through online
    distillation", arXiv 1804.03235; unlike there, all parts see the same events, from the first one on.
    """

    coupled = True
    m: int = 2  # type: ignore[misc]
    weight: float = 0.3
    """As strong as it can be on MovieTweetings at no clear loss of accuracy; 1 and more steady further, at a cost."""

    def __post_init__(self) -> None:
        _require_parts("codistill", self.m, 2)
        _require_weight("codistill", self.weight)

    def targets(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of every part: the label, mixed with the mean prediction of the others."""
        p = torch.sigmoid(logits).view(-1, self.m, logits.shape[-1])
        of_others = (p.sum(1, keepdim=True) - p) / (self.m - 1)
        return mixed(labels, of_others.view_as(logits), self.weight)


@dataclass(frozen=True)
class Antidistill(Cure):
    """An ensemble whose members are pushed apart: to their loss comes weight times the squared correlation of two
    members' log-odds over the mini-batch, the mean over all pairs.

    Shamir and Coviello, "Anti-Distillation: Improving reproducibility of deep networks", arXiv 2010.09923.
    """

    coupled = True
    m: int = 3  # type: ignore[misc]
    weight: float = 0.01

    def __post_init__(self) -> None:
        _require_parts("antidistill", self.m, 2)
        _require_weight("antidistill", self.weight)

    @property
    def served_parts(self) -> int:
        """All."""
        return self.m

    def targets(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The labels less the push.

        With u_i the centred log-odds of member i divided by their length c_i, the correlation is r_ij = u_i . u_j and
        its gradient (u_j - r_ij u_i) / c_i. A short mini-batch at the end counts as its share of a whole one.
        """
        z = logits.view(-1, self.m, logits.shape[-1])
        centred = z - z.mean(-1, keepdim=True)
        length = centred.norm(dim=-1, keepdim=True).clamp_min(1e-6)  # constant predictions are pushed nowhere
        u = centred / length
        r = (u @ u.mT) * (1 - torch.eye(self.m, dtype=z.dtype, device=z.device))
        pairs = self.m * (self.m - 1) / 2
        gradient = 2 / pairs * (r @ u - r.square().sum(-1, keepdim=True) * u) / length
        pushed: Tensor = labels - self.weight * z.shape[-1] * gradient.view_as(logits)
        return pushed


@dataclass(frozen=True)
class Anchor(Cure):
    """A model learns from the labels and from the predictions of its own previous generation, if there is one.

    Loss: (L(y, p) + weight L(q, p)) / (1 + weight), as in Codistill. After Milani Fard et al., "Launch and Iterate:
    Reducing Prediction Churn", NIPS 2016.
    """

    weight: float = 0.3
    """As strong as it can be on MovieTweetings at no clear loss of accuracy; 1 and more steady further, at a cost."""

    def __post_init__(self) -> None:
        _require_weight("anchor", self.weight)


@dataclass(frozen=True)
class Average(Cure):
    """A running average of the learning weights is served (Polyak averaging, an exponential moving average, EMA).

    It is brought up to date after every shuffle window (16 mini-batches where nothing is shuffled): a table's row
    seldom changes within one, and a whole table is too much to touch in every mini-batch.
    """

    decay: float = 0.85
    """Share that is kept of the average at each window: it reaches back 1 / (1 - decay) windows, 7 by default."""

    def __post_init__(self) -> None:
        require(0 <= self.decay < 1, "average: decay", self.decay, "from 0 (no average) to below 1")

    def share(self, windows: int) -> float:
        """Weight of the newest in the average, after window number `windows` from 1.

        Never less than in a plain mean: the initial weights are no part of the average.
        """
        return max(1 - self.decay, 1 / windows)


@dataclass(frozen=True)
class Fresh(Cure):
    """Trained afresh at each refresh on the last generations, and served as it is until the next one.

    During the first generation, before which there is nothing to serve, it learns like any other.
    """

    last: int = 5
    """Generations that are learned."""
    live = False

    def __post_init__(self) -> None:
        require(1 <= self.last <= 1_000, "fresh: last", self.last, "from 1 to 1,000 generations")


def mixed(labels: Tensor, predictions: Tensor, weight: float) -> Tensor:
    """The target where loss is (L(label, p) + weight L(prediction, p)) / (1 + weight)."""
    return (labels + weight * predictions) / (1 + weight)


def _require_parts(name: str, m: int, minimum: int) -> None:
    require(minimum <= m <= MAX_PARTS, f"{name}: m", m, f"from {minimum} to {MAX_PARTS} models")


def _require_weight(name: str, weight: float) -> None:
    require(0 <= weight <= 1e6, f"{name}: weight", weight, "from 0 to 1e6")
