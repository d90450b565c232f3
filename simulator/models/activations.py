"""Activations by spec, such as `smelu:beta=0.5`, from one registry.

The learner and PyTorch modules share one formula each, a pair of functions: `forward(x) -> (y, saved)` and
`backward(saved, grad) -> grad * dy/dx`. Called on a tensor it is differentiable by autograd through the same pair.

SmeLU and gSmeLU: Shamir and Lin, "Real World Large Scale Recommendation Systems Reproducibility and Smooth
Activations", arXiv 2202.06499. Larger beta is smoother for SmeLU, and sharper for Swish and Softplus; equal smoothing
is beta_smelu = pi / beta_softplus.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from simulator.errors import SettingError


class Activation(ABC):
    """A scalar function applied to every element, with its gradient."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y and what `backward` needs, both of x's shape; x is left as it is."""

    @abstractmethod
    def backward(self, saved: Tensor, grad: Tensor) -> Tensor:
        """The gradient with respect to x, given the gradient with respect to y."""

    def __call__(self, x: Tensor) -> Tensor:
        """y, differentiable once."""
        y: Tensor = _Differentiable.apply(x, self)  # type: ignore[no-untyped-call]
        return y

    def module(self) -> nn.Module:
        """The same function as a module without parameters."""
        return ActivationModule(self)


class _Differentiable(torch.autograd.Function):
    """Hands an Activation's own forward and backward to autograd."""

    @staticmethod
    def forward(ctx, x, activation):  # type: ignore[no-untyped-def]
        y, saved = activation.forward(x)
        ctx.save_for_backward(saved)
        ctx.activation = activation
        return y.clone() if y is x else y

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return ctx.activation.backward(ctx.saved_tensors[0], grad), None


class ActivationModule(nn.Module):
    """An Activation inside `nn.Sequential`."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """y of x's shape."""
        return self.activation(x)


class Linear(Activation):
    """y = x: the limit of too much smoothness."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x

    def backward(self, saved: Tensor, grad: Tensor) -> Tensor:
        return grad


class ReLU(Activation):
    """y = max(x, 0)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.clamp_min(x, 0)
        return y, y

    def backward(self, saved: Tensor, grad: Tensor) -> Tensor:
        return torch.ops.aten.threshold_backward(grad, saved, 0)  # type: ignore[no-any-return]


class GSmeLU(Activation):
    """Gradient gminus left of -alpha, gplus right of beta, a straight ramp between; y(-alpha) = t (2202.06499, eq. 9).

    Written with one clamp: c = clip(x + alpha, 0, L), L = alpha + beta, so that
    dy/dx = gminus + (gplus - gminus) c / L and y = t + gminus (x + alpha) + (gplus - gminus) c (x + alpha - c / 2) / L.
    """

    def __init__(
        self, gminus: float = 0.0, gplus: float = 1.0, alpha: float = 1.0, beta: float = 1.0, t: float = 0.0
    ) -> None:
        if not alpha + beta > 0:
            raise SettingError("gsmelu: alpha + beta", alpha + beta, "more than 0")
        self.gminus, self.alpha, self.t = gminus, alpha, t
        self.length = alpha + beta
        self.slope = (gplus - gminus) / self.length

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shifted = x + self.alpha
        ramp = torch.clamp(shifted, 0, self.length)
        y = torch.addcmul(_zero(x), ramp, torch.sub(shifted, ramp, alpha=0.5), value=self.slope)
        if self.gminus:
            y.add_(shifted, alpha=self.gminus)
        if self.t:
            y.add_(self.t)
        return y, ramp

    def backward(self, saved: Tensor, grad: Tensor) -> Tensor:
        base = torch.mul(grad, self.gminus) if self.gminus else _zero(grad)
        return torch.addcmul(base, grad, saved, value=self.slope)


def smelu(beta: float = 1.0) -> Activation:
    """0 for x <= -beta, (x + beta)^2 / (4 beta) for |x| <= beta, x for x >= beta. beta = 0 is ReLU."""
    if not beta >= 0 or math.isinf(beta):
        raise SettingError("smelu: beta", beta, "0 (ReLU) or more; it is the half-width of the quadratic piece")
    return GSmeLU(alpha=beta, beta=beta) if beta > 0 else ReLU()


