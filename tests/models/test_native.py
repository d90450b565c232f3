"""The native kernels of a layer against textbook formulas in float64, on odd shapes and odd numbers."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from simulator.models.activations import activation
from simulator.models.native_engine import KINDS, Kernel, kernel_of, missing
from simulator.randomness import generator
from tests.models import reference
from tests.models.native_layers import layer, layer_backward

if missing():
    pytest.skip(missing(), allow_module_level=True)

SPECS = list(reference.FORMULAS)
NORMS = ("none", "before", "after")
WIDTHS = st.sampled_from([1, 2, 7, 16, 33, 64, 130])
ROWS = st.sampled_from([1, 2, 5, 40])


def kernel(spec: str) -> Kernel:
    found = kernel_of(activation(spec))
    assert found
    return found


def numbers(purpose: str, *shape: int) -> Tensor:
    """Standard normal float32 numbers."""
    return torch.from_numpy(generator(0, purpose).standard_normal(shape, dtype="float32"))


def exact_layer(spec: str, norm: str, product: Tensor, bias: Tensor, gain: Tensor) -> Tensor:
    """The layer behind its matrix product by PyTorch's functions."""
    function, width = reference.FORMULAS[spec], bias.shape
    if norm == "before":
        return function(functional.layer_norm(product, width, gain, bias, reference.EPSILON))
    y = function(product + bias)
    return y if norm == "none" else functional.layer_norm(y, width, gain, None, reference.EPSILON)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("norm", NORMS)
@given(rows=ROWS, width=WIDTHS)
@settings(max_examples=12, deadline=None)
def test_a_layer_and_its_gradients_follow_the_formula(spec: str, norm: str, rows: int, width: int) -> None:
    product, up = numbers("product", rows, width) * 2, numbers("upstream", rows, width)
    bias, gain = numbers("bias", width), numbers("gain", width) + 1
    exact = [x.double().requires_grad_() for x in (product, bias, gain)]
    expected = exact_layer(spec, norm, *exact)
    slopes = torch.autograd.grad(expected, exact, up.double(), allow_unused=True, materialize_grads=True)
    function, moments = kernel(spec), torch.empty(2, rows)
    given = product.clone(), bias.clone(), gain.clone()
    y = layer(function, norm, product, bias, gain, moments=moments)
    grad, bias_grad, gain_grad = up.clone(), torch.full((width,), math.nan), torch.zeros(width)
    layer_backward(function, norm, product, bias, gain, moments, grad, bias_grad, gain_grad)
    tolerance = 2e-4 if width == 2 else 2e-5  # of two numbers that are nearly equal the deviation is nearly 0
    for ours, theirs in zip((y, grad, bias_grad, gain_grad), (expected, *slopes), strict=True):
        torch.testing.assert_close(ours.double(), theirs.detach(), rtol=1e-4, atol=tolerance * (1 + rows / 4))
    assert all(torch.equal(a, b) for a, b in zip(given, (product, bias, gain), strict=True))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("spec", SPECS)
def test_in_place_gives_the_same(spec: str, norm: str) -> None:
    product, bias, gain = numbers("product", 9, 33), numbers("bias", 33), numbers("gain", 33)
    y = layer(kernel(spec), norm, product, bias, gain)
    layer(kernel(spec), norm, product, bias, gain, out=product)
    assert torch.equal(product, y)


@pytest.mark.parametrize("spec", SPECS)
def test_the_whole_range_of_numbers(spec: str) -> None:
    """Small ones, and those whose exponential is beyond float32's range."""
    product = torch.cat([10.0 ** torch.arange(-12, 5, 0.37), -(10.0 ** torch.arange(-12, 5, 0.37))])[None].contiguous()
    leaf, nothing = product.double().requires_grad_(), torch.zeros(product.shape[1])
    beta = float(spec.partition("=")[2] or 1) if spec.startswith(("swish", "softplus")) else 1.0
    expected = reference.FORMULAS[spec](leaf)
    if spec.startswith("softplus"):  # whose textbook formula overflows, as does that of swish
        expected = functional.softplus(leaf, beta, 40)
    if spec.startswith("swish"):
        expected = functional.silu(leaf * beta) / beta
    y, grad = layer(kernel(spec), "none", product, nothing, None), torch.ones_like(product)
    layer_backward(kernel(spec), "none", product, nothing, None, None, grad, nothing.clone(), None)
    torch.testing.assert_close(y.double(), expected.detach(), rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(grad.double(), torch.autograd.grad(expected.sum(), leaf)[0], rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("spec", SPECS)
def test_what_is_not_a_number_goes_through_as_in_pytorch(spec: str, bad: float) -> None:
    if (spec, bad) == ("gelu", math.inf):
        pytest.skip("PyTorch's own scalar and vector kernels disagree")
    product, nothing = torch.full((1, 17), bad), torch.zeros(17)
    leaf = product.clone().requires_grad_()
    y = activation(spec)(leaf)
    (slope,) = torch.autograd.grad(y.sum(), leaf)
    grad = torch.ones(1, 17)
    layer_backward(kernel(spec), "none", product, nothing, None, None, grad, nothing.clone(), None)
    torch.testing.assert_close(layer(kernel(spec), "none", product, nothing, None), y.detach(), equal_nan=True)
    torch.testing.assert_close(grad, slope, equal_nan=True)


def test_kernels_by_name_and_parameters() -> None:
    def kind(name: str, **parameters: float) -> int | None:
        stand_in: Any = SimpleNamespace(name=name, parameters=parameters)
        found = kernel_of(stand_in)
        return found.kind if found else None

    plain = {"gminus": 0.0, "gplus": 1.0, "alpha": 1.0, "beta": 1.0, "t": 0.0}
    assert kind("my_own", beta=1.0) is None
    assert kind("smelu", beta=0.0) == KINDS["relu"] and kind("smelu", beta=0.5) == KINDS["smelu"]
    assert kind("gsmelu", **plain) == KINDS["smelu"] and kind("gsmelu", **plain | {"t": 0.1}) == KINDS["gsmelu"]
    assert {name: kind(name, beta=2.0) for name in KINDS if name != "gsmelu"} == {
        name: number for name, number in KINDS.items() if name != "gsmelu"
    }
