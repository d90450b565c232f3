"""The compiled kernels against textbook formulas in float64, on odd shapes, and bit for bit where that is promised."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator.models.network import EPSILON
from torch import Tensor
from torch.nn import functional

from simulator.models.activations import activation
from simulator.models.native import Native, formula_of, load
from simulator.randomness import generator
from tests.models import reference

NATIVE = load("auto")
if NATIVE is None:
    pytest.skip("no C++ compiler here", allow_module_level=True)

SPECS = [spec for spec in reference.FORMULAS if formula_of(activation(spec))]
NORMS = ("none", "before", "after")
WIDTHS = st.sampled_from([1, 2, 7, 16, 33, 64, 130])
ROWS = st.sampled_from([1, 2, 5, 40])


def kernels() -> Native:
    assert NATIVE is not None
    return NATIVE


def numbers(purpose: str, *shape: int) -> Tensor:
    """Standard normal float32 numbers."""
    return torch.from_numpy(generator(0, purpose).standard_normal(shape, dtype="float32"))


def layer(spec: str, norm: str, product: Tensor, bias: Tensor, gain: Tensor) -> Tensor:
    """The layer behind its matrix product by PyTorch's functions."""
    function, width = reference.FORMULAS[spec], bias.shape
    if norm == "before":
        return function(functional.layer_norm(product, width, gain, bias, EPSILON))
    y = function(product + bias)
    return y if norm == "none" else functional.layer_norm(y, width, gain, None, EPSILON)


def test_every_activation_has_a_kernel() -> None:
    assert SPECS == list(reference.FORMULAS)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("norm", NORMS)
@given(rows=ROWS, width=WIDTHS)
@settings(max_examples=12, deadline=None)
def test_a_layer_and_its_gradients_follow_the_formula(spec: str, norm: str, rows: int, width: int) -> None:
    product, up = numbers("product", rows, width) * 2, numbers("upstream", rows, width)
    bias, gain = numbers("bias", width), numbers("gain", width) + 1
    exact = [x.double().requires_grad_() for x in (product, bias, gain)]
    expected = layer(spec, norm, *exact)
    slopes = torch.autograd.grad(expected, exact, up.double(), allow_unused=True, materialize_grads=True)
    formula, moments = formula_of(activation(spec)), torch.empty(2, rows)
    assert formula
    given = product.clone(), bias.clone(), gain.clone()
    y = kernels().layer(formula, norm, product, bias, gain, moments=moments)
    grad, bias_grad, gain_grad = up.clone(), torch.full((width,), math.nan), torch.zeros(width)
    kernels().layer_backward(formula, norm, product, bias, gain, moments, grad, bias_grad, gain_grad)
    tolerance = 2e-4 if width == 2 else 2e-5  # of two numbers that are nearly equal the deviation is nearly 0
    for ours, theirs in zip((y, grad, bias_grad, gain_grad), (expected, *slopes), strict=True):
        torch.testing.assert_close(ours.double(), theirs.detach(), rtol=1e-4, atol=tolerance * (1 + rows / 4))
    assert all(torch.equal(a, b) for a, b in zip(given, (product, bias, gain), strict=True))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("spec", SPECS)
def test_scoring_in_place_gives_the_same(spec: str, norm: str) -> None:
    product, bias, gain = numbers("product", 9, 33), numbers("bias", 33), numbers("gain", 33)
    formula = formula_of(activation(spec))
    assert formula
    y = kernels().layer(formula, norm, product, bias, gain)
    assert torch.equal(kernels().layer(formula, norm, product, bias, gain, out=product), y) and product is not y
    assert torch.equal(product, y)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("spec", SPECS)
def test_what_is_not_a_number_goes_through_as_in_pytorch(spec: str, bad: float) -> None:
    if (spec, bad) == ("gelu", math.inf):
        pytest.skip("PyTorch's own scalar and vector kernels disagree")
    function = activation(spec)
    formula, product, nothing = formula_of(function), torch.full((1, 17), bad), torch.zeros(17)
    assert formula
    y, saved = function.forward(product)
    slope = function.backward(saved, torch.ones(1, 17))
    grad = torch.ones(1, 17)
    kernels().layer_backward(formula, "none", product, nothing, None, None, grad, nothing.clone(), None)
    torch.testing.assert_close(kernels().layer(formula, "none", product, nothing, None), y, equal_nan=True)
    torch.testing.assert_close(grad, slope, equal_nan=True)
