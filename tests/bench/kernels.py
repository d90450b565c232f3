"""SmeLU's forward and backward pass on 512 x 448 floats against PyTorch's own ReLU: compiled, and by autograd.

By autograd a pass is what a model of PyTorch's engine does, `function(x)` and its gradient. The compiled ones are
`layer` and `layer_backward` without a norm, which also add a bias and sum its gradient. All take new memory for y; the
compiled backward pass works in place. |x| is more than beta, so that gradients taken through many passes neither vanish
nor become denormal.

Beside them stand the floor, copies of x and of the gradient, and the formula as in the paper, with `torch.where`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from figures import Figure, ratio
from interleave import interleave
from sizes import Size
from torch import Tensor

from simulator.models.activations import activation
from simulator.models.native_engine import kernel_of, missing
from simulator.randomness import generator
from tests.models.native_layers import layer, layer_backward

SMELU, ROWS, WIDTH, REPEATS = "smelu:beta=1", 512, 448, 50

Work = Callable[[int], None]


def measure(size: Size) -> list[Figure]:
    """What SmeLU costs by either engine's means."""
    draws = generator(0, "kernels")
    x, grad = (torch.from_numpy(draws.standard_normal((ROWS, WIDTH), dtype="float32")) for _ in range(2))
    x += x.sign()
    variants = {spec: by_autograd(activation(spec), x, grad) for spec in ("relu", SMELU)}
    variants |= {"copies": copies(x, grad), "paper": by_autograd(as_in_the_paper, x, grad)}
    native = not missing()
    if native:
        variants |= {f"compiled {spec}": compiled(spec, x, grad.clone()) for spec in ("relu", SMELU)}
    passes = interleave("activations alone", variants, size.rounds, size.warm_up)
    figures = [
        ratio("SmeLU / ReLU by autograd", passes, SMELU, "relu"),
        ratio("SmeLU as the paper writes it / SmeLU by autograd", passes, "paper", SMELU),
        ratio("SmeLU by autograd / copies of x and gradient", passes, SMELU, "copies"),
    ]
    if not native:
        return figures
    return [
        ratio("SmeLU / ReLU kernel, compiled", passes, f"compiled {SMELU}", "relu"),
        ratio("SmeLU / ReLU kernel, both compiled", passes, f"compiled {SMELU}", "compiled relu"),
        ratio("SmeLU kernel / copies of x and gradient", passes, f"compiled {SMELU}", "copies"),
        *figures,
    ]


def by_autograd(function: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Work:
    """Forward and backward."""
    leaf = x.clone().requires_grad_()

    def work(number: int) -> None:
        for _ in range(REPEATS):
            torch.autograd.grad(function(leaf), leaf, grad)

    return work


def as_in_the_paper(x: Tensor) -> Tensor:
    """SmeLU for beta = 1."""
    return torch.where(x <= -1, 0.0, torch.where(x >= 1, x, (x + 1) ** 2 / 4))


def copies(x: Tensor, grad: Tensor) -> Work:
    """Memory read and written once each way, and nothing computed."""

    def work(number: int) -> None:
        for _ in range(REPEATS):
            x.clone()
            grad.clone()

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
