"""The hand-written passes against plain autograd: log-odds, and the gradient of every parameter and of the inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from simulator.models.network import Layout, Network, Pooling, Segments
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from simulator.config import ModelConfig
from simulator.models.activations import activation
from simulator.randomness import generator
from simulator.types import Schema
from tests.models import reference
from tests.models.conftest import MIXED, MODEL, SINGLE, make_events, make_stack

NORMS = ("none", "before", "after", "weight")
SPECS = ("relu", "smelu:beta=2", "gelu", "linear", "swish:beta=3")
EVENTS, TOLERANCE = 6, 1e-9
"""Float64 throughout: what differs is rounding."""

Passed = tuple[Tensor, Tensor, Tensor]
"""Log-odds [m, B], gradient of the flat parameters [m, P], gradient of the inputs [m, B, F D]."""


def random_normal(purpose: str, *shape: int) -> Tensor:
    """Standard normal float64 numbers, the same in every run."""
    return torch.from_numpy(generator(0, purpose).standard_normal(shape))


def problem(norm: str, models: int, dim: int = 3) -> tuple[ModelConfig, Layout, Tensor, Tensor, Tensor]:
    """Config, layout, flat parameters [m, P], inputs [m, B, F D] and an upstream gradient [m, B]."""
    config = ModelConfig(dim=dim, hidden=(9, 6), norm=norm)  # type: ignore[arg-type]
    layout = Layout(MIXED, config)
    flat = torch.zeros(models, layout.length, dtype=torch.float64)
    for name, values in layout.views(flat).items():  # biases and gains must not stay at 0 and 1
        values += 0.5 * random_normal(name, *values.shape) + (1 if name.startswith("gain") else 0)
    x = random_normal("inputs", models, EVENTS, dim * len(MIXED.fields))
    return config, layout, flat, x, random_normal("upstream", models, EVENTS)


def run_slab(config: ModelConfig, layout: Layout, flat: Tensor, x: Tensor, up: Tensor, segments: Segments) -> Passed:
    """Forward and backward pass by the code under test."""
    network, w = Network(config), layout.views(flat)
    logits, tape = network.forward(x, w, segments)
    gradient = torch.zeros_like(flat)
    back = network.backward(up, w, tape, segments, layout.views(gradient))
    return logits, gradient, back


def run_reference(config: ModelConfig, layout: Layout, flat: Tensor, x: Tensor, up: Tensor, spec: str) -> Passed:
    """The same of one model [1, ...] by autograd."""
    flat, x = flat.clone().requires_grad_(), x.clone().requires_grad_()
    w = {name: values[0] for name, values in layout.views(flat).items()}
    logits = reference.network(x[0], w, config.norm, reference.FORMULAS[spec])
    gradient, back = torch.autograd.grad(logits, (flat, x), up[0])
    return logits[None].detach(), gradient, back


def assert_same(actual: Passed, expected: Passed) -> None:
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("norm", NORMS)
def test_a_slab_of_one_model_agrees_with_autograd(norm: str, spec: str) -> None:
    case = problem(norm, models=1)
    expected = run_reference(*case, spec)
    assert_same(run_slab(*case, [(activation(spec), slice(0, 1))]), expected)
    assert (expected[1] != 0).sum() > 0.8 * case[1].parameters, "a gradient that is 0 everywhere proves nothing"


@pytest.mark.parametrize("norm", NORMS)
def test_a_slab_of_all_models_agrees_with_autograd(norm: str) -> None:
    """Five models with three activations, one of them serving three models."""
    config, layout, flat, x, up = problem(norm, models=5)
    specs = ["relu", "smelu:beta=2", "smelu:beta=2", "smelu:beta=2", "swish:beta=3"]
    segments = [
        (activation("relu"), slice(0, 1)),
        (activation("smelu:beta=2"), slice(1, 4)),
        (activation("swish:beta=3"), slice(4, 5)),
    ]
    singles = [
        run_reference(config, layout, flat[m : m + 1], x[m : m + 1], up[m : m + 1], spec)
        for m, spec in enumerate(specs)
    ]
    expected = (
        torch.cat([s[0] for s in singles]),
        torch.cat([s[1] for s in singles]),
        torch.cat([s[2] for s in singles]),
    )
    assert_same(run_slab(config, layout, flat, x, up, segments), expected)


@pytest.mark.parametrize("norm", NORMS)
def test_the_passes_leave_their_inputs_as_they_are(norm: str) -> None:
    config, layout, flat, x, up = problem(norm, models=2)
    for models in (1, 2):
        kept = flat[:models].clone(), x[:models].clone(), up[:models].clone()
        case = flat[:models].clone(), x[:models].clone(), up[:models].clone()
        run_slab(config, layout, *case, [(activation("linear"), slice(0, models))])
        assert all(torch.equal(now, before) for now, before in zip(case, kept, strict=True))


class NoOuterProducts(TorchDispatchMode):
    """Refuses `torch.bmm` of single columns: on a GPU that needs a C compiler (torch._native.ops.bmm_outer_product)."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        assert func is not torch.ops.aten.bmm.default or args[0].shape[2] > 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("norm", NORMS)
