"""Intervals: they cover a known truth as often as they say, with few fleets and few duplicates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import pytest
from scipy.stats import t as student

from simulator.measures.intervals import (
    USER_GROUPS,
    Estimate,
    Resamples,
    difference,
    pair_index,
    ratio,
    student_quantile,
    sums_by_user,
)
from simulator.randomness import generator
from simulator.types import Interval

REPETITIONS = 200


@dataclass(frozen=True)
class Draw:
    """One made-up outcome of two matched arms whose mean is 1, as sums per user."""

    arms: list[np.ndarray]
    """Two arms of [F, P, U]."""
    weight: np.ndarray
    """Events per user [U]."""
    truth: list[float]
    """Of each arm: 1, or what the one fleet's initialisation makes of it."""


def crossed(draw: np.random.Generator, fleets: int, duplicates: int, users: int) -> Draw:
    """Fleet effects (half shared by the arms), duplicate effects in pairs, user effects (half shared), and noise."""
    first, second = pair_index(duplicates)
    weight = draw.integers(1, 10, users).astype(np.float64)
    shared_fleet, shared_user = draw.normal(size=fleets), draw.normal(size=users)
    arms, truth = [], []
    for _ in range(2):
        fleet = 0.15 * math.sqrt(0.5) * (shared_fleet + draw.normal(size=fleets))
        user = 0.5 * math.sqrt(0.5) * (shared_user + draw.normal(size=users))
        duplicate = 0.1 * draw.normal(size=(fleets, duplicates))
        model = 1 + fleet[:, None] + duplicate[:, first] + duplicate[:, second]
        arms.append(weight * (model[:, :, None] + user + 0.5 * draw.normal(size=(fleets, len(first), users))))
        truth.append(1 + float(fleet[0]) if fleets == 1 else 1.0)
    return Draw(arms, weight, truth)


@pytest.mark.parametrize(("fleets", "duplicates", "users"), [(3, 4, 100), (5, 3, 200), (2, 4, 100), (1, 4, 100)])
def test_coverage(fleets: int, duplicates: int, users: int) -> None:
    """95 % intervals of a mean, a ratio and a difference hold the truth in 90 to 99 % of the repetitions.

    With one fleet the truth is that of its initialisation.
    """
    draw = np.random.default_rng(fleets)
    hits = np.zeros(3)
    for repetition in range(REPETITIONS):
        outcome = crossed(draw, fleets, duplicates, users)
        resamples = Resamples(fleets, duplicates, users, repetitions=400, seed=repetition)
        a, b = (resamples.pairs(values, outcome.weight) for values in outcome.arms)
        over = ratio(a, b)
        assert over is not None
        truth = outcome.truth
        expected = [truth[0], truth[0] / truth[1], truth[0] - truth[1]]
        for i, interval in enumerate([a.interval(), over, difference(a, b)]):
            hits[i] += interval.low <= expected[i] <= interval.high
    assert (hits >= 0.90 * REPETITIONS).all() and (hits <= 0.99 * REPETITIONS).all(), hits / REPETITIONS


@pytest.mark.parametrize(("fleets", "duplicates"), [(4, 2), (1, 5)])
def test_coverage_of_single_models_with_and_without_users(fleets: int, duplicates: int) -> None:
    draw = np.random.default_rng(7)
    hits = np.zeros(2)
    for repetition in range(REPETITIONS):
        fleet = 0.1 * draw.normal(size=(fleets, 1))
        model = 1 + fleet + 0.1 * draw.normal(size=(fleets, duplicates))
        truth = 1 + float(fleet[0, 0]) if fleets == 1 else 1.0
        users = 0.3 * draw.normal(size=80) + draw.normal(size=(fleets, duplicates, 80))
        resamples = Resamples(fleets, duplicates, 80, repetitions=400, seed=repetition)
        by_user = resamples.models(model[:, :, None] + users, np.ones(80)).interval()
        whole = resamples.aggregates(model).interval()
        hits += [interval.low <= truth <= interval.high for interval in (by_user, whole)]
    assert (hits >= 0.90 * REPETITIONS).all() and (hits <= 0.99 * REPETITIONS).all(), hits / REPETITIONS


