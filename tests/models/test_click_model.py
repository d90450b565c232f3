"""The built-in model's parts: where its parameters lie, how slots become fields, what its norms do."""

from __future__ import annotations

import pytest
import torch

from simulator.config import ModelConfig
from simulator.models.activations import activation
from simulator.models.click_model import ClickModel, Layout, Pooling, check_shapes, padding
from simulator.randomness import generator
from simulator.types import Schema
from tests.models import reference
from tests.models.conftest import MIXED, MODEL, SINGLE, make_events


def made(norm: str, spec: str = "relu") -> ClickModel:
    """A model in float64 with all parameters away from their start."""
    model = ClickModel(MIXED, ModelConfig(dim=3, hidden=(9, 6), norm=norm), activation(spec))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, values in model.double().named_parameters():
            generator_states = torch.from_numpy(generator(0, name).standard_normal(values.shape))
            values.copy_(0.5 * generator_states + (1 if name.startswith("gain") else 0))
    return model


@pytest.mark.parametrize("norm", ["none", "before", "after", "weight"])
def test_log_odds_follow_the_formula_whole_and_from_the_first_product(norm: str) -> None:
    model, rows = made(norm, "gelu"), torch.from_numpy(make_events(MIXED, 40).features)
    table = torch.from_numpy(generator(0, "table").standard_normal((MIXED.rows, 3)))
    table[0] = 0
    inputs = reference.pool(table, rows, MIXED)
    expected = reference.network(inputs, dict(model.named_parameters()), norm, reference.gelu)
    found = model(table[rows], model.pooling.shares(rows, torch.float64))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.from_product(inputs @ model.weight(0)), expected, rtol=1e-9, atol=1e-9)


def test_norms_do_what_they_say() -> None:
    """After: hidden outputs have mean 0 and deviation 1. Weight: the length of a neuron's weights does not matter."""
    after, x = made("after"), torch.from_numpy(generator(0, "x").standard_normal((5, 12)))
    with torch.no_grad():
        after.tensor("gain", 0).fill_(1)
        hidden = after._shape(0, after._product(0, x))
        torch.testing.assert_close(hidden.mean(-1), torch.zeros(5, dtype=torch.float64))
        assert hidden.var(-1, correction=0).sub(1).abs().max() < 1e-3  # below 1 by EPSILON / variance
        weight = made("weight")
        before = weight.weight(0).clone()
        weight.tensor("weight", 0).mul_(3)
        torch.testing.assert_close(weight.weight(0), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("schema", [MIXED, SINGLE], ids=["mixed", "single"])
def test_pooling_agrees_with_embedding_bag_and_so_does_its_gradient(schema: Schema) -> None:
    rows = torch.from_numpy(make_events(schema, 40).features)
    table = torch.from_numpy(generator(0, "table").standard_normal((schema.rows, 5)))
    table[0] = 0
    table.requires_grad_()
    pooling = Pooling(schema, 5)
    expected = reference.pool(table, rows, schema)
    found = pooling.forward(table[rows], pooling.shares(rows, torch.float64))
    torch.testing.assert_close(found, expected)
    upstream = torch.from_numpy(generator(0, "upstream").standard_normal(expected.shape))
    slopes = [torch.autograd.grad(each, table, upstream)[0][1:] for each in (found, expected)]
    torch.testing.assert_close(*slopes)


def test_an_event_without_any_value_of_a_field_gets_zeros() -> None:
    rows, pooling = torch.zeros(2, MIXED.slots, dtype=torch.int32), Pooling(MIXED, 2)
    assert not pooling.forward(torch.zeros(2, MIXED.slots, 2), pooling.shares(rows)).any()


def test_the_layout_covers_every_parameter_once_and_aligned() -> None:
    layout = Layout(MIXED, ModelConfig(dim=3, hidden=(9, 6), norm="after"))
    flat = torch.zeros(2, layout.length)
    for values in layout.views(flat).values():
        values += 1
    assert flat.max() == 1 and int(flat[0].sum()) == layout.parameters
    assert layout.parameters == 12 * 9 + 9 + 9 + 9 * 6 + 6 + 6 + 6 + 1
    assert all(part.start % 16 == 0 for part in layout.parts.values()) and layout.length % 16 == 0


def test_rows_are_padded_to_whole_blocks() -> None:
    assert [rows + padding(rows) for rows in (1, 63, 64, 65, 96, 97)] == [64, 64, 64, 96, 96, 128]


@pytest.mark.parametrize(("name", "shape"), [("table", (MIXED.rows, 4)), ("dense", (7,)), ("dense", None)])
def test_tensors_of_another_shape_are_refused_by_name(name: str, shape: tuple[int, ...] | None) -> None:
    tensors = {"table": torch.zeros(MIXED.rows, 5), "dense": torch.zeros(Layout(MIXED, MODEL).length)}
    check_shapes(tensors, MIXED, MODEL)
    del tensors[name]
    if shape is not None:
        tensors[name] = torch.zeros(shape)
    with pytest.raises(ValueError, match=f"{name}: "):
        check_shapes(tensors, MIXED, MODEL)
