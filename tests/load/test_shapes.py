"""Shapes as pure functions: their slopes, and that `due` undoes `work`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from load.settings import SHAPES, SPIKE, due, work


def slope(shape: str, seconds: float, length: float) -> float:
    return (work(shape, seconds + 1e-6, length) - work(shape, seconds, length)) / 1e-6


@pytest.mark.parametrize(
    ("shape", "seconds", "factor"),
    [
        ("steady", 0, 1),
        ("steady", 1000, 1),
        ("ramp", 0, 0),
        ("ramp", 15, 0.25),
        ("ramp", 59, 59 / 60),
        ("ramp", 60, 1),
        ("ramp", 100, 1),
        ("spike", 0, 1),
        ("spike", 23.9, 1),
        ("spike", 24, SPIKE),
        ("spike", 29.9, SPIKE),
        ("spike", 30, 1),
        ("spike", 85, SPIKE),
        ("spike", 95, 1),
    ],
)
def test_the_rate_at_a_time(shape: str, seconds: float, factor: float) -> None:
    assert slope(shape, seconds, 60) == pytest.approx(factor, abs=1e-4)


def test_a_ramp_offers_half_of_what_steady_does_and_a_spike_a_fifth_more() -> None:
    assert [work(shape, 60, 60) for shape in ("steady", "ramp", "spike")] == pytest.approx([60, 30, 72])


@given(st.sampled_from(sorted(SHAPES)), st.floats(0, 5_000), st.floats(1, 600))
def test_due_is_when_the_work_is_reached(shape: str, amount: float, length: float) -> None:
    at = due(shape, amount, length)
    assert work(shape, at, length) == pytest.approx(amount, abs=1e-6, rel=1e-9)


@given(st.sampled_from(sorted(SHAPES)), st.floats(0, 5_000), st.floats(0, 100), st.floats(1, 600))
def test_work_never_goes_down(shape: str, seconds: float, more: float, length: float) -> None:
    assert work(shape, seconds + more, length) >= work(shape, seconds, length)
