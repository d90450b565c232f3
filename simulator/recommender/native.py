"""native.cpp called from Python: compiled on first use, and without Python's global lock while it runs.

`load(config.compile)` gives the kernels, or None where the plain PyTorch path is to be taken. All models of a run take
the same path: what the two compute agrees within rounding only. Tensors are contiguous float32 on the CPU.

Shapes: B events, H width of a layer.
"""

from __future__ import annotations

import functools
import logging
from ctypes import CDLL, addressof, c_float, c_int, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from simulator.errors import SettingError
from simulator.recommender.activations import Activation, GSmeLU, Linear, ReLU
from simulator.recommender.compiler import NoCompiler, compiled

SOURCE = Path(__file__).with_name("native.cpp")
NORMS = {"none": 0, "weight": 0, "before": 1, "after": 2}
"""Weights of unit length are the matrix product's business."""
POINTER, COUNT = c_void_p, c_int64
LAYER = c_int, c_int, *[POINTER] * 6, COUNT, COUNT
SLOTS = *[POINTER] * 3, *[COUNT] * 4
SIGNATURES = {
    "layer_forward": [*LAYER, POINTER],
    "layer_backward": [*LAYER, *[POINTER] * 3],
    "output_forward": [*[POINTER] * 3, COUNT, COUNT, POINTER],
    "output_backward": [*[POINTER] * 3, COUNT, COUNT, *[POINTER] * 3],
    "gather": [*SLOTS, POINTER],
    "sum_by_row": [*SLOTS, *[POINTER] * 3],
    "adagrad": [*[POINTER] * 3, COUNT, c_float],
    "adagrad_rows": [*[POINTER] * 4, COUNT, COUNT, c_float],
}
"""Function of native.cpp -> types of its arguments."""

log = logging.getLogger("native")


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
        for name, takes in SIGNATURES.items():
            getattr(library, name).argtypes = takes
        library.sum_by_row.restype = COUNT
        self._library = library

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
        self._library.layer_forward(*_layer(formula, norm, product, bias, gain, moments), out.data_ptr())
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
        """Turn the gradient of `layer`'s output [B, H] into that of its product, in place; fill bias_grad, gain_grad."""
        self._library.layer_backward(
            *_layer(formula, norm, product, bias, gain, moments),
            grad.data_ptr(),
            bias_grad.data_ptr(),
            _address(gain_grad),
        )

    def output(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Log-odds [B] of the last layer's outputs [B, H], by weights [H] and bias [1]."""
        out = x.new_empty(len(x))
        self._library.output_forward(x.data_ptr(), weight.data_ptr(), bias.data_ptr(), *x.shape, out.data_ptr())
        return out

    def output_backward(
        self, x: Tensor, weight: Tensor, grad: Tensor, weight_grad: Tensor, bias_grad: Tensor
    ) -> Tensor:
        """Gradient of the log-odds [B] -> that of x [B, H]; fills those of weight [H] and bias [1]."""
        x_grad = torch.empty_like(x)
        self._library.output_backward(
            x.data_ptr(), weight.data_ptr(), grad.data_ptr(), *x.shape, weight_grad.data_ptr(), bias_grad.data_ptr(),
            x_grad.data_ptr(),
        )  # fmt: skip
        return x_grad

    def gather(self, table: Tensor, rows: Tensor, field_of_slot: Tensor, fields: int) -> Tensor:
        """Inputs [B, F D]: of each field the mean vector of its slots in use.

        table [V, D], int32 rows [B, S] (0 is padding), int32 field_of_slot [S] in ascending order.
        """
        dim = table.shape[1]
        out = table.new_empty(len(rows), fields * dim)
        self._library.gather(
            table.data_ptr(), rows.data_ptr(), field_of_slot.data_ptr(), *rows.shape, fields, dim, out.data_ptr()
        )
        return out

    def sum_by_row(
        self, grad: Tensor, rows: Tensor, field_of_slot: Tensor, place: Tensor, touched: Tensor, sums: Tensor
    ) -> int:
        """Of inputs' gradient [B, F D]: the n rows in use -> touched [B S] int64, their sums [B S, D]; returns n.

        place [V] int32 is -1 everywhere, and is again when this is done.
        """
        dim = sums.shape[1]
        count: int = self._library.sum_by_row(
            grad.data_ptr(), rows.data_ptr(), field_of_slot.data_ptr(), *rows.shape, grad.shape[1] // dim, dim,
            place.data_ptr(), touched.data_ptr(), sums.data_ptr(),
        )  # fmt: skip
        return count

    def adagrad(self, values: Tensor, squares: Tensor, grad: Tensor, rate: float) -> None:
        """Adagrad in place, all of one shape."""
        self._library.adagrad(values.data_ptr(), squares.data_ptr(), grad.data_ptr(), values.numel(), rate)

    def adagrad_rows(self, table: Tensor, squares: Tensor, rows: Tensor, sums: Tensor, rate: float) -> None:
        """Row-wise Adagrad in place: table [V, D], squares [V], rows [n] that differ, sums [n, D]."""
        self._library.adagrad_rows(
            table.data_ptr(), squares.data_ptr(), rows.data_ptr(), sums.data_ptr(), *sums.shape, rate
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


@functools.cache
def formula_of(function: Activation) -> Formula | None:
    """What the kernels need to know of an activation; None for one that they do not have."""
    kinds = {Linear: 0, ReLU: 1, GSmeLU: 2}
    if type(function) not in kinds:
        return None
    kind, numbers = kinds[type(function)], (c_float * 5)()
    if isinstance(function, GSmeLU):
        kind = 3 if function.gminus or function.t else 2
        numbers[:] = [function.alpha, function.length, function.slope, function.gminus, function.t]
    return Formula(kind, addressof(numbers), numbers)


def load(choice: Literal["auto", "on", "off"]) -> Native | None:
    """The kernels: `auto` where they can be compiled, `on` always, `off` never (then None).

    Raises SettingError where they cannot be compiled but have to.
    """
    if choice == "off":
        return None
    found = _loaded()
    if isinstance(found, Native):
        return found
    if choice == "on":
        raise SettingError("compile", choice, f"{found}: install a C++ compiler, name one in $CXX, or --compile auto")
    return None


@functools.cache
def _loaded() -> Native | str:
    """Once per process, also where it fails: all models of a process take the same path."""
    try:
        return Native(*compiled(SOURCE))
    except NoCompiler as problem:
        log.info("no compiled kernels (%s): PyTorch computes instead", problem)
        return str(problem)
