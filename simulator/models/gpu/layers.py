"""The network's passes with Triton kernels around the matrix products, for slabs of any arms that use ReLU or SmeLU.

A slab with any other activation takes PyTorch's way: that depends on the arms alone, never on the duplicate.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from simulator.config import ModelConfig
from simulator.models.activations import Activation, GSmeLU, ReLU
from simulator.models.gpu import fused
from simulator.models.network import Network, Segments


def make_network(config: ModelConfig, device: torch.device) -> Network:
    """With kernels on a GPU, as `config.compile` says. Raises SettingError where they have to be had and cannot."""
    return FusedNetwork(config) if fused.wanted(config.compile, device) else Network(config)


class FusedNetwork(Network):
    """SmeLU of all models in one launch, and with norm `after` bias, SmeLU and layer norm in one pass over memory."""

    def _product(self, n: int, x: Tensor, weight: Tensor, w: dict[str, Tensor]) -> Tensor:
        return torch.bmm(x, weight) if self.norm == "after" else super()._product(n, x, weight, w)

    def _biased(self, n: int, product: Tensor, w: dict[str, Tensor]) -> Tensor:
        return product if self.norm == "after" else super()._biased(n, product, w)

    def _shape(self, n: int, product: Tensor, w: dict[str, Tensor], segments: Segments) -> tuple[Tensor, ...]:
        beta = betas(segments, product)
        if self.norm != "after":
            return super()._shape(n, product, w, _merged(segments, beta))
        if beta is None:
            return super()._shape(n, super()._biased(n, product, w), w, segments)
        y, mean, scale = fused.layer_forward(product, beta, w[f"bias{n}"], w[f"gain{n}"])
        return y, product, mean, scale

    def _shape_backward(
        self, n: int, back: Tensor, w: dict[str, Tensor], kept: list[Tensor], segments: Segments, g: dict[str, Tensor]
    ) -> Tensor:
        beta = betas(segments, back)
        if self.norm != "after" or beta is None:
            return super()._shape_backward(n, back, w, kept, _merged(segments, beta), g)
        product, mean, scale = kept
        back, sums = fused.layer_backward(back, (product, mean, scale), beta, w[f"bias{n}"], w[f"gain{n}"])
        g[f"bias{n}"].copy_(sums[0])
        g[f"gain{n}"].copy_(sums[1])
        return back


class StackedSmeLU(Activation):
    """SmeLU with a beta of its own for each model of a slab [m, ...]; beta = 0 is ReLU."""

    def __init__(self, beta: Tensor) -> None:
        """beta: [m], of the type and on the device of what it is applied to."""
        self.beta = beta

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return fused.smelu_forward(x, self.beta), x

    def backward(self, saved: Tensor, grad: Tensor) -> Tensor:
        return fused.smelu_backward(grad, saved, self.beta)


def beta_of(function: Activation) -> float | None:
    """An activation's half-width if it is a SmeLU, 0 for ReLU, None for all others."""
    if isinstance(function, ReLU):
        return 0.0
    if isinstance(function, GSmeLU):
        symmetric = function.length == 2 * function.alpha and function.slope == 1 / function.length
        return function.alpha if symmetric and not function.gminus and not function.t else None
    return None


def betas(segments: Segments, like: Tensor) -> Tensor | None:
    """The half-widths [m] of a slab's activations, of the type and on the device of a tensor; None if one has none."""
    values = [beta_of(function) for function, part in segments for _ in range(part.start, part.stop)]
    known = tuple(value for value in values if value is not None)
    return _tensor(known, like.dtype, like.device) if len(known) == len(values) else None


@functools.cache
def _tensor(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Made once and kept for good: a CUDA graph may not copy from the host, and refers to what it has seen."""
    return torch.tensor(values, dtype=dtype, device=device)


def _merged(segments: Segments, beta: Tensor | None) -> Segments:
    return segments if beta is None else [(StackedSmeLU(beta), slice(0, len(beta)))]
