"""Scores, orders and slates against plain Python."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from simulator.models.ranking import score_events, score_queries, slate

from simulator.models import ranking
from simulator.randomness import generator
from simulator.types import Query, order
from tests.models.conftest import MIXED, make_events, make_stack

CANDIDATES = st.lists(
    st.tuples(st.sampled_from([-1.0, -0.0, 0.0, 0.5, 2.0]), st.integers(0, 10**9)), min_size=1, unique_by=lambda c: c[1]
)
"""(score, item) with few distinct scores, so that many are equal."""


def by_python(scores: list[float], items: list[int]) -> list[int]:
    """Indices of the candidates best first, equal scores by item number."""
    return sorted(range(len(items)), key=lambda index: (-scores[index], items[index]))


def make_query(number: int, count: int) -> Query:
    """A query with `count` distinct candidates."""
    items = generator(number, "test query").permutation(1_000)[:count]
    features = make_events(MIXED, count, seed=number).features
    return Query(number, 0, 0.0, (), items, features, np.zeros(count, np.float32))


@given(CANDIDATES)
def test_order_is_a_sort_by_score_then_item(candidates: list[tuple[float, int]]) -> None:
    scores, items = [score for score, _ in candidates], [item for _, item in candidates]
    best = order(np.array(scores, np.float32), np.array(items))
    assert best.tolist() == by_python(scores, items)


def test_order_of_many_models_and_queries_at_once() -> None:
    draws = generator(0, "scores")
    scores = draws.integers(0, 6, (3, 4, 50)).astype(np.float32)
    items = np.stack([draws.permutation(1_000)[:50] for _ in range(4)])
    best = order(scores, items)
    for model in range(3):
        for query in range(4):
            assert best[model, query].tolist() == by_python(scores[model, query].tolist(), items[query].tolist())


@given(CANDIDATES, st.integers(1, 5))
def test_a_slate_is_the_head_of_the_order(candidates: list[tuple[float, int]], k: int) -> None:
    scores, items = [score for score, _ in candidates], [item for _, item in candidates]
    answer = slate(np.array(scores, np.float32), np.array(items), k)
    head = by_python(scores, items)[:k]
    assert answer.items.tolist() == [items[index] for index in head]
    assert answer.scores.tolist() == [scores[index] for index in head]


@pytest.mark.parametrize("size", [1, 7, 30, 2_048])
def test_scores_do_not_depend_on_how_many_events_share_a_pass(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "EVENTS_PER_PASS", size)
    stack = make_stack("relu", "gelu")
    features = make_events(MIXED, 30).features
    rows = torch.from_numpy(features)[None]
    expected = torch.cat([stack.logits(slab, rows) for slab in stack.slabs]).numpy()
    scores = score_events(stack, features)
    assert scores.shape == (4, 30)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)


def test_queries_are_scored_candidate_by_candidate() -> None:
    stack = make_stack()
    queries = [make_query(number, 12) for number in range(3)]
    scores = score_queries(stack, queries)
    assert scores.shape == (2, 3, 12)
    for number, query in enumerate(queries):
        np.testing.assert_allclose(scores[:, number], score_events(stack, query.features), rtol=1e-5, atol=1e-6)


def test_scoring_teaches_nothing() -> None:
    stack = make_stack()
    table, dense = stack.embedding.clone(), stack.dense.clone()
    score_events(stack, make_events(MIXED, 20).features)
    assert torch.equal(stack.embedding, table) and torch.equal(stack.dense, dense)


@pytest.mark.parametrize("equal", [False, True])
def test_an_order_of_many_rows_is_that_of_each(equal: bool) -> None:
    draws = generator(0, "test order")
    scores, items = draws.normal(size=(3, 4, 50)).astype(np.float32), np.stack([draws.permutation(99)[:50]] * 4)
    scores[1, 2, :7] = scores[1, 2, 20] if equal else scores[1, 2, :7]
    expected = [
        [by_python(row.tolist(), item.tolist()) for row, item in zip(each, items, strict=True)] for each in scores
    ]
    assert order(scores, items).tolist() == expected


def test_what_diverged_comes_last() -> None:
    scores = np.array([np.nan, 1, np.nan, 2], np.float32)
    assert order(scores, np.array([4, 3, 2, 1])).tolist() == [3, 1, 2, 0]


def test_a_pass_on_a_gpu_holds_fewer_events_the_more_models_score_them() -> None:
    gpu = torch.device("cuda")
    assert [ranking.events_per_pass(gpu, models) for models in (1, 8, 64, 4_096)] == [1 << 20, 131_072, 16_384, 2_048]
    assert ranking.events_per_pass(torch.device("cpu"), 1) == ranking.EVENTS_PER_PASS
