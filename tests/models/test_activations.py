"""Every activation against its textbook formula, SmeLU also against its defining properties, and bad specs by name."""

from __future__ import annotations

import math
import warnings
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn import functional

from simulator.errors import SettingError
from simulator.models import activations
from simulator.models.activations import REGISTRY, activation, curve, register
from simulator.models.specs import parse_arms
from tests.models.reference import FORMULAS, gsmelu, smelu

BETAS = st.floats(0.01, 50)
POINTS = st.floats(-100, 100)
SLOPES = st.floats(-2, 2).map(lambda value: round(value, 6))


def grid() -> Tensor:
    """Points from -6 to 6, none of them 0 or a joint of the specs above."""
    return torch.linspace(-6, 6, 400, dtype=torch.float64)


def value_and_gradient(spec: str, x: float) -> tuple[float, float]:
    """y and dy/dx at one point in float64."""
    at = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y = activation(spec)(at)
    return y.item(), torch.autograd.grad(y, at)[0].item()


def test_all_registered_activations_are_compared_here() -> None:
    assert {spec.partition(":")[0] for spec in FORMULAS} == set(REGISTRY)


@pytest.mark.parametrize("spec", FORMULAS)
def test_value_and_gradient_follow_the_formula(spec: str) -> None:
    """In float64, and in float32 within its rounding; x stays as it is."""
    x, upstream = grid().requires_grad_(), torch.cos(3 * grid())
    y, expected = activation(spec)(x), FORMULAS[spec](x)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=3e-9)  # softplus is cut at e^-20
    slopes = [torch.autograd.grad(each, x, upstream)[0] for each in (y, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-8, atol=3e-9)
    single = activation(spec)(grid().float())
    assert single.dtype == torch.float32 and torch.equal(x, grid())
    torch.testing.assert_close(single.double(), expected.detach(), rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("spec", FORMULAS)
def test_gradcheck_and_the_transforms_of_torch_func(spec: str) -> None:
    function, x = activation(spec), grid()[::20].clone()
    assert torch.autograd.gradcheck(function, x.clone().requires_grad_())
    if spec not in ("linear", "relu"):  # the second derivative of these is zero, or nowhere
        assert torch.autograd.gradgradcheck(function, x.clone().requires_grad_())
    slopes = [torch.func.grad(function)(at) for at in x]
    torch.testing.assert_close(torch.vmap(torch.func.grad(function))(x), torch.stack(slopes))
    torch.testing.assert_close(torch.vmap(function)(x.view(4, 5)), function(x).view(4, 5))


JOINTS = {  # of each spec, with the second derivative between them
    "smelu": (-1.0, 1.0, 0.5),
    "smelu:beta=0.3": (-0.3, 0.3, 1 / 0.6),
    "gsmelu:gminus=0.1,gplus=0.9,alpha=0.5,beta=1.5,t=-0.2": (-0.5, 1.5, 0.4),
}


@pytest.mark.parametrize("spec", JOINTS)
def test_derivatives_at_the_joints(spec: str) -> None:
    """The gradient has one value there; the second derivative jumps, and is that of one side or the other."""
    *joints, curvature = JOINTS[spec]
    function, x = activation(spec), torch.tensor(joints, dtype=torch.float64)
    assert torch.autograd.gradcheck(function, x.clone().requires_grad_())
    second = torch.vmap(torch.func.grad(torch.func.grad(function)))
    for found in second(x).tolist():
        assert min(abs(found), abs(found - curvature)) < 1e-12
    aside = torch.tensor([-1e-6, 1e-6], dtype=torch.float64)
    torch.testing.assert_close(second(x[0] + aside), torch.tensor([0, curvature], dtype=torch.float64))
    torch.testing.assert_close(second(x[1] + aside), torch.tensor([curvature, 0], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("beta", [0.3, 1.0, 2.0])
def test_the_order_of_operations_stays(dtype: torch.dtype, beta: float) -> None:
    """Results of earlier runs repeat to the last bit: relu, then Huber's function, with nothing in between."""
    x = (2 * torch.randn(999, generator=torch.Generator().manual_seed(5))).to(dtype)
    x[:4] = torch.tensor([0.0, -0.0, beta, -beta])

    def before(x: Tensor) -> Tensor:
        z = functional.relu(x + beta)
        return functional.smooth_l1_loss(z, torch.zeros_like(z), reduction="none", beta=beta + beta)

    for one, other in ((before, partial(activations.smelu, beta=beta)), (functional.relu, activation("smelu:beta=0"))):
        results = []
        for function in (one, other):
            at = x.clone().requires_grad_()
            y = function(at)
            results.append((y, *torch.autograd.grad(y, at, torch.cos(x))))
        assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


def test_the_formulas_can_be_scripted() -> None:
    """Without their checks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is", DeprecationWarning)  # to say so is up to its users
        smooth, general = torch.jit.script(activations.smelu_formula), torch.jit.script(activations.gsmelu_formula)
    for beta in (0.0, 0.7):
        assert torch.equal(smooth(grid(), beta), activations.smelu(grid(), beta))
    settings = (0.1, 0.9, 0.5, 1.5, -0.2)
    assert torch.equal(general(grid(), *settings), activations.gsmelu(grid(), *settings))


def test_the_second_derivative_of_x_times_smelu() -> None:
    """At 0.3, inside the quadratic piece: (x (x + 1)^2 / 4)'' = (3 x + 2) / 2."""
    smooth = activation("smelu:beta=1")
    second = torch.func.grad(torch.func.grad(lambda x: x * smooth(x)))
    assert second(torch.tensor(0.3, dtype=torch.float64)).item() == pytest.approx(1.45, rel=1e-12)


def test_smelu_can_be_exported() -> None:
    function, x = activation("smelu:beta=2"), grid()

    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    assert torch.equal(torch.export.export(Layer(), (x,)).module()(x), function(x))


def test_a_new_activation_is_one_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its further arguments, with their defaults, are its parameters."""
    monkeypatch.setattr(activations, "REGISTRY", dict(REGISTRY))
    register("mish", lambda x, beta=1.0: x * torch.tanh(functional.softplus(beta * x)))
    assert activation("mish").parameters == {"beta": 1.0} and activation("mish:beta=2").parameters == {"beta": 2.0}
    torch.testing.assert_close(activation("mish")(grid()), nn.Mish()(grid()))
    (arm,) = parse_arms(("ensemble:mish:m=2,beta=2,norm=none",))
    assert (arm.function, arm.cure.m, arm.settings) == ("mish:beta=2", 2, {"norm": "none"})
    with pytest.raises(SettingError, match="mish: parameter = gamma=1: mish takes beta=..., each at most once"):
        activation("mish:gamma=1")


@pytest.mark.parametrize("spec", ["relu", "swish:beta=3"])
def test_curve_samples_the_function_and_its_gradient(spec: str) -> None:
    samples = curve(spec, reach=3.0, points=41)
    x = torch.tensor(samples["x"], dtype=torch.float64, requires_grad=True)
    y = activation(spec)(x)
    y.sum().backward()  # type: ignore[no-untyped-call]
    assert samples["x"][0] == -3 and samples["x"][-1] == 3 and x.grad is not None
    assert samples["y"] == y.tolist() and samples["gradient"] == x.grad.tolist()


@given(POINTS, BETAS)
def test_smelu_is_piecewise(x: float, beta: float) -> None:
    y, gradient = value_and_gradient(f"smelu:beta={beta!r}", x)
    expected = smelu(torch.tensor(x, dtype=torch.float64), beta).item()
    assert y == pytest.approx(expected, rel=1e-9, abs=1e-12 * (100 + beta))
    assert gradient == pytest.approx(min(max((x + beta) / (2 * beta), 0), 1), abs=1e-9)


@given(BETAS)
def test_smelu_joins_its_pieces_without_a_jump(beta: float) -> None:
    step = beta * 1e-9
    for joint, value, slope in ((-beta, 0.0, 0.0), (beta, beta, 1.0)):
        for x in (joint - step, joint, joint + step):
            y, gradient = value_and_gradient(f"smelu:beta={beta!r}", x)
            assert y == pytest.approx(value, abs=beta * 1e-8)
            assert gradient == pytest.approx(slope, abs=1e-8)


@given(POINTS, BETAS)
def test_smelu_is_farthest_from_relu_at_zero(x: float, beta: float) -> None:
    y, _ = value_and_gradient(f"smelu:beta={beta!r}", x)
    at_zero, slope = value_and_gradient(f"smelu:beta={beta!r}", 0.0)
    assert at_zero == pytest.approx(beta / 4, rel=1e-12) and slope == pytest.approx(0.5, rel=1e-12)
    assert -1e-9 <= y - max(x, 0.0) <= beta / 4 + 1e-9


@pytest.mark.parametrize("beta", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("share", [-2.0, -1.0, -0.6, 0.0, 0.3, 1.0, 1.7])
def test_smelu_is_relu_blurred_by_a_uniform_kernel(beta: float, share: float) -> None:
    x = share * beta
    kink = [x] if abs(x) < beta else None
    area, _ = quad(lambda u: max(x - u, 0.0), -beta, beta, points=kink)
    assert value_and_gradient(f"smelu:beta={beta}", x)[0] == pytest.approx(area / (2 * beta), abs=1e-9)


@given(POINTS)
def test_smelu_without_width_is_relu(x: float) -> None:
    assert value_and_gradient("smelu:beta=0", x) == value_and_gradient("relu", x) == (max(x, 0.0), float(x > 0))


@given(POINTS, BETAS)
def test_gsmelu_with_slopes_0_and_1_is_smelu(x: float, beta: float) -> None:
    general = value_and_gradient(f"gsmelu:gminus=0,gplus=1,alpha={beta!r},beta={beta!r},t=0", x)
    assert general == value_and_gradient(f"smelu:beta={beta!r}", x)


@given(POINTS, SLOPES, SLOPES, st.floats(0.1, 5), st.floats(0.1, 5), SLOPES)
def test_gsmelu_follows_equation_9(x: float, gminus: float, gplus: float, alpha: float, beta: float, t: float) -> None:
    spec = f"gsmelu:gminus={gminus!r},gplus={gplus!r},alpha={alpha!r},beta={beta!r},t={t!r}"
    at = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    expected = gsmelu(at, gminus, gplus, alpha, beta, t)
    (slope,) = torch.autograd.grad(expected, at)
    y, gradient = value_and_gradient(spec, x)
    assert y == pytest.approx(expected.item(), abs=1e-9)
    assert gradient == pytest.approx(slope.item(), abs=1e-9)


def test_larger_beta_is_smoother_for_smelu_and_sharper_for_swish_and_softplus() -> None:
    relu = torch.relu(grid())
    for name, sharper, smoother in (("smelu", 0.5, 2), ("swish", 4, 1), ("softplus", 4, 1)):
        near, far = (activation(f"{name}:beta={beta}")(grid()) for beta in (sharper, smoother))
        assert (near - relu).abs().max() < (far - relu).abs().max()


def test_matched_smoothing_of_smelu_and_softplus() -> None:
    """beta_smelu = pi / beta_softplus: both blur ReLU, and then the kernels have equal variance."""
    x = torch.linspace(-60, 60, 240_001, dtype=torch.float64)
    relu = torch.relu(x)
    areas = [
        torch.trapezoid(activation(spec)(x) - relu, x).item() for spec in (f"smelu:beta={math.pi}", "softplus:beta=1")
    ]
    assert areas[0] == pytest.approx(areas[1], rel=1e-4)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("", "activation = (empty)"),
        ("reLU", "activation = reLU"),
        ("tanh:beta=1", "activation = tanh"),
        (":beta=1", "activation = (empty)"),
        ("relu#2", "activation = relu#2"),
        (" relu", "activation =  relu"),
        ("smelu:beta=-0.5", "smelu: beta = -0.5"),
        ("swish:beta=0", "swish: beta = 0.0"),
        ("softplus:beta=-1", "softplus: beta = -1.0"),
        ("smelu:beta=nan", "smelu: beta = nan"),
        ("smelu:beta=inf", "smelu: beta = inf"),
        ("smelu:beta=1e-40", "smelu: beta = 1e-40"),
        ("softplus:beta=1e39", "softplus: beta = 1e39"),
        ("gsmelu:t=-inf", "gsmelu: t = -inf"),
        ("gsmelu:alpha=-1,beta=0.5", "gsmelu: alpha + beta = -0.5"),
        ("smelu:beta", "smelu: parameter = beta"),
        ("smelu:0.5", "smelu: parameter = 0.5"),
        ("smelu:beta=", "smelu: beta ="),
        ("smelu:beta=wide", "smelu: beta = wide"),
        ("smelu:width=1", "smelu: parameter = width=1"),
        ("relu:beta=1", "relu: parameter = beta=1"),
        ("smelu:", "smelu: parameter ="),
        ("smelu:beta=1,", "smelu: parameter ="),
        ("smelu:beta=1,beta=2", "smelu: parameter = beta=2"),
    ],
)
def test_a_bad_spec_is_named(spec: str, named: str) -> None:
    with pytest.raises(SettingError) as caught:
        activation(spec)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
