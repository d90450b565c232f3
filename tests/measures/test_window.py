"""Sums over a sliding window against sums over a list of all that was added."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simulator.measures.window import BUCKETS, WindowSums

STEPS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 100)), min_size=1, max_size=60)


@given(STEPS)
def test_sums_are_those_of_what_is_in_the_window(steps: list[tuple[int, int]]) -> None:
    window, time, added = WindowSums(BUCKETS * 1.0, 2), 0, []
    for seconds, value in steps:
        time += seconds
        added.append((time, value))
        window.add(time, np.array([1.0, value]))
        inside = [v for t, v in added if t > time - BUCKETS]  # buckets of one second: exact at whole seconds
        assert window.sums(time).tolist() == [len(inside), sum(inside)]


def test_nothing_is_left_when_the_window_has_passed() -> None:
    window = WindowSums(60.0, 1)
    for step in range(1_000):
        window.add(step * 0.1, np.array([0.1]))
    assert window.sums(161.0).tolist() == [0.0]  # not almost


def test_a_value_stays_for_the_window_but_a_sixtieth_at_least() -> None:
    window = WindowSums(6.0, 1)
    window.add(10.05, np.array([1.0]))
    assert window.sums(15.9).tolist() == [1.0] and window.sums(16.11).tolist() == [0.0]


def test_a_clock_that_runs_backwards_counts_as_now() -> None:
    window = WindowSums(60.0, 1)
    window.add(100.0, np.array([1.0]))
    window.add(99.0, np.array([1.0]))
    assert window.sums(100.0).tolist() == [2.0]
