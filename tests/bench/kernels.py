"""SmeLU's forward and backward pass on 512 x 448 floats against PyTorch's own ReLU, compiled and by PyTorch alone.

A pass is `torch.clamp_min(x, 0)` and `threshold_backward(grad, y, 0)` for ReLU, what `Activation.forward` and
`backward` call for SmeLU by PyTorch, and for the compiled ones `layer` and `layer_backward` without a norm,
which also add a bias and sum its gradient. No autograd. All take new memory for y; the compiled backward pass works in
place. |x| is more than beta, so that gradients taken through many passes neither vanish nor become denormal.

Beside them stand the floor, copies of x and of the gradient, and the naive way: the formula as it is written, with
`torch.where`, and its gradient by autograd.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from figures import Figure, ratio
from interleave import interleave
from sizes import Size
from torch import Tensor

from simulator.models.activations import activation
from simulator.models.native.kernels import kernel_of, layer, layer_backward, missing
from simulator.randomness import generator

SMELU, ROWS, WIDTH, REPEATS = "smelu:beta=1", 512, 448, 50

Work = Callable[[int], None]


def measure(size: Size) -> list[Figure]:
    """What SmeLU costs where there is a compiler, and where there is none."""
    draws = generator(0, "kernels")
    x, grad = (torch.from_numpy(draws.standard_normal((ROWS, WIDTH), dtype="float32")) for _ in range(2))
    x += x.sign()
    variants = {"relu": by_pytorch("relu", x, grad), "smelu": by_pytorch(SMELU, x, grad)}
    variants |= {"copies": copies(x, grad), "naive": by_autograd(x, grad)}
    native = not missing()
    if native:
        variants |= {f"compiled {spec}": compiled(spec, x, grad.clone()) for spec in ("relu", SMELU)}
    passes = interleave("activations alone", variants, size.rounds, size.warm_up)
    ours = f"compiled {SMELU}" if native else "smelu"
    figures = [
        ratio("SmeLU / ReLU kernel, no compiler", passes, "smelu", "relu"),
        ratio("SmeLU kernel / copies of x and gradient", passes, ours, "copies"),
        ratio("SmeLU by autograd / SmeLU kernel", passes, "naive", ours),
    ]
    if not native:
        return figures
    return [
        ratio("SmeLU / ReLU kernel, compiled", passes, f"compiled {SMELU}", "relu"),
        ratio("SmeLU / ReLU kernel, both compiled", passes, f"compiled {SMELU}", "compiled relu"),
        *figures,
    ]


def by_pytorch(spec: str, x: Tensor, grad: Tensor) -> Work:
    """Forward and backward by the activation's own pair."""
    function = activation(spec)

    def work(number: int) -> None:
        for _ in range(REPEATS):
            function.backward(function.forward(x)[1], grad)

    return work


def copies(x: Tensor, grad: Tensor) -> Work:
    """Memory read and written once each way, and nothing computed."""

    def work(number: int) -> None:
        for _ in range(REPEATS):
            x.clone()
            grad.clone()

    return work


def by_autograd(x: Tensor, grad: Tensor) -> Work:
    """SmeLU for beta = 1 as it stands in the paper."""
    leaf = x.clone().requires_grad_()

    def work(number: int) -> None:
        for _ in range(REPEATS):
            y = torch.where(leaf <= -1, 0.0, torch.where(leaf >= 1, leaf, (leaf + 1) ** 2 / 4))
            torch.autograd.grad(y, leaf, grad)

    return work


def compiled(spec: str, x: Tensor, grad: Tensor) -> Work:
    """The same by the kernels; the gradient is overwritten."""
    kernel, bias, bias_grad = kernel_of(activation(spec)), torch.zeros(WIDTH), torch.empty(WIDTH)
    assert kernel

    def work(number: int) -> None:
        for _ in range(REPEATS):
            layer(kernel, "none", x, bias, None)
            layer_backward(kernel, "none", x, bias, None, None, grad, bias_grad, None)

    return work
