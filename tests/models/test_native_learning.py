"""The native model and scorer against the same written plainly, with autograd in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from simulator.config import ModelConfig
from simulator.models.activations import activation
from simulator.models.click_model import Layout
from simulator.models.engine import Weights
from simulator.models.native_engine import Kernel, NativeModel, NativeScorer, kernel_of, missing
from simulator.randomness import generator
from simulator.types import Batch, Schema
from tests.models import reference
from tests.models.conftest import MIXED, MODEL, SINGLE, make_events

if missing():
    pytest.skip(missing(), allow_module_level=True)

TOLERANCE = 5e-5
"""Of log-odds and weights after some 40 steps; measured at 3e-6 or less."""


class Both:
    """A native model and its reference, with equal weights."""

    def __init__(self, spec: str, config: ModelConfig = MODEL, schema: Schema = MIXED) -> None:
        draws, layout = generator(3, "native"), Layout(schema, config)
        table = torch.from_numpy(draws.standard_normal((schema.rows, config.dim), dtype="float32")) * 0.3
        table[0] = 0
        self.schema, self.config, self.layout = schema, config, layout
        self.weights = Weights({"dense": layout.initial(lambda name: generator(3, name)), "table": table})
        sizes, start = {"dense": layout.length, "table": schema.rows}, config.initial_accumulator
        self.squares = Weights({name: torch.full((size,), start) for name, size in sizes.items()})
        self.dense = {name: part[0] for name, part in layout.views(self.weights.dense[None]).items()}
        self.native = NativeModel(schema, config, layout, activation(spec))
        self.plain = reference.LoneLearner(schema, config, spec, table, self.dense)

    def learn(self, events: Batch, lost: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Log-odds by both, of mini-batches in a row; those `lost` are scored only."""
        rows, labels = torch.from_numpy(events.features), torch.from_numpy(events.label)
        steps = range(-(-len(rows) // self.config.batch))
        dropped = torch.tensor([step in lost for step in steps])
        ours, theirs = self.native.learn(self.weights, self.squares, rows, labels, dropped), []
        for step, (some, towards) in enumerate(zip(*(t.split(self.config.batch) for t in (rows, labels)), strict=True)):
            logits, gradients = self.plain.gradient(some.long(), towards)
            theirs.append(logits)
            if step not in lost:
                self.plain.apply(some.long(), gradients)
        return ours, torch.cat(theirs)

    def check(self, tolerance: float = TOLERANCE) -> None:
        """That they have learned the same."""
        pairs = [(self.weights.table, self.plain.embedding.weight), (self.squares.table[1:], self.plain.squares[1:])]
        pairs += [(self.dense[name], self.plain.dense[name]) for name in self.dense]
        for ours, theirs in pairs:
            torch.testing.assert_close(ours.double(), theirs.detach(), rtol=20 * tolerance, atol=tolerance)
        assert not self.weights.table[0].any(), "padding learns nothing"


@pytest.mark.parametrize("norm", ["none", "before", "after"])
@pytest.mark.parametrize("spec", list(reference.FORMULAS))
def test_every_activation_learns_by_its_formula(spec: str, norm: Any) -> None:
    both = Both(spec, replace(MODEL, norm=norm))
    for start, count, lost in ((0, 160, (3, 7)), (1_000, 155, ())):  # the last mini-batch is a short one
        ours, theirs = both.learn(make_events(MIXED, count, start=start), lost)
        torch.testing.assert_close(ours.double(), theirs, rtol=TOLERANCE, atol=TOLERANCE)
    both.check()


@given(
    dim=st.sampled_from([1, 2, 7, 16, 17]),
    hidden=st.lists(st.sampled_from([1, 5, 16, 33, 65]), min_size=1, max_size=4).map(tuple),
    batch=st.sampled_from([1, 3, 50]),
    norm=st.sampled_from(["none", "before", "after"]),
    schema=st.sampled_from([MIXED, SINGLE]),
)
@settings(max_examples=20, deadline=None)
def test_any_shape(dim: int, hidden: tuple[int, ...], batch: int, norm: Any, schema: Schema) -> None:
    if norm != "none" and min(hidden) == 1:
        norm = "none"  # of one number alone only rounding is left
    both = Both("smelu", ModelConfig(dim=dim, hidden=hidden, batch=batch, norm=norm), schema)
    ours, theirs = both.learn(make_events(schema, 60))
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-3, atol=1e-3)
    rows = torch.from_numpy(make_events(schema, 31, start=500).features)
    expected = both.plain.predict(rows.long()).detach()
    torch.testing.assert_close(both.native.score(both.weights, rows).double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("row", [MIXED.rows, -1, 2**31 - 1, -(2**31)])
def test_a_row_outside_the_table_is_an_error_and_nothing_is_learned(row: int) -> None:
    both, events = Both("relu"), make_events(MIXED, 20)
    before = [part.clone() for each in (both.weights, both.squares) for part in (each.dense, each.table)]
    events.features[13, 2] = row
    with pytest.raises(ValueError, match=f"table row {row}, of event 13, is none of the table's {MIXED.rows} rows"):
        both.learn(events)
    with pytest.raises(ValueError, match=f"table row {row}, of event 13"):
        both.native.score(both.weights, torch.from_numpy(events.features))
    after = [part for each in (both.weights, both.squares) for part in (each.dense, each.table)]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


Score = Callable[[slice, slice], np.ndarray[Any, Any]]


def scorer(spec: str, config: ModelConfig, users: int = 9, queries: int = 7) -> tuple[Score, Any]:
    """What scores some of the queries' candidates; the log-odds of all of them [Q, N] by the reference."""
    schema, both, draws = MIXED, Both(spec, config), generator(5, "scoring")
    events = make_events(schema, 60)
    catalog = torch.from_numpy(events.features)
    user_rows = torch.arange(1, users + 1, dtype=torch.int32)[:, None]
    context = catalog[:queries, -1:].numpy()
    who = draws.integers(0, users, queries)
    items = draws.integers(0, len(catalog), (queries, 150))
    rows = catalog[torch.from_numpy(items)].clone()  # [Q, N, S] with the query's user and context
    rows[..., :1], rows[..., -1:] = user_rows[who][:, None], torch.from_numpy(context)[:, None]
    expected = both.plain.predict(rows.flatten(0, 1).long()).view(items.shape).detach()

    w, table, dim = both.dense, both.weights.table, config.dim
    pooled = reference.pool(table.double(), catalog.long(), schema)
    side = torch.tensor([field.side == "item" for field in schema.fields]).repeat_interleave(dim)
    part = (pooled[:, side] @ w["weight0"].double()[side]).float()
    layers = [(w[f"weight{n}"], w[f"bias{n}"], w.get(f"gain{n}")) for n in range(len(config.hidden))]
    query = table, user_rows, torch.tensor([0, 1]), w["weight0"][~side]
    function = kernel_of(activation(spec))
    assert isinstance(function, Kernel)
    native = NativeScorer(function, config.norm, layers, (w["weight_out"], w["bias_out"]), part, query, 1)
    return lambda q, n: native.scores(who[q], context[q], items[q, n]), expected


@pytest.mark.parametrize("norm", ["none", "before", "after"])
@pytest.mark.parametrize("spec", list(reference.FORMULAS))
def test_candidates_get_the_scores_of_the_whole_network(spec: str, norm: Any) -> None:
    score, expected = scorer(spec, replace(MODEL, hidden=(24, 33, 15), norm=norm))
    scores = torch.from_numpy(score(slice(None), slice(None)))
    torch.testing.assert_close(scores.double(), expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_a_score_does_not_depend_on_what_else_is_scored() -> None:
    score, _ = scorer("smelu", replace(MODEL, hidden=(24, 33, 15), norm="after"))
    together = score(slice(None), slice(None))
    for start, stop in ((0, 1), (3, 5), (40, 147), (149, 150)):
        np.testing.assert_array_equal(score(slice(2, 4), slice(start, stop)), together[2:4, start:stop])
