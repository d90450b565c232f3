"""Orders and slates against plain Python."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.randomness import generator
from simulator.types import Batch, order, slate
from tests.store.batches import batch, same

CANDIDATES = st.lists(
    st.tuples(st.sampled_from([-1.0, -0.0, 0.0, 0.5, 2.0]), st.integers(0, 10**9)), min_size=1, unique_by=lambda c: c[1]
)
"""(score, item) with few distinct scores, so that many are equal."""


def by_python(scores: list[float], items: list[int]) -> list[int]:
    """Indices of the candidates best first, equal scores by item number."""
    return sorted(range(len(items)), key=lambda index: (-scores[index], items[index]))


@given(CANDIDATES, st.integers(1, 5))
def test_a_slate_is_the_head_of_a_sort_by_score_then_item(candidates: list[tuple[float, int]], k: int) -> None:
    scores, items = [score for score, _ in candidates], [item for _, item in candidates]
    expected = by_python(scores, items)
    assert order(np.array(scores, np.float32), np.array(items)).tolist() == expected
    answer = slate(np.array(scores, np.float32), np.array(items), k)
    assert answer.items.tolist() == [items[index] for index in expected[:k]]
    assert answer.scores.tolist() == [scores[index] for index in expected[:k]]


@pytest.mark.parametrize("equal", ["none", "some", "most"])
def test_an_order_of_many_models_and_queries_is_that_of_each(equal: str) -> None:
    draws = generator(0, "test order")
    scores, items = draws.normal(size=(3, 4, 50)).astype(np.float32), np.stack([draws.permutation(99)[:50]] * 4)
    if equal == "some":
        scores[1, 2, :7] = scores[1, 2, 20]
    elif equal == "most":
        scores = draws.integers(0, 6, scores.shape).astype(np.float32)
    expected = [
        [by_python(row.tolist(), item.tolist()) for row, item in zip(each, items, strict=True)] for each in scores
    ]
    assert order(scores, items).tolist() == expected


def test_what_diverged_comes_last() -> None:
    scores = np.array([np.nan, 1, np.nan, 2], np.float32)
    assert order(scores, np.array([4, 3, 2, 1])).tolist() == [3, 1, 2, 0]


def test_events_without_a_weight_weigh_1_beside_those_that_have_one() -> None:
    weight = np.array([0.5, 2, 0], np.float32)
    plain, heavy = batch(0, 2), replace(batch(2, 3), weight=weight)
    both = Batch.concatenate([plain, heavy, plain])
    assert both.weight is not None and both.weight.tolist() == [1, 1, 0.5, 2, 0, 1, 1]
    assert same(both[2:5], heavy) and both.weight.dtype == np.float32
    assert Batch.concatenate([plain, plain]).weight is None and plain[:1].weight is None
