"""Activations by spec, such as `smelu:beta=0.5`: each is one formula, differentiated by autograd.

A new one is one formula in one place: `register("mish", lambda x: x * torch.tanh(functional.softplus(x)))`; further
arguments of the formula, with their defaults, are its parameters. It checks their range itself, by `require`.

SmeLU and gSmeLU: Shamir and Lin, "Real World Large Scale Recommendation Systems Reproducibility and Smooth
Activations", arXiv 2202.06499. Larger beta is smoother for SmeLU, and sharper for Swish and Softplus; equal smoothing
is beta_smelu = pi / beta_softplus.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from simulator.config import require
from simulator.errors import SettingError

Formula = Callable[..., Tensor]
"""x of any shape, and parameters by name -> y of x's shape."""


@dataclass(frozen=True)
class Activation:
    """A formula with values for its parameters."""

    name: str
    parameters: dict[str, float]
    """Complete: defaults stand here too."""
    formula: Formula

    def __call__(self, x: Tensor) -> Tensor:
        """y of x's shape, differentiable as often as the formula is."""
        return self.formula(x, **self.parameters)


def linear(x: Tensor) -> Tensor:
    """y = x: the limit of too much smoothness."""
    return x


def gsmelu_formula(x: Tensor, gminus: float, gplus: float, alpha: float, beta: float, t: float) -> Tensor:
    """`gsmelu` without its checks, so that torch.jit.script can compile it.

    With z = relu(x + alpha) and L = alpha + beta, the integral of the ramp is Huber's function, z^2 / 2L up to L and
    z - L/2 from there, for which PyTorch has one operation each way: y = t + gminus (x + alpha) + (gplus - gminus)
    huber(z). The relu is asked for by its name in `torch.ops`: it is part of the formula, and must be neither replaced
    nor counted by the search for relu calls of a model (modules.py).
    """
    shifted = x + alpha
    z = torch.ops.aten.relu(shifted)
    y = functional.smooth_l1_loss(z, torch.zeros_like(z), reduction="none", beta=alpha + beta)
    if gplus - gminus != 1:
        y = y * (gplus - gminus)
    if gminus != 0 or t != 0:
        y = y + (gminus * shifted + t)
    return y


def smelu_formula(x: Tensor, beta: float) -> Tensor:
    """`smelu` without its check, so that torch.jit.script can compile it."""
    if beta > 0:
        return gsmelu_formula(x, 0.0, 1.0, beta, beta, 0.0)
    relu: Tensor = torch.ops.aten.relu(x)
    return relu


def gsmelu(
    x: Tensor, gminus: float = 0.0, gplus: float = 1.0, alpha: float = 1.0, beta: float = 1.0, t: float = 0.0
) -> Tensor:
    """Gradient gminus left of -alpha, gplus right of beta, a straight ramp between; y(-alpha) = t (2202.06499, eq. 9).

    x of any shape; raises SettingError unless alpha + beta > 0.
    """
    require(alpha + beta > 0, "gsmelu: alpha + beta", alpha + beta, "more than 0")
    return gsmelu_formula(x, gminus, gplus, alpha, beta, t)


def smelu(x: Tensor, beta: float = 1.0) -> Tensor:
    """0 for x <= -beta, (x + beta)^2 / (4 beta) for |x| <= beta, x for x >= beta. beta = 0 is ReLU.

    x of any shape; raises SettingError for a beta below 0, infinite or not a number.
    """
    in_range = beta >= 0 and not math.isinf(beta)
    require(in_range, "smelu: beta", beta, "0 (ReLU) or more; it is the half-width of the quadratic piece")
    return smelu_formula(x, beta)


def swish(x: Tensor, beta: float = 1.0) -> Tensor:
    """y = x sigmoid(beta x). Larger beta is sharper."""
    require(beta > 0, "swish: beta", beta, "more than 0; larger is sharper")
    return functional.silu(x) if beta == 1 else functional.silu(x * beta) / beta


def softplus(x: Tensor, beta: float = 1.0) -> Tensor:
    """y = ln(1 + e^(beta x)) / beta. Larger beta is sharper."""
    require(beta > 0, "softplus: beta", beta, "more than 0; larger is sharper")
    return functional.softplus(x, beta)


REGISTRY: dict[str, Formula] = {}


def register(name: str, formula: Formula) -> None:
    """Make a formula an activation that arms can name."""
    REGISTRY[name] = formula


register("linear", linear)
register("relu", functional.relu)
register("smelu", smelu)
register("gsmelu", gsmelu)
register("gelu", functional.gelu)  # the exact form: x times the standard normal distribution function of x
register("swish", swish)
register("softplus", softplus)


def parameters_of(name: str) -> dict[str, float]:
    """Names and defaults of an activation's parameters. Raises SettingError for an unknown name."""
    if name not in REGISTRY:
        raise SettingError(
            "activation",
            name or "(empty)",
            f"one of {', '.join(REGISTRY)}, or a module of your own, as in torch:my_pkg.models:make",
        )
    try:
        arguments = inspect.signature(REGISTRY[name]).parameters.values()
    except ValueError:  # PyTorch's own functions have no signature
        return {}
    return {
        parameter.name: float(parameter.default) for parameter in arguments if type(parameter.default) in (int, float)
    }


def activation(spec: str) -> Activation:
    """The activation of a spec `name` or `name:parameter=value,...`, e.g. `smelu:beta=0.5`.

    Raises SettingError for an unknown name, an unknown, empty or repeated parameter, a value that is no
    number, or one out of range.
    """
    name, colon, settings = spec.partition(":")
    defaults, values = parameters_of(name), dict[str, float]()
    for setting in settings.split(",") if colon else ():
        key, equals, text = setting.partition("=")
        known = ", ".join(f"{p}=..." for p in defaults) or "nothing"
        if not equals or key not in defaults or key in values:
            raise SettingError(f"{name}: parameter", setting or "(empty)", f"{name} takes {known}, each at most once")
        try:
            values[key] = float(text)
        except ValueError:
            raise SettingError(f"{name}: {key}", text, "a number, such as 0.5") from None
        require_safe(f"{name}: {key}", values[key], text)
    parsed = Activation(name, defaults | values, REGISTRY[name])
    parsed(torch.zeros(1))  # a parameter out of range is refused here, not in the middle of a run
    return parsed


def require_safe(setting: str, number: float, written: object) -> None:
    """Raises SettingError, with the number as `written` by the user, where float32 could overflow with it."""
    in_range = number == 0 or 1e-6 <= abs(number) <= 1e6
    require(in_range, setting, written, "a finite number: 0, or between 1e-6 and 1e6 in size")


def curve(spec: str, reach: float = 4.0, points: int = 161) -> dict[str, list[float]]:
    """Samples for a picture: x from -reach to reach, y, and the gradient dy/dx."""
    x = torch.linspace(-reach, reach, points, dtype=torch.float64, requires_grad=True)
    y = activation(spec)(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    return {"x": x.tolist(), "y": y.tolist(), "gradient": gradient.tolist()}