def test_few_clusters_without_users_give_the_t_interval() -> None:
    """Oracle: mean -+ t s / sqrt(n), the textbook interval of a mean, for fleets and for duplicates."""
    for values in (np.array([[1.0, 3.0], [2.0, 2.5], [0.5, 0.7]]), np.array([[1.0, 3.0, 2.0, 5.0]])):
        got = Resamples(*values.shape, users=1, repetitions=20_000).aggregates(values).interval(minimum=-math.inf)
        units = values.mean(axis=1) if len(values) > 1 else values[0]
        half = student.ppf(0.975, len(units) - 1) * units.std(ddof=1) / math.sqrt(len(units))
        assert got.mean == pytest.approx(units.mean())
        assert got.high - got.mean == pytest.approx(half, rel=0.03)
        assert got.mean - got.low == pytest.approx(half, rel=0.03)


def test_many_users_give_the_normal_interval_of_a_ratio_of_sums() -> None:
    """One pair of duplicates of one fleet: users only, also where they are resampled in groups."""
    draw = np.random.default_rng(0)
    users = 3 * USER_GROUPS + 11
    weight = draw.integers(0, 5, users).astype(np.float64)
    values = weight * draw.random(users)
    mean = values.sum() / weight.sum()
    half = 1.96 * math.sqrt(((values - mean * weight) ** 2).sum()) / weight.sum()
    resamples = Resamples(1, 2, users)
    got = resamples.pairs(values[None, None], weight).interval()
    assert got.mean == pytest.approx(mean)
    assert got.high - got.low == pytest.approx(2 * half, rel=0.08)
    assert "users only" in resamples.covers


def test_additive_duplicates_give_the_interval_of_their_mean() -> None:
    """Pairs whose value is a_r + a_s: the mean over pairs is 2 mean(a), and so is its interval."""
    a = np.array([0.1, 0.5, 0.3, 0.9])
    first, second = pair_index(4)
    got = Resamples(1, 4, 1, repetitions=20_000).pairs((a[first] + a[second])[None, :, None], np.ones(1)).interval(-9)
    half = 2 * student.ppf(0.975, 3) * a.std(ddof=1) / 2
    assert got.mean == pytest.approx(2 * a.mean())
    assert got.high - got.mean == pytest.approx(half, rel=0.03)


def test_noise_is_counted_once() -> None:
    """Pure noise is in the spread of fleets and in that of users: the interval is that of the fleets' means alone."""
    draw = np.random.default_rng(0)
    squares = []
    for seed in range(40):
        values = 1 + draw.normal(size=(6, 2, 300))
        squares.append(Resamples(6, 2, 300, 400, seed).models(values, np.ones(300)).half_width() ** 2)
    expected = student.ppf(0.975, 5) ** 2 / (6 * 2 * 300)
    assert np.mean(squares) == pytest.approx(expected, rel=0.25)


def test_fleets_that_agree_by_chance_leave_the_spread_between_users() -> None:
    users = np.random.default_rng(0).random(400)
    values = np.stack([users, users[::-1]])[:, None]  # equal means, unrelated users
    half = Resamples(2, 2, 400).pairs(values, np.ones(400)).half_width()
    assert half == pytest.approx(1.96 * values.mean(axis=0).std() / 20, rel=0.1)


def test_ordered_pairs_agree_with_unordered_ones_where_the_measure_is_symmetric() -> None:
    draw = np.random.default_rng(0)
    for fleets in (1, 3):
        values = draw.random((fleets, 6, 50))
        first, second = pair_index(4)
        both = (np.concatenate([first, second]), np.concatenate([second, first]))
        resamples = Resamples(fleets, 4, 50)
        one = resamples.pairs(values, np.ones(50)).interval()
        two = resamples.pairs(np.concatenate([values, values], axis=1), np.ones(50), both).interval()
        assert one.as_dict() == pytest.approx(two.as_dict())


def test_nothing_but_zeros_is_exactly_zero() -> None:
    for fleets in (1, 3):
        resamples = Resamples(fleets, 4, 30)
        zero = resamples.pairs(np.zeros((fleets, 6, 30)), np.ones(30))
        some = resamples.pairs(np.ones((fleets, 6, 30)), np.ones(30))
        assert zero.interval() == Interval(0.0, 0.0, 0.0)
        assert ratio(zero, some) == Interval(0.0, 0.0, 0.0)
        assert ratio(some, zero) is None and ratio(zero, zero) is None
        assert difference(zero, zero) == Interval(0.0, 0.0, 0.0)


