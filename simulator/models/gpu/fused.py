"""The Triton kernels called with PyTorch tensors: shapes, grids, buffers; and whether they can be used at all.

Tensors are contiguous and of one type and device, except where a stride is mentioned. Shapes as in kernels.py.
"""

from __future__ import annotations

import functools
import importlib
import logging
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from simulator.errors import SettingError
from simulator.models.network import EPSILON

log = logging.getLogger("gpu")

BLOCK = 1_024
"""Elements of a program that works on single elements: 8 for each of 4 x 32 threads, two loads of 16 bytes."""
TILE = 2_048
"""Elements that a program of a layer holds at a time: 16 for each thread, well within its registers."""
PART = 32
"""Events whose gradients of bias and gain one program sums: 16 programs per model of a mini-batch of 512."""
POSITIONS, RUN = 8, 32
"""Table entries of a program, and equal ones that it sums at a time."""


def check_device(device: str) -> None:
    """Raises SettingError for `cuda` where there is no GPU; from here on float32 is float32 there."""
    if device != "cuda":
        return
    if not torch.cuda.is_available():
        raise SettingError("device", device, "no GPU is visible to PyTorch here; use --device cpu")
    # PyTorch's default, unless TORCH_ALLOW_TF32_CUBLAS_OVERRIDE is set, as NVIDIA's images do: TF32 rounds products to
    # 10 bits, which is noise of another size than a CPU's, and swaps candidates with close scores
    torch.set_float32_matmul_precision("highest")


@functools.cache
def kernels() -> ModuleType:
    """The module of kernels. Raises ImportError where Triton is not installed."""
    return importlib.import_module("simulator.models.gpu.kernels")


@functools.cache
def problem() -> str:
    """Why the kernels cannot run on this machine's GPU; empty where they can. Tried once, on a single number."""
    if not torch.cuda.is_available():
        return "no GPU is visible to PyTorch"
    try:
        one = torch.ones(1, 1, device="cuda")
        found = smelu_forward(one, one.flatten()).item()
    except Exception as failed:  # not installed, no C compiler for its launchers, a GPU that it does not know ...
        return f"Triton: {str(failed).strip().splitlines()[0] if str(failed).strip() else type(failed).__name__}"
    return "" if found == 1 else f"Triton: SmeLU(1; beta = 1) = {found}"


def wanted(choice: Literal["auto", "on", "off"], device: torch.device) -> bool:
    """Whether tensors on a device are for these kernels, by `ModelConfig.compile`; else PyTorch's operations do it all.

    Raises SettingError where they have to be and cannot.
    """
    if choice == "off" or device.type != "cuda":
        return False
    if problem() and choice == "on":
        raise SettingError("compile", choice, f"{problem()}: mend that, or --compile auto")
    if problem():
        _tell(problem())
    return not problem()


@functools.cache
def _tell(why: str) -> None:
    log.warning("no fused kernels, no graphs on the GPU (%s): PyTorch's own operations do the work", why)


def smelu_forward(x: Tensor, beta: Tensor) -> Tensor:
    """SmeLU of x [m, ...] with beta [m]."""
    y, size = torch.empty_like(x), _size(x, beta)
    kernels().smelu_forward[-(-size // BLOCK), len(x)](x, beta, y, size, BLOCK=BLOCK)
    return y


def smelu_backward(grad: Tensor, x: Tensor, beta: Tensor) -> Tensor:
    """Gradient of x [m, ...] from that of SmeLU(x)."""
    back, size = torch.empty_like(x), _size(x, beta)
    assert grad.is_contiguous() and grad.shape == x.shape
    kernels().smelu_backward[-(-size // BLOCK), len(x)](grad, x, beta, back, size, BLOCK=BLOCK)
    return back


def layer_forward(product: Tensor, beta: Tensor, bias: Tensor, gain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Layer norm of SmeLU(product + bias) times gain -> y [m, B, H], mean and 1 / standard deviation [m, B].

    product [m, B, H], beta [m]; bias and gain [m, H] may be views into longer rows.
    """
    _size(product, beta)
    models, events, width = product.shape
    y, mean, scale = torch.empty_like(product), product.new_empty(models, events), product.new_empty(models, events)
    rows, padded = _tile(width)
    kernels().layer_forward[-(-events // rows), models](
        product, beta, bias, gain, _stride(bias, gain), y, mean, scale, events, width,
        EPSILON=EPSILON, ROWS=rows, WIDTH=padded, num_warps=_warps(padded),
    )  # fmt: skip
    return y, mean, scale


def layer_backward(
    grad: Tensor, kept: tuple[Tensor, Tensor, Tensor], beta: Tensor, bias: Tensor, gain: Tensor
) -> tuple[Tensor, Tensor]:
    """From the gradient of y: that of the product [m, B, H], and those of bias and gain [2, m, H].

    kept: product, mean and scale of `layer_forward`. The sums over the events are made in a fixed order.
    """
    product, mean, scale = kept
    _size(product, beta)
    assert grad.is_contiguous() and grad.shape == product.shape
    models, events, width = product.shape
    rows, padded = _tile(width)
    programs = -(-events // PART)
    back, parts = torch.empty_like(product), product.new_empty(2, models, programs, width)
    kernels().layer_backward[programs, models](
        grad, product, beta, bias, gain, _stride(bias, gain), mean, scale, back, parts, events, width,
        ROWS=rows, PASSES=PART // rows, WIDTH=padded, num_warps=_warps(padded),
    )  # fmt: skip
    return back, parts.sum(2)


def update_rows(
    plan: tuple[Tensor, Tensor, Tensor], grads: Tensor, table: Tensor, squares: Tensor, rate: float
) -> None:
    """Row-wise Adagrad in place on table [m, V, D], squares [m, V]: a plan as of `rows.plan`, and grads [m, n, D]."""
    rows, ends, places = plan
    models, entries, width = grads.shape
    assert rows.shape == (models, entries) and table.shape == (models, squares.shape[1], width)
    assert all(tensor.is_contiguous() for tensor in (*plan, grads, table, squares))
    kernels().update_rows[-(-entries // POSITIONS), models](
        rows, ends, places, grads, table, squares, rate, entries, squares.shape[1], width,
        POSITIONS=POSITIONS, TILE=RUN, WIDTH=_power_of_two(width), num_warps=1,
    )  # fmt: skip


def _size(x: Tensor, beta: Tensor) -> int:
    """Elements of one model."""
    assert x.is_contiguous() and beta.shape == (len(x),) and beta.dtype == x.dtype
    return x.numel() // len(x)


def _stride(bias: Tensor, gain: Tensor) -> int:
    """Elements from one model's bias to the next one's, and likewise for the gain."""
    assert bias.stride() == gain.stride() and bias.stride(1) == 1
    return bias.stride(0)


def _tile(width: int) -> tuple[int, int]:
    """Rows that a program of a layer holds at a time, a divisor of PART; and their length, padded."""
    padded = _power_of_two(width)
    return max(1, min(PART, TILE // padded)), padded


def _warps(padded: int) -> int:
    """Groups of 32 threads that share a tile: more for a single row that is longer than a tile should be."""
    return min(16, 4 * max(1, padded // TILE))


def _power_of_two(count: int) -> int:
    """The smallest one that is not below a count of at least 1."""
    return 1 << (count - 1).bit_length()
