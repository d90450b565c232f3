"""Swap measures against double loops, SciPy's Kendall tau, and their properties."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from simulator import types
from simulator.measures import swaps

MEASURES = [swaps.slot_swaps, swaps.top1_swaps, swaps.set_swaps, swaps.rbo_distance]


@st.composite
def two_slates(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Two slates of equal length from a small catalogue, so that they share some items."""
    k = draw(st.integers(1, 8))
    catalogue = list(range(100, 100 + draw(st.integers(k, 2 * k))))
    return draw(st.permutations(catalogue))[:k], draw(st.permutations(catalogue))[:k]


@st.composite
def two_rankings(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Places of the same candidates in two strict rankings."""
    n = draw(st.integers(2, 12))
    return draw(st.permutations(range(n))), draw(st.permutations(range(n)))


def slow_pairs(above1: list[int], above2: list[int]) -> float:
    """Share of pairs of items whose order differs; both lists hold the same items, best first. NaN without pairs."""
    pairs = list(combinations(above1, 2))
    swapped = sum((above1.index(a) < above1.index(b)) != (above2.index(a) < above2.index(b)) for a, b in pairs)
    return swapped / len(pairs) if pairs else float("nan")


def slow_rbo(slate1: list[int], slate2: list[int], p: float) -> float:
    agreement = [len(set(slate1[:d]) & set(slate2[:d])) / d for d in range(1, len(slate1) + 1)]
    weight = [p ** (d - 1) for d in range(1, len(slate1) + 1)]
    return 1 - sum(w * a for w, a in zip(weight, agreement, strict=True)) / sum(weight)


@given(two_slates())
def test_slates_against_loops(slates: tuple[list[int], list[int]]) -> None:
    one, two = slates
    k = len(one)
    a, b = np.array([one]), np.array([two])
    assert swaps.slot_swaps(a, b)[0] == pytest.approx(sum(one[i] != two[i] for i in range(k)) / k)
    assert swaps.top1_swaps(a, b)[0] == (one[0] != two[0])
    assert swaps.set_swaps(a, b)[0] == pytest.approx(1 - len(set(one) & set(two)) / k)
    assert swaps.rbo_distance(a, b)[0] == pytest.approx(slow_rbo(one, two, 0.9), abs=1e-12)
    assert swaps.rbo_distance(a, b, p=0.5)[0] == pytest.approx(slow_rbo(one, two, 0.5), abs=1e-12)
    expected = slow_pairs([i for i in one if i in two], [i for i in two if i in one])
    swapped, shared = swaps.common_pairs(a, b)
    common = len(set(one) & set(two))
    assert shared[0] == common * (common - 1) / 2
    assert swapped[0] == (pytest.approx(expected * shared[0]) if shared[0] else 0)


@given(two_slates())
def test_slates_are_symmetric_and_in_range(slates: tuple[list[int], list[int]]) -> None:
    a, b = (np.array([slate]) for slate in slates)
    for measure in MEASURES:
        assert measure(a, b)[0] == pytest.approx(measure(b, a)[0], abs=1e-15)
        assert 0 <= measure(a, b)[0] <= 1
        assert measure(a, a)[0] == 0  # exactly
        assert measure(a, b + 1000)[0] == 1  # disjoint, exactly


def test_slates_of_many_queries_are_independent() -> None:
    """A whole array [2, 50, 6] gives what its slates give one by one."""
    draw = np.random.default_rng(1)
    a, b = (np.argsort(draw.random((2, 50, 9)), axis=-1)[..., :6] for _ in range(2))
    for measure in [*MEASURES, lambda a, b: swaps.common_pairs(a, b)[0]]:
        together = measure(a, b)
        assert together.shape == (2, 50) and together.dtype == np.float64
        alone = [[measure(a[x, y][None], b[x, y][None])[0] for y in range(50)] for x in range(2)]
        np.testing.assert_array_equal(together, alone)


def test_reversed_slate_swaps_every_common_pair() -> None:
    slate = np.array([[4, 8, 1, 9]])
    assert swaps.common_pairs(slate, slate[:, ::-1]) == (6, 6)
    assert swaps.set_swaps(slate, slate[:, ::-1])[0] == 0


@given(two_rankings())
def test_pair_swaps_against_loops_and_kendall(rankings: tuple[list[int], list[int]]) -> None:
    one, two = (np.array([places]) for places in rankings)
    share = swaps.pair_swaps(one, two)[0]
    assert share == pytest.approx(slow_pairs(list(np.argsort(one[0])), list(np.argsort(two[0]))))
    assert kendalltau(one[0], two[0]).statistic == pytest.approx(1 - 2 * share)
    assert share == swaps.pair_swaps(two, one)[0]
    assert swaps.pair_swaps(one, one)[0] == 0
    assert swaps.pair_swaps(one, one.max() - one)[0] == 1


def test_few_rankings_are_counted_as_many_are() -> None:
    rng = np.random.default_rng(0)
    one, two = (np.argsort(rng.random((swaps.FEW_RANKINGS + 5, 60))) for _ in range(2))
    few = [swaps.pair_swaps(one[n : n + 1], two[n : n + 1])[0] for n in range(len(one))]
    assert swaps.pair_swaps(one, two).tolist() == few and swaps.pair_swaps(one[:7], two[:7]).tolist() == few[:7]


@pytest.mark.parametrize("n", [2, 200, 256, 257, 300])
def test_pair_swaps_of_long_rankings(n: int) -> None:
    """Around the sizes where the counting type changes, and over several chunks, against Kendall's tau."""
    draw = np.random.default_rng(n)
    one, two = (draw.random((2, swaps.CHUNK // 2 + 3, n)).argsort(axis=-1).astype(np.int16) for _ in range(2))
    one[0, 0], two[0, 0] = np.arange(n), np.arange(n)[::-1]  # the most that one candidate can count
    share = swaps.pair_swaps(one, two)
    assert share.shape == one.shape[:-1] and share[0, 0] == 1
    for index in [(0, 1), (0, -1), (1, 0), (1, -1)]:
        assert kendalltau(one[index], two[index]).statistic == pytest.approx(1 - 2 * share[index])


def test_equal_scores_are_ordered_by_item_number() -> None:
    scores = np.array([[0.5, 0.9, 0.5, 0.9, -0.0, 0.0]], np.float32)
    items = np.array([[30, 20, 10, 40, 6, 5]])
    order = types.order(scores, items)
    np.testing.assert_array_equal(items[0, order[0]], [20, 40, 10, 30, 5, 6])
    np.testing.assert_array_equal(swaps.positions(order)[0], [3, 0, 2, 1, 5, 4])


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 99)), min_size=1, max_size=20, unique_by=lambda x: x[1]))
def test_order_against_sorted(candidates: list[tuple[int, int]]) -> None:
    scores, items = np.array([[float(s) for s, _ in candidates]]), np.array([i for _, i in candidates])
    expected = [item for _, item in sorted(candidates, key=lambda c: (-c[0], c[1]))]
    order = types.order(scores, items)
    assert list(items[order[0]]) == expected
    np.testing.assert_array_equal(np.argsort(swaps.positions(order)[0]), order[0])