def test_ratio_of_an_estimate_to_itself_is_one_and_to_its_multiple_has_no_width() -> None:
    """Paired: what both share cancels, however much it varies."""
    values = np.random.default_rng(0).random((3, 6, 40))
    resamples = Resamples(3, 4, 40)
    a, b = resamples.pairs(values, np.ones(40)), resamples.pairs(values / 2, np.ones(40))
    assert ratio(a, a) == Interval(1.0, 1.0, 1.0)
    half = ratio(b, a)
    assert half is not None and half.as_dict() == pytest.approx({"mean": 0.5, "low": 0.5, "high": 0.5})


def test_limits_stay_inside_the_range_of_the_measure() -> None:
    estimate = Resamples(2, 2, 1).aggregates(np.array([[0.1, 0.1], [0.9, 0.9]]))
    assert estimate.interval(maximum=1.0) == Interval(0.5, 0.0, 1.0)
    assert estimate.interval(minimum=-math.inf).low < 0
    narrow = Estimate(0.5, np.zeros((3, 10)), 3, 3).interval()
    assert narrow == Interval(0.5, 0.5, 0.5)


def test_users_without_weight_and_the_order_of_calls_do_not_matter() -> None:
    draw = np.random.default_rng(0)
    weight = np.array([2.0, 0.0, 1.0, 3.0, 0.0, 1.0])
    values = draw.random((2, 3, 6)) * weight
    resamples, again = Resamples(2, 3, 6, seed=4), Resamples(2, 3, 6, seed=4)
    again.models(np.ones((2, 3, 6)), np.ones(6))
    got = resamples.pairs(values, weight).interval()
    assert got == again.pairs(values, weight).interval()
    assert got == resamples.pairs(values, np.broadcast_to(weight, (2, 6))).interval()
    assert got.mean == pytest.approx(values.sum() / (2 * 3 * weight.sum()))
    assert got != Resamples(2, 3, 6, seed=5).pairs(values, weight).interval()


def test_sums_by_user() -> None:
    user = np.array([2, 0, 2, 1])
    values = np.array([[[1.0, 2.0, 3.0, 4.0]], [[0.5, 0.0, 0.5, 1.0]]], np.float32)
    np.testing.assert_array_equal(sums_by_user(values, user, 4), [[[2, 4, 4, 0]], [[0, 1, 1, 0]]])


def test_student_quantile_against_scipy() -> None:
    for freedom in (1, 1.5, 2, 3, 4.7, 10, 99, 4095, 9999):
        for probability in (0.5, 0.9, 0.975, 0.995):
            assert student_quantile(probability, freedom) == pytest.approx(student.ppf(probability, freedom), rel=1e-4)


@pytest.mark.parametrize(("duplicates", "partners"), [(6, 4), (7, 2), (7, 6), (8, 6), (30, 20), (31, 2)])
def test_a_sample_of_pairs_has_each_duplicate_in_equally_many(duplicates: int, partners: int) -> None:
    first, second = pair_index(duplicates, partners, seed=3)
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    assert pairs == sorted(set(pairs)) and (first < second).all()
    assert np.bincount([*first, *second]).tolist() == [partners] * duplicates
    other = pair_index(duplicates, partners, seed=4)
    assert (partners == duplicates - 1) == all(map(np.array_equal, (first, second), other))


def test_few_duplicates_are_all_compared() -> None:
    for duplicates in (2, 5, 21):
        assert all(map(np.array_equal, pair_index(duplicates, 20, seed=1), pair_index(duplicates)))


@pytest.mark.parametrize("fleets", [1, 3])
def test_intervals_of_a_sample_of_pairs_cover_as_those_of_all(fleets: int) -> None:
    """Values are what each duplicate adds, and noise of the pair; with one fleet a little wider, never narrower."""
    draws, duplicates, inside, widths = generator(11, "sampled pairs"), 24, list[bool](), list[float]()
    for number in range(150):
        own = draws.normal(size=(fleets, duplicates))
        between = draws.normal(scale=0.3, size=(fleets, duplicates, duplicates))
        halves = []
        for partners in (None, 6):
            index = pair_index(duplicates, partners, seed=number)
            values = 5 + own[:, index[0]] + own[:, index[1]] + between[:, index[0], index[1]]
            found = Resamples(fleets, duplicates, 1, repetitions=200, seed=number)
            interval = found.pairs(values[..., None], np.ones(1), index).interval(-99)
            halves.append(interval.high - interval.low)
        inside.append(interval.low < 5 < interval.high)
        widths.append(halves[1] / halves[0])
    assert fmean(inside) > 0.9 and 0.95 < fmean(widths) < 1.35
