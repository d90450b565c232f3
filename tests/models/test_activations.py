"""Every activation against its textbook formula, SmeLU also against its defining properties, and bad specs by name."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad  # type: ignore[import-untyped]
from torch import Tensor, nn

from simulator.errors import SettingError
from simulator.models.activations import REGISTRY, activation, curve
from tests.models.reference import FORMULAS, gsmelu, smelu

BETAS = st.floats(0.01, 50)
POINTS = st.floats(-100, 100)
SLOPES = st.floats(-2, 2).map(lambda value: round(value, 6))


def grid() -> Tensor:
    """Points from -6 to 6, none of them 0 or a joint of the specs above."""
    return torch.linspace(-6, 6, 400, dtype=torch.float64)


def value_and_gradient(spec: str, x: float) -> tuple[float, float]:
    """y and dy/dx at one point in float64, by the hand-written pair."""
    function = activation(spec)
    y, saved = function.forward(torch.tensor([x], dtype=torch.float64))
    return y.item(), function.backward(saved, torch.ones(1, dtype=torch.float64)).item()


def test_all_registered_activations_are_compared_here() -> None:
    assert {spec.partition(":")[0] for spec in FORMULAS} == set(REGISTRY)


@pytest.mark.parametrize("spec", FORMULAS)
def test_value_and_gradient_follow_the_formula(spec: str) -> None:
    x = grid().requires_grad_()
    upstream = torch.cos(3 * grid())
    expected = FORMULAS[spec](x)
    (slope,) = torch.autograd.grad(expected, x, upstream)
    function = activation(spec)
    y, saved = function.forward(grid())
    torch.testing.assert_close(y, expected.detach(), rtol=1e-9, atol=3e-9)  # softplus is cut at e^-20
    torch.testing.assert_close(function.backward(saved, upstream), slope, rtol=1e-8, atol=3e-9)


@pytest.mark.parametrize("spec", FORMULAS)
def test_float32_follows_the_formula(spec: str) -> None:
    y, _ = activation(spec).forward(grid().float())
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), FORMULAS[spec](grid()), rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("spec", "native"),
    [
        ("relu", nn.ReLU()),
        ("gelu", nn.GELU()),
        ("swish", nn.SiLU()),
        ("softplus:beta=3", nn.Softplus(3)),
        ("linear", nn.Identity()),
    ],
)
def test_the_same_as_the_module_of_pytorch(spec: str, native: nn.Module) -> None:
    torch.testing.assert_close(activation(spec)(grid()), native(grid()))


@pytest.mark.parametrize("spec", FORMULAS)
def test_gradcheck(spec: str) -> None:
    assert torch.autograd.gradcheck(activation(spec), grid()[::20].clone().requires_grad_())


@pytest.mark.parametrize("spec", FORMULAS)
def test_module_function_and_pair_agree_and_leave_x_as_it_is(spec: str) -> None:
    x = grid()
    function = activation(spec)
    y, _ = function.forward(x)
    assert torch.equal(function(x), y)
    assert torch.equal(nn.Sequential(function.module())(x), y)
    assert torch.equal(x, grid())
    assert not list(function.module().parameters())


@pytest.mark.parametrize("spec", FORMULAS)
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