def test_the_passes_need_no_compiler_of_pytorch(norm: str) -> None:
    config, layout, flat, x, up = problem(norm, models=2)
    with NoOuterProducts():
        run_slab(config, layout, flat, x, up, [(activation("relu"), slice(0, 2))])


def test_normalisation_does_what_it_says() -> None:
    """After: hidden outputs have mean 0 and deviation 1. Weight: the length of a neuron's weights does not matter."""
    config, layout, flat, x, _ = problem("after", models=1)
    layout.views(flat)["gain1"].fill_(1)
    _, tape = Network(config).forward(x, layout.views(flat), [(activation("relu"), slice(0, 1))])
    (last,) = tape[-1]
    torch.testing.assert_close(last.mean(-1), torch.zeros(1, EVENTS, dtype=torch.float64))
    assert last.var(-1, correction=0).sub(1).abs().max() < 1e-3  # below 1 by EPSILON / variance

    config, layout, flat, x, _ = problem("weight", models=1)
    before, _ = Network(config).forward(x, layout.views(flat), [(activation("relu"), slice(0, 1))])
    layout.views(flat)["weight0"].mul_(3)
    after, _ = Network(config).forward(x, layout.views(flat), [(activation("relu"), slice(0, 1))])
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("schema", [MIXED, SINGLE], ids=["mixed", "single"])
def test_pooling_agrees_with_embedding_bag(schema: Schema) -> None:
    rows = torch.from_numpy(make_events(schema, 40).features)
    table = random_normal("table", schema.rows, 5).float()
    table[0] = 0
    table.requires_grad_()
    expected = reference.pool(table, rows, schema)
    upstream = random_normal("upstream", *expected.shape).float()
    (table_gradient,) = torch.autograd.grad(expected, table, upstream)
    pooling = Pooling(schema, 5)
    weights = pooling.weights(rows[None])
    pooled = pooling.forward(table.detach()[rows][None], weights)
    torch.testing.assert_close(pooled[0], expected.detach(), rtol=1e-6, atol=1e-6)
    per_slot = pooling.backward(upstream[None], weights)[0]
    summed = torch.zeros_like(table).index_put_((rows.long(),), per_slot, accumulate=True)
    torch.testing.assert_close(summed[1:], table_gradient[1:], rtol=1e-6, atol=1e-6)


def test_an_event_without_any_value_of_a_field_gets_zeros() -> None:
    rows = torch.zeros(1, 2, MIXED.slots, dtype=torch.int32)
    pooling = Pooling(MIXED, 2)
    assert not pooling.forward(torch.zeros(1, 2, MIXED.slots, 2), pooling.weights(rows)).any()


def test_the_layout_covers_every_parameter_once_and_aligned() -> None:
    layout = Layout(MIXED, ModelConfig(dim=3, hidden=(9, 6)))
    flat = torch.zeros(2, layout.length)
    for values in layout.views(flat).values():
        values += 1
    assert flat.max() == 1 and int(flat[0].sum()) == layout.parameters
    assert layout.parameters == 12 * 9 + 9 + 9 + 9 * 6 + 6 + 6 + 6 + 1
    assert all(part.start % 16 == 0 for part in layout.parts.values()) and layout.length % 16 == 0


@pytest.mark.parametrize("norm", NORMS)
def test_stack_of_one_slab_scores_as_slabs_of_one(norm: str) -> None:
    model = replace(MODEL, norm=norm, compile="off")  # type: ignore[arg-type]
    stack = make_stack("relu", "smelu", "gelu", model=model, fleets=2)
    rows = torch.from_numpy(make_events(MIXED, 30).features)[None]
    alone = torch.cat([stack.logits(slab, rows) for slab in stack.slabs])
    together = stack.logits(slice(0, len(stack)), rows)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert [part for _, part in stack.segments(slice(0, 12))] == [slice(0, 4), slice(4, 8), slice(8, 12)]
