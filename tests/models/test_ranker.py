"""The serving path against the plain one: the same scores, and every parameter of a snapshot really used."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from simulator.config import ModelConfig, NoiseConfig, SyntheticConfig
from simulator.models.duplicates import Duplicates, parse_arms
from simulator.models.memory import Recycled
from simulator.models.ranker import Ranker, rankers
from simulator.models.ranking import score_events, score_queries, slate
from simulator.types import Field, Floats, Query, Schema
from simulator.world.features import Encoder
from simulator.world.stream import SyntheticWorld

SPECS = ["relu", "smelu:beta=1", "gelu", "gsmelu:alpha=1,beta=2", "linear"]
TOLERANCE = 2e-5
"""Of log-odds: sums in another order."""
WORLD = SyntheticWorld(SyntheticConfig(events=3_000, users=50, items=60), seed=3)
QUERIES = WORLD.queries(8, 20, 2_000, "test")


def trained(norm: str, compile: str = "auto") -> Duplicates:
    """One duplicate of each arm whose parameters are all away from their start (zeros and ones hide mistakes)."""
    model = ModelConfig(dim=4, hidden=(12, 6), norm=norm, compile=compile)  # type: ignore[arg-type]
    stack = Duplicates(WORLD.schema, parse_arms(tuple(SPECS)), model, NoiseConfig(), fleets=1, duplicates=1, seed=5)
    generator = torch.Generator().manual_seed(1)
    stack.dense += torch.randn(stack.dense.shape, generator=generator) * 0.3
    stack.embedding[:, 1:] += torch.randn(stack.embedding[:, 1:].shape, generator=generator) * 0.3
    return stack


def ranker(stack: Duplicates) -> Ranker:
    tensors = {"embedding": stack.embedding, "dense": stack.dense}
    return Ranker(WORLD.schema, SPECS, stack.model, tensors, WORLD.encoder.user_rows, WORLD.encoder.item_rows)


def scores(ranker: Ranker, arm: int, queries: list[Query] = QUERIES) -> Floats:
    users, contexts = np.array([q.user for q in queries]), np.array([q.context for q in queries], np.int32)
    return ranker.scores(arm, users, contexts, np.stack([q.candidates for q in queries]))


@pytest.mark.parametrize("compile", ["auto", "off"])
@pytest.mark.parametrize("norm", ["none", "before", "after", "weight"])
def test_scores_and_slates_are_those_of_the_whole_network(norm: str, compile: str) -> None:
    stack = trained(norm, compile)
    plain = score_queries(stack, QUERIES)
    for arm in range(len(SPECS)):
        found = scores(ranker(stack), arm)
        np.testing.assert_allclose(found, plain[arm], rtol=0, atol=TOLERANCE)
        for query, ours, theirs in zip(QUERIES, found, plain[arm], strict=True):
            assert (
                slate(ours, query.candidates, 10).items.tolist() == slate(theirs, query.candidates, 10).items.tolist()
            )


@pytest.mark.parametrize("compile", ["auto", "off"])
def test_threads_that_score_at_once_do_not_disturb_one_another(compile: str) -> None:
    shared = ranker(trained("after", compile))
    parts = [QUERIES[start::4] for start in range(4)]
    alone = [[scores(shared, arm, part) for part in parts] for arm in range(len(SPECS))]

    def ask(number: int) -> bool:
        arm, part = number % len(SPECS), number % len(parts)
        return all(np.array_equal(scores(shared, arm, parts[part]), alone[arm][part]) for _ in range(30))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(24)))


@pytest.mark.parametrize("compile", ["auto", "off"])
def test_a_generation_in_the_memory_of_an_older_one_changes_none_that_lives(compile: str) -> None:
    make, stack = rankers(), trained("after", compile)

    def next_one() -> Ranker:
        stack.dense.mul_(1.01)
        stack.embedding.mul_(0.99)
        weights = {"embedding": stack.embedding.clone(), "dense": stack.dense.clone()}
        return make(WORLD.schema, SPECS, stack.model, weights, WORLD.encoder.user_rows, WORLD.encoder.item_rows)

    kept = [next_one(), next_one()]
    expected = [scores(one, 1) for one in kept]
    for _ in range(4):
        kept.append(next_one())
        expected.append(score_queries(stack, QUERIES)[1])
        for one, known in zip(kept, expected, strict=True):
            np.testing.assert_allclose(scores(one, 1), known, rtol=0, atol=TOLERANCE)
        del kept[0], expected[0]


def test_memory_is_used_again_once_no_view_of_it_is_left() -> None:
    empty = Recycled()
    first = empty(3, 4)
    place, row = first.data_ptr(), first[1]
    del first
    assert empty(3, 4).data_ptr() != place  # a row of it is still there
    del row
    again = empty(4, 3)
    assert again.data_ptr() == place and again.shape == (4, 3)
    assert empty(5, 5).shape == (5, 5)


@pytest.mark.parametrize("compile", ["auto", "off"])
@pytest.mark.parametrize("norm", ["none", "before", "after", "weight"])
def test_every_parameter_of_a_snapshot_is_used(norm: str, compile: str) -> None:
    """Each element of each dense tensor, one by one; compilers like to bake in those that have one element."""
    stack = trained(norm, compile)
    before = scores(ranker(stack), 1)
    for part in stack.layout.parts.values():
        for element in range(part.start, part.start + part.size):
            kept = float(stack.dense[1, element])
            stack.dense[1, element] = kept + 0.5
            plain, found = score_queries(stack, QUERIES)[1], scores(ranker(stack), 1)
            np.testing.assert_allclose(found, plain, rtol=0, atol=TOLERANCE, err_msg=part.name)
            assert np.abs(plain - before).max() < 10 * TOLERANCE or np.abs(found - before).max() > 5 * TOLERANCE
            if part.name == "bias_out":
                np.testing.assert_allclose(plain, before + 0.5, rtol=0, atol=TOLERANCE)
            stack.dense[1, element] = kept


@pytest.mark.parametrize("compile", ["auto", "off"])
def test_every_table_of_a_snapshot_is_used(compile: str) -> None:
    """The vectors of each field in turn are others; so are then all scores, and as the whole network says."""
    stack = trained("after", compile)
    before = scores(ranker(stack), 1)
    for field in stack.schema.fields:
        first = stack.schema.first_row(field.name)
        rows = slice(first, first + field.vocabulary)
        stack.embedding[1, rows] += 0.5
        found = scores(ranker(stack), 1)
        np.testing.assert_allclose(found, score_queries(stack, QUERIES)[1], rtol=0, atol=TOLERANCE)
        assert (found != before).all(), field.name
        before = found


def test_another_shape_is_refused() -> None:
    stack = trained("after")
    tensors = {"embedding": stack.embedding[:, :-1], "dense": stack.dense}
    with pytest.raises(ValueError, match="embedding"):
        Ranker(WORLD.schema, SPECS, stack.model, tensors, WORLD.encoder.user_rows, WORLD.encoder.item_rows)


def test_a_world_without_context_is_served_too() -> None:
    schema = Schema((Field("user", "user", 5), Field("item", "item", 7), Field("tags", "item", 3, slots=2)))
    rng = np.random.default_rng(0)
    users = np.arange(1, 6, dtype=np.int32)[:, None]
    items = np.column_stack([np.arange(6, 13), rng.integers(13, 16, 7), np.zeros(7)]).astype(np.int32)
    encoder = Encoder(schema, users, items)
    model = ModelConfig(dim=4, hidden=(6,))
    stack = Duplicates(schema, parse_arms(("relu",)), model, NoiseConfig(), fleets=1, duplicates=1, seed=0)
    ranker = Ranker(schema, ["relu"], model, {"embedding": stack.embedding, "dense": stack.dense}, users, items)
    asked, candidates = np.array([0, 4]), np.array([[0, 3, 6], [1, 2, 5]])
    nothing = np.empty((2, 0), np.int32)
    plain = [score_events(stack, encoder.candidates(int(u), c, ()))[0] for u, c in zip(asked, candidates, strict=True)]
    np.testing.assert_allclose(ranker.scores(0, asked, nothing, candidates), np.stack(plain), rtol=0, atol=TOLERANCE)
