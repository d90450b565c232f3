"""Relative prediction difference and its split in ranking part and common shift."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit

from simulator.measures.differences import pd_of_logits, ranking_pd
from simulator.measures.registry import DIFFERENCES
from simulator.measures.swaps import pair_swaps, positions
from simulator.types import order
from tests.measures.formula import relative_pd

LOGITS = arrays(np.float64, 7, elements=st.floats(-1000, 1000))


def test_relative_pd_by_hand() -> None:
    p1, p2 = np.array([0.1, 0.5, 0.0, 0.0, 1.0]), np.array([0.3, 0.5, 0.0, 0.2, 0.5])
    np.testing.assert_allclose(relative_pd(p1, p2), [1.0, 0.0, 0.0, 2.0, 2 / 3])


@given(arrays(np.float64, 5, elements=st.floats(0, 1)), arrays(np.float64, 5, elements=st.floats(0, 1)))
def test_relative_pd_properties(p1: np.ndarray, p2: np.ndarray) -> None:
    pd = relative_pd(p1, p2)
    assert (pd >= 0).all() and (pd <= 2 + 1e-12).all()
    np.testing.assert_array_equal(pd, relative_pd(p2, p1))
    np.testing.assert_array_equal(relative_pd(p1, p1), 0)
    mean = (p1 + p2) / 2
    to_the_mean = (np.abs(p1 - mean) + np.abs(p2 - mean)) / 2 / np.where(mean > 1e-300, mean, 1)
    normal = mean > 1e-300
    np.testing.assert_allclose(to_the_mean[normal], pd[normal] / 2, rtol=1e-9, atol=1e-9)


def test_total_is_the_pd_of_the_probabilities() -> None:
    draw = np.random.default_rng(0)
    x1, x2 = draw.normal(size=(2, 1000)) * 3
    np.testing.assert_allclose(pd_of_logits(x1, x2), relative_pd(expit(x1), expit(x2)), rtol=1e-10, atol=1e-15)


def test_ranking_part_by_definition() -> None:
    draw = np.random.default_rng(0)
    x1, x2 = draw.normal(size=(2, 3, 500)) * 2
    x2 += 0.7
    ranking = ranking_pd(x1, x2)
    for row in range(3):  # every row of examples has its own means
        m1, m2 = x1[row].mean(), x2[row].mean()
        m = (m1 + m2) / 2
        expected = relative_pd(expit(x1[row] - m1 + m), expit(x2[row] - m2 + m))
        np.testing.assert_allclose(ranking[row], expected, rtol=1e-9, atol=1e-14)
    shift = DIFFERENCES["pd_shift"].fn(x1, x2)
    np.testing.assert_array_equal(shift, pd_of_logits(x1, x2) - ranking)
    assert shift.mean() > 0


@given(arrays(np.float64, 7, elements=st.floats(-30, 30)), st.floats(-5, 5))
def test_pure_shift_has_no_ranking_part_and_swaps_nothing(logits: np.ndarray, shift: float) -> None:
    logits = np.round(logits, 3)  # so that the shift does not merge scores that differ
    np.testing.assert_allclose(ranking_pd(logits, logits + shift), 0, atol=1e-12)
    np.testing.assert_allclose(
        DIFFERENCES["pd_shift"].fn(logits, logits + shift),
        relative_pd(expit(logits), expit(logits + shift)),
        atol=1e-12,
    )
    places = [positions(order(np.round(x, 6)[None], np.arange(7)[None])) for x in (logits, logits + round(shift, 3))]
    assert pair_swaps(*places)[0] == 0


@given(LOGITS, LOGITS)
def test_extreme_logits_stay_finite(x1: np.ndarray, x2: np.ndarray) -> None:
    for part in (pd_of_logits, ranking_pd):
        found = part(x1, x2)
        assert np.isfinite(found).all() and (found >= 0).all() and (found <= 2).all()
        assert (part(x1, x1) == 0).all()


@pytest.mark.parametrize("apart", [1.0, 1e-3, 1e-9])
def test_models_however_near_differ_by_the_exact_amount(apart: float) -> None:
    """Against 50 digits: probabilities that agree in all but their last digits."""
    draw = np.random.default_rng(0)
    x1 = draw.normal(size=100) * 10
    x2 = x1 + draw.normal(size=100) * apart
    with localcontext() as context:
        context.prec = 50
        p1, p2 = ([1 / (1 + (-Decimal(x)).exp()) for x in row.tolist()] for row in (x1, x2))
        expected = [float(2 * abs(a - b) / (a + b)) for a, b in zip(p1, p2, strict=True)]
    np.testing.assert_allclose(pd_of_logits(x1, x2), expected, rtol=1e-14)


def test_probabilities_that_underflow_still_differ() -> None:
    """p1 / p2 = e at log-odds -800 and -801, where both probabilities are 0 in double precision."""
    e = np.e
    assert pd_of_logits(np.array([-800.0]), np.array([-801.0]))[0] == pytest.approx(2 * (e - 1) / (e + 1))