class GELU(Activation):
    """y = x times the standard normal distribution function of x (the exact form)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.nn.functional.gelu(x), x

    def backward(self, saved: Tensor, grad: Tensor) -> Tensor:
        return torch.ops.aten.gelu_backward(grad, saved)  # type: ignore[no-any-return]


class Swish(Activation):
    """y = x sigmoid(beta x). Larger beta is sharper."""

    def __init__(self, beta: float = 1.0) -> None:
        if not beta > 0:
            raise SettingError("swish: beta", beta, "more than 0; larger is sharper")
        self.beta = beta

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scaled = x if self.beta == 1 else x * self.beta
        y = torch.nn.functional.silu(scaled)
        return (y if self.beta == 1 else y.div_(self.beta)), scaled

    def backward(self, saved: Tensor, grad: Tensor) -> Tensor:
        return torch.ops.aten.silu_backward(grad, saved)  # type: ignore[no-any-return]


class Softplus(Activation):
    """y = ln(1 + e^(beta x)) / beta. Larger beta is sharper."""

    def __init__(self, beta: float = 1.0) -> None:
        if not beta > 0:
            raise SettingError("softplus: beta", beta, "more than 0; larger is sharper")
        self.beta = beta

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.nn.functional.softplus(x, self.beta), x

    def backward(self, saved: Tensor, grad: Tensor) -> Tensor:
        return torch.ops.aten.softplus_backward(grad, saved, self.beta, 20.0)  # type: ignore[no-any-return]


def _zero(like: Tensor) -> Tensor:
    return torch.zeros((), dtype=like.dtype, device=like.device)


REGISTRY: dict[str, tuple[Callable[..., Activation], tuple[str, ...]]] = {
    "linear": (Linear, ()),
    "relu": (ReLU, ()),
    "smelu": (smelu, ("beta",)),
    "gsmelu": (GSmeLU, ("gminus", "gplus", "alpha", "beta", "t")),
    "gelu": (GELU, ()),
    "swish": (Swish, ("beta",)),
    "softplus": (Softplus, ("beta",)),
}
"""Name in a spec -> (constructor, its parameters)."""


def activation(spec: str) -> Activation:
    """The activation of a spec `name` or `name:parameter=value,...`, e.g. `smelu:beta=0.5`.

    Raises SettingError for an unknown name, an unknown, empty or repeated parameter, a value that is no
    number, or one out of range.
    """
    name, colon, settings = spec.partition(":")
    if name not in REGISTRY:
        raise SettingError("activation", name or "(empty)", f"one of {', '.join(REGISTRY)}")
    make, parameters = REGISTRY[name]
    values: dict[str, float] = {}
    for setting in settings.split(",") if colon else ():
        key, equals, text = setting.partition("=")
        known = ", ".join(f"{p}=..." for p in parameters) or "nothing"
        if not equals or key not in parameters or key in values:
            raise SettingError(f"{name}: parameter", setting or "(empty)", f"{name} takes {known}, each at most once")
        try:
            values[key] = float(text)
        except ValueError:
            raise SettingError(f"{name}: {key}", text, "a number, such as 0.5") from None
        if not (values[key] == 0 or 1e-6 <= abs(values[key]) <= 1e6):  # beyond that float32 overflows
            raise SettingError(f"{name}: {key}", text, "a finite number: 0, or between 1e-6 and 1e6 in size")
    return make(**values)


def curve(spec: str, reach: float = 4.0, points: int = 161) -> dict[str, list[float]]:
    """Samples for a picture: x from -reach to reach, y, and the gradient dy/dx."""
    x = torch.linspace(-reach, reach, points, dtype=torch.float64)
    function = activation(spec)
    y, saved = function.forward(x)
    gradient = function.backward(saved, torch.ones_like(x))
    return {"x": x.tolist(), "y": y.tolist(), "gradient": gradient.tolist()}