def test_positions_of_many_candidates_do_not_overflow() -> None:
    order = np.arange(40_000)[::-1][None]
    assert swaps.positions(order)[0, 0] == 39_999


@given(two_rankings(), st.data())
def test_useful_swaps_against_loops(rankings: tuple[list[int], list[int]], data: st.DataObject) -> None:
    one, two = rankings
    n = len(one)
    truth = data.draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=n, max_size=n))
    useful = useless = 0.0
    for i, j in combinations(range(n), 2):
        if (one[i] < one[j]) == (two[i] < two[j]):
            continue
        above, below = (i, j) if two[i] < two[j] else (j, i)  # as model 2 has them
        useful += truth[above] > truth[below]
        useless += truth[above] <= truth[below]
    split = swaps.useful_swaps(np.array([one]), np.array([two]), np.array([truth]))
    pairs = n * (n - 1) / 2
    assert split[:, 0] == pytest.approx([useful / pairs, useless / pairs])
    assert split.sum(0) == pytest.approx(swaps.pair_swaps(np.array([one]), np.array([two])))


def test_useful_swaps_know_the_direction() -> None:
    """From the truth reversed to the truth every swap is useful; back again every one is useless."""
    truth = np.linspace(1, 0, 300)[None].repeat(2, axis=0).astype(np.float32)
    right = np.arange(300)[None].repeat(2, axis=0)
    there, back = swaps.useful_swaps(right[:, ::-1], right, truth), swaps.useful_swaps(right, right[:, ::-1], truth)
    assert (there.T == (1, 0)).all() and (back.T == (0, 1)).all()
