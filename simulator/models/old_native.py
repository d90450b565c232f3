"""native.cpp called from Python: compiled on first use, and without Python's global lock while it runs.

`load(config.compile)` gives the kernels, or None where the plain PyTorch path is to be taken. All models of a run take
the same path: what the two compute agrees within rounding only. Tensors are contiguous float32 on the CPU.

Shapes: B events, H width of a layer.
"""

from __future__ import annotations

from ctypes import CDLL, addressof, c_float, c_int, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from simulator.models.activations import Activation
from simulator.models.compiler import Once, compiled

SOURCE = Path(__file__).with_name("learning.cpp")
"""Holds native.cpp too: one library for both."""
NORMS = {"none": 0, "weight": 0, "before": 1, "after": 2}
"""Weights of unit length are the matrix product's business."""
POINTER, COUNT = c_void_p, c_int64
LAYER: list[Any] = [c_int, c_int, *[POINTER] * 6, COUNT, COUNT]


@dataclass(frozen=True)
class Formula:
    """An activation as the kernels know it."""

    kind: int
    constants: int
    """Their address."""
    memory: object
    """Keeps them alive."""


class Native:
    """The compiled kernels; safe to call from several threads."""

    def __init__(self, library: CDLL, compiler: str) -> None:
        self.compiler = compiler
        self._forward, self._backward = library.layer_forward, library.layer_backward
        self._forward.argtypes = [*LAYER, POINTER]
        self._backward.argtypes = [*LAYER, POINTER, POINTER, POINTER]

    def layer(
        self,
        formula: Formula,
        norm: str,
        product: Tensor,
        bias: Tensor,
        gain: Tensor | None,
        out: Tensor | None = None,
        moments: Tensor | None = None,
    ) -> Tensor:
        """A layer behind its matrix product [B, H] -> its output [B, H]; bias and gain [H].

        Norm `after`: product + bias -> activation -> layer norm -> gain. `before`: product -> layer norm -> gain ->
        bias -> activation. `none` and `weight`: product + bias -> activation, no gain. `out` may be the product itself,
        which is then overwritten; by default it is new. `moments` [2, B] receives mean and 1 / standard deviation of
        each row, for `layer_backward`; to score it is left away.
        """
        out = torch.empty_like(product) if out is None else out
        self._forward(*_layer(formula, norm, product, bias, gain, moments), out.data_ptr())
        return out

    def layer_backward(
        self,
        formula: Formula,
        norm: str,
        product: Tensor,
        bias: Tensor,
        gain: Tensor | None,
        moments: Tensor | None,
        grad: Tensor,
        bias_grad: Tensor,
        gain_grad: Tensor | None,
    ) -> None:
        """Turn the gradient of `layer`'s output [B, H] into its product's, in place; fill bias_grad and gain_grad."""
        self._backward(
            *_layer(formula, norm, product, bias, gain, moments),
            grad.data_ptr(),
            bias_grad.data_ptr(),
            _address(gain_grad),
        )


def _layer(
    formula: Formula, norm: str, product: Tensor, bias: Tensor, gain: Tensor | None, moments: Tensor | None
) -> tuple[int | None, ...]:
    """What both passes of a layer are told."""
    rows, width = product.shape
    mean = _address(moments)
    scale = None if mean is None else mean + 4 * rows
    return (
        formula.kind, NORMS[norm], formula.constants, product.data_ptr(), bias.data_ptr(), _address(gain), mean, scale,
        rows, width,
    )  # fmt: skip


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


NAMES = ("linear", "relu", "smelu", "gsmelu", "gelu", "swish", "softplus")


def formula_of(function: Activation) -> Formula | None:
    if function.name not in NAMES:
        return None
    p, constants = function.parameters, (c_float * 5)()
    name = function.name
    if name in ("smelu", "gsmelu"):
        if name == "smelu":
            p = {"alpha": p["beta"], "beta": p["beta"], "gminus": 0.0, "gplus": 1.0, "t": 0.0}
        if name == "smelu" and p["beta"] == 0:
            name = "relu"
        else:
            length = p["alpha"] + p["beta"]
            constants[:] = [p["alpha"], length, (p["gplus"] - p["gminus"]) / length, p["gminus"], p["t"]]
            name = "gsmelu" if p["gminus"] or p["t"] else "smelu"
    elif "beta" in p:
        constants[0] = p["beta"]
    return Formula(NAMES.index(name), addressof(constants), constants)


KERNELS = Once(lambda: Native(*compiled(SOURCE)))


def load(choice: Literal["auto", "on", "off"]) -> Native | None:
    """The kernels, or None where PyTorch computes. Raises SettingError where they have to be had and cannot."""
    return KERNELS.wanted(choice)
