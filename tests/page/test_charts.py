"""Charts hold what they are given: every interval inside its axes, one scale from 0, and nothing but numbers."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from page.parts import Dot, LineSeries, limits, over_gap, over_time, plane, rows
from simulator.types import Interval, exact

NUMBERS = st.floats(0, 100).map(lambda value: float(f"{value:.3g}"))
INTERVALS = st.lists(NUMBERS, min_size=3, max_size=3).map(
    lambda three: Interval(*(sorted(three)[n] for n in (1, 0, 2)))
)
DOTS = st.lists(
    st.builds(Dot, st.text(max_size=9), st.integers(0, 30), INTERVALS, INTERVALS, st.booleans()), min_size=1, max_size=6
)


def ends(options: dict[str, Any]) -> list[list[float]]:
    """Both ends of all intervals that are drawn."""
    return [end["coord"] for series in options["series"] for pair in series["markLine"]["data"] for end in pair]


@given(st.lists(INTERVALS, min_size=1))
def test_limits_are_round_and_hold_all(held: list[Interval]) -> None:
    low, high = limits(held)
    slack = 1e-3 * max(abs(low), abs(high))  # four digits are kept
    assert low < high
    assert all(low - slack <= one.low and one.high <= high + slack for one in held if one.known)
    assert all(low - slack <= one.mean <= high + slack for one in held)


@pytest.mark.parametrize(
    ("held", "expected"),
    [([Interval(0.7, 0.5, 1.0)], (0.5, 1.0)), ([exact(0)], (0.0, 0.2)), ([], (0.0, 1.0)), ([exact(0.3)], (0.3, 0.32)),
     ([Interval(0.0, 0.0, 5e-324)], (0.0, 2e-13))],
)  # fmt: skip
def test_limits_by_hand(held: list[Interval], expected: tuple[float, float]) -> None:
    assert limits(held) == pytest.approx(expected, abs=1e-20)


@given(DOTS)
def test_every_interval_is_inside_the_axes(dots: list[Dot]) -> None:
    """ECharts leaves out what sticks out, without a word."""
    below, flat = rows(dots, "share"), plane(dots, "nats", "share")
    known = [dot.x for dot in dots if dot.x.known]
    assert len(ends(below)) == 2 * len(known) and below["xAxis"]["min"] == 0
    slack = 1e-3 * below["xAxis"]["max"]
    assert all(0 <= x <= below["xAxis"]["max"] + slack and 0 <= y < len(dots) for x, y in ends(below))
    for x, y in ends(flat):
        assert (
            flat["xAxis"]["min"] * (1 - 1e-3) <= x <= flat["xAxis"]["max"] * (1 + 1e-3)
            and y <= flat["yAxis"]["max"] * 1.001
        )
    json.dumps([below, flat], allow_nan=False)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=9))
def test_lines_have_milliseconds_or_the_gap_itself(points: list[tuple[float, float]]) -> None:
    line = LineSeries("ReLU", 1, points, 1)
    timed, gaps = over_time([line], "share", [(3.0, "7")]), over_gap([line], "s", "share", 5.0)
    assert [at for at, _ in timed["series"][0]["data"]] == [round(1000 * at) for at, _ in points]
    assert timed["series"][0]["markLine"]["data"] == [{"xAxis": 3_000, "name": "7"}]
    assert gaps["series"][0]["data"] == [[x, y] for x, y in points]
    assert gaps["series"][0]["markLine"]["data"][0]["xAxis"] == 5 and gaps["xAxis"]["type"] == "log"
    assert timed["yAxis"]["min"] == gaps["yAxis"]["min"] == 0
    assert not any(math.isnan(value) for _, value in timed["series"][0]["data"])
