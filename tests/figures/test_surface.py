"""Local minima, counted on surfaces whose number is known."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.figures.surface import _slice, claim, local_minima
from simulator.measures.intervals import Interval

STEPS = np.linspace(-1, 1, 101)
X, Y = np.meshgrid(STEPS, STEPS, indexing="ij")


@pytest.mark.parametrize(
    ("surface", "count"),
    [
        (X**2 + Y**2, 1),
        ((X**2 - 0.25) ** 2 + Y**2, 2),
        (np.cos(4 * np.pi * X + 0.1) + np.cos(2 * np.pi * Y + 0.1), 4 * 2),
        (X + Y, 0),
        (X**2 - Y**2, 0),
        (np.zeros_like(X), 0),
    ],
)
def test_minima_are_counted(surface: np.ndarray, count: int) -> None:
    assert len(local_minima(surface)) == count


def test_minima_are_where_they_are() -> None:
    ((i, j),) = local_minima((X - 0.3) ** 2 + (Y + 0.5) ** 2)
    assert (STEPS[i], STEPS[j]) == pytest.approx((0.3, -0.5))


def test_a_slice_is_the_same_every_time_and_smelu_at_0_is_relu() -> None:
    assert np.array_equal(_slice(0, 1.0), _slice(0, 1.0))
    assert np.allclose(_slice(0, 0.0), _slice(0, 1e-5), atol=1e-3)


def test_the_claim_follows_the_counts() -> None:
    fall = [Interval(6, 5, 7), Interval(4, 3, 5), Interval(2, 1, 3)]
    assert claim(fall).startswith("The loss surface becomes smoother with every step of beta")
    assert claim(fall[:1] * 2).startswith("The loss surface does not clearly lose local minima")
