"""The network's passes with compiled kernels around the matrix products, for slabs of one model on a CPU.

An activation that the kernels do not have, or another kind of tensor, takes PyTorch's way: that depends on the arm and
the machine, never on the duplicate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from simulator.config import ModelConfig
from simulator.recommender.native import Formula, Native, formula_of, load
from simulator.recommender.network import Network, Segments


def make_network(config: ModelConfig, device: str = "cpu") -> Network:
    """The passes as `config.compile` says. Raises SettingError where kernels have to be compiled and cannot."""
    native = load(config.compile) if device == "cpu" else None
    return Network(config) if native is None else NativeNetwork(config, native)


class NativeNetwork(Network):
    """Bias, activation and layer norm in one pass over memory, forward and backward."""

    def __init__(self, config: ModelConfig, native: Native) -> None:
        super().__init__(config)
        self.native = native

    def _product(self, n: int, x: Tensor, weight: Tensor, w: dict[str, Tensor]) -> Tensor:
        return torch.bmm(x, weight)

    def _biased(self, n: int, product: Tensor, w: dict[str, Tensor]) -> Tensor:
        return product

    def _shape(self, n: int, product: Tensor, w: dict[str, Tensor], segments: Segments) -> tuple[Tensor, ...]:
        formula = _formula(product, segments)
        if formula is None:
            return super()._shape(n, super()._biased(n, product, w), w, segments)
        moments = product.new_empty(2, product.shape[1])
        gain = w[f"gain{n}"][0] if self.norm in ("before", "after") else None
        y = self.native.layer(formula, self.norm, product[0], w[f"bias{n}"][0], gain, moments=moments)
        return y[None], product, moments

    def _shape_backward(
        self, n: int, back: Tensor, w: dict[str, Tensor], kept: list[Tensor], segments: Segments, g: dict[str, Tensor]
    ) -> Tensor:
        formula = _formula(back, segments)
        if formula is None:
            return super()._shape_backward(n, back, w, kept, segments, g)
        product, moments = kept
        normed = self.norm in ("before", "after")
        gain, gain_grad = (w[f"gain{n}"][0], g[f"gain{n}"][0]) if normed else (None, None)
        self.native.layer_backward(
            formula, self.norm, product[0], w[f"bias{n}"][0], gain, moments, back[0], g[f"bias{n}"][0], gain_grad
        )
        return back

    def _output(self, x: Tensor, w: dict[str, Tensor]) -> Tensor:
        if not _fits(x):
            return super()._output(x, w)
        return self.native.output(x[0], w["weight_out"], w["bias_out"])[None]

    def _output_backward(self, x: Tensor, grad: Tensor, w: dict[str, Tensor], g: dict[str, Tensor]) -> Tensor:
        if not _fits(x) or not _fits(grad):
            return super()._output_backward(x, grad, w, g)
        return self.native.output_backward(x[0], w["weight_out"], grad, g["weight_out"], g["bias_out"])[None]


def _fits(x: Tensor) -> bool:
    """Whether a tensor [m, ...] is of the kind that the kernels take."""
    return len(x) == 1 and x.dtype == torch.float32 and x.is_contiguous()


def _formula(x: Tensor, segments: Segments) -> Formula | None:
    """The kernels' name for the one activation of a slab [1, B, H]; None where PyTorch has to do it."""
    return formula_of(segments[0][0]) if _fits(x) else None
