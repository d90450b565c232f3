"""The recommender written a second time, the plain way, in float64: piecewise formulas, autograd, torch.optim.

Nothing here comes from simulator.models; the learner's tests compare it with this, one model after another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from simulator.config import ModelConfig
from simulator.types import Schema

EPSILON = 1e-5


def smelu(x: Tensor, beta: float) -> Tensor:
    """The three pieces, one by one."""
    return torch.where(x <= -beta, 0.0, torch.where(x >= beta, x, (x + beta) ** 2 / (4 * beta)))


def gsmelu(x: Tensor, gminus: float, gplus: float, alpha: float, beta: float, t: float) -> Tensor:
    """Equation 9 of arXiv 2202.06499, with its a, b and c."""
    a = (gplus - gminus) / (2 * (alpha + beta))
    b = (alpha * gplus + beta * gminus) / (alpha + beta)
    c = t + (alpha**2 * (gplus + gminus) + 2 * alpha * beta * gminus) / (2 * (alpha + beta))
    left = gminus * x + t + gminus * alpha
    right = gplus * x + t + (alpha + beta) / 2 * gminus + (alpha - beta) / 2 * gplus
    return torch.where(x <= -alpha, left, torch.where(x >= beta, right, a * x**2 + b * x + c))


def gelu(x: Tensor) -> Tensor:
    """x times the distribution function of the standard normal."""
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def swish(x: Tensor, beta: float) -> Tensor:
    """x / (1 + e^(-beta x))."""
    return x / (1 + torch.exp(-beta * x))


def softplus(x: Tensor, beta: float) -> Tensor:
    """ln(1 + e^(beta x)) / beta."""
    return torch.log1p(torch.exp(beta * x)) / beta


FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "relu": functional.relu,
    "smelu": partial(smelu, beta=1.0),
    "smelu:beta=0.3": partial(smelu, beta=0.3),
    "smelu:beta=2": partial(smelu, beta=2.0),
    "gsmelu": partial(gsmelu, gminus=0.0, gplus=1.0, alpha=1.0, beta=1.0, t=0.0),
    "gsmelu:gminus=0.1,gplus=0.9,alpha=0.5,beta=1.5,t=-0.2": partial(
        gsmelu, gminus=0.1, gplus=0.9, alpha=0.5, beta=1.5, t=-0.2
    ),
    "gelu": gelu,
    "swish": partial(swish, beta=1.0),
    "swish:beta=3": partial(swish, beta=3.0),
    "softplus": partial(softplus, beta=1.0),
    "softplus:beta=3": partial(softplus, beta=3.0),
}
"""Spec -> the same function by its textbook formula."""


def network(x: Tensor, w: dict[str, Tensor], norm: str, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Log-odds [B] of one model with inputs [B, F D] and parameters named as in the Layout."""
    layers = sum(name.startswith("weight") for name in w) - 1
    for n in range(layers):
        weight, bias, gain = w[f"weight{n}"], w[f"bias{n}"], w.get(f"gain{n}")
        if norm == "none":
            x = function(functional.linear(x, weight.T, bias))
        elif norm == "before":
            x = function(functional.layer_norm(x @ weight, bias.shape, gain, bias, EPSILON))
        elif norm == "after":
            x = functional.layer_norm(function(functional.linear(x, weight.T, bias)), bias.shape, gain, None, EPSILON)
        else:
            assert norm == "weight" and gain is not None
            length = torch.sqrt((weight**2).sum(0) + EPSILON)
            x = function(functional.linear(x, (gain * weight / length).T, bias))
    return functional.linear(x, w["weight_out"].T, w["bias_out"]).squeeze(-1)


def pool(table: Tensor, rows: Tensor, schema: Schema) -> Tensor:
    """Inputs [B, F D] from table rows [B, S]: the mean vector of each field's values; padding counts for nothing."""
    spans = [schema.slot_range(field.name) for field in schema.fields]
    bags = [functional.embedding_bag(rows[:, span], table, mode="mean", padding_idx=0) for span in spans]
    return torch.cat(bags, 1)


class LoneLearner:
    """One duplicate that learns alone: nn.Embedding, autograd, torch.optim.Adagrad, and row-wise Adagrad by hand."""

    def __init__(self, schema: Schema, config: ModelConfig, spec: str, table: Tensor, dense: dict[str, Tensor]) -> None:
        """Starts from one model's table [V, D] and its dense parameters by name; copies both to float64."""
        self.schema, self.config, self.function = schema, config, FORMULAS[spec]
        self.embedding = nn.Embedding(len(table), config.dim, padding_idx=0, _weight=table.double().clone())
        self.dense = {name: nn.Parameter(value.double().clone()) for name, value in dense.items()}
        self.optimizer = torch.optim.Adagrad(
            self.dense.values(),
            lr=config.learning_rate,
            initial_accumulator_value=config.initial_accumulator,
            eps=0.0,
        )
        self.squares = torch.full((len(table),), config.initial_accumulator, dtype=torch.float64)

    def predict(self, rows: Tensor) -> Tensor:
        """Log-odds [B] of events with table rows [B, S]."""
        x = pool(self.embedding.weight, rows, self.schema)
        return network(x, dict(self.dense), self.config.norm, self.function)

    def gradient(
        self, rows: Tensor, labels: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Log-odds [B], and gradients of the log loss over the nominal mini-batch: of the table, then of the rest."""
        logits = self.predict(rows)
        losses = functional.binary_cross_entropy_with_logits(logits, labels.double(), weights, reduction="sum")
        loss = losses / self.config.batch
        return logits.detach(), torch.autograd.grad(loss, [self.embedding.weight, *self.dense.values()])

    def apply(self, rows: Tensor, gradients: tuple[Tensor, ...]) -> None:
        """One step of Adagrad on the dense parameters and, row by row, on the table."""
        for parameter, gradient in zip(self.dense.values(), gradients[1:], strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        with torch.no_grad():
            touched = torch.tensor(sorted({int(row) for row in rows.flatten()} - {0}))
            gradient = gradients[0][touched]
            self.squares[touched] += (gradient**2).mean(1)
            step = gradient / self.squares[touched].sqrt().unsqueeze(1)
            self.embedding.weight[touched] -= self.config.learning_rate * step
