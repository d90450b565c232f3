"""Frontiers: against brute force on random settings, and what must not change them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.article.table import Point, Values, at, envelope, matched, points

places = st.lists(
    st.tuples(st.floats(0.4, 0.5), st.floats(0.01, 1.0)),
    min_size=1,
    max_size=8,
    unique_by=(lambda p: p[0], lambda p: p[1]),
)


def lowest(found: list[Point], loss: float) -> float:
    """The least that any mixture of two settings reaches at this log loss or less, by trying all."""
    reached = [math.log(y) for x, y, _ in found if x <= loss]
    for x1, y1, _ in found:
        for x2, y2, _ in found:
            if x1 <= loss < x2:
                share = (loss - x1) / (x2 - x1)
                reached.append((1 - share) * math.log(y1) + share * math.log(y2))
    return min(reached)


@given(places, st.floats(0.0, 1.0))
def test_an_envelope_reaches_what_the_best_mixture_of_two_settings_does(
    own: list[tuple[float, float]], at_: float
) -> None:
    found = [(x, y, str(n)) for n, (x, y) in enumerate(own)]
    edge = envelope(found)
    low, high = edge[0][0], max(x for x, *_ in found)
    loss = low + at_ * (high - low)
    mixture = at(edge, loss)
    values = {spec: y for _, y, spec in found}
    level = sum(weight * math.log(values[spec]) for spec, weight in mixture)
    assert sum(weight for _, weight in mixture) == pytest.approx(1)
    assert level == pytest.approx(lowest(found, loss), abs=1e-9)
    assert [y for _, y, _ in edge] == sorted((y for _, y, _ in edge), reverse=True)


def made(
    pds: dict[str, float], losses: dict[str, float], units: int = 4, spread: float = 0.0
) -> dict[str, dict[int, Values]]:
    draw = np.random.default_rng(len(pds) + units)
    return {
        spec: {
            unit: {"pd": pd * math.exp(spread * draw.normal()), "log_loss": losses[spec], "other": pd**2}
            for unit in range(units)
        }
        for spec, pd in pds.items()
    }


def test_a_family_with_half_the_instability_everywhere_has_half_of_it_at_equal_loss() -> None:
    losses = {"a": 0.46, "b": 0.462, "c": 0.47}
    relu, other = made({"a": 0.2, "b": 0.1, "c": 0.05}, losses), made({"a": 0.1, "b": 0.05, "c": 0.025}, losses)
    found = matched(other, relu, relu, besides=["other", "missing"])
    assert (
        found is not None
        and found.ratio.mean == pytest.approx(0.5)
        and found.ratio.low == pytest.approx(found.ratio.high)
    )
    assert found.other_ratios["other"].mean == pytest.approx(0.25) and "missing" not in found.other_ratios
    assert sum(found.settings.values()) == pytest.approx(1)


def test_a_family_is_itself() -> None:
    relu = made({"a": 0.2, "b": 0.1}, {"a": 0.46, "b": 0.462}, spread=0.3)
    found = matched(relu, relu, relu)
    assert found is not None and found.ratio.mean == 1 == found.ratio.low == found.ratio.high


def test_who_is_never_within_one_percent_is_not_compared() -> None:
    relu, worse = made({"a": 0.2}, {"a": 0.46}), made({"b": 0.01}, {"b": 0.465})
    assert matched(worse, relu, relu) is None
    near = made({"b": 0.01}, {"b": 0.4645})
    found = matched(near, relu, relu)
    assert found is not None and found.ratio.mean == pytest.approx(0.05)


def test_luck_of_many_settings_gains_nothing() -> None:
    """Ten settings that differ by chance alone against one, forty times over: the least of ten in the same units, and
    of their means over units, lie far below 1; what others chose does not."""
    draw, same = np.random.default_rng(0), {"log_loss": 0.46}
    one = {"one": {unit: same | {"pd": 0.1} for unit in range(6)}}
    ours, of_means = [], []
    for _ in range(40):
        logs = 0.5 * draw.normal(size=(10, 6))
        many = {str(n): {u: same | {"pd": 0.1 * math.exp(x)} for u, x in enumerate(row)} for n, row in enumerate(logs)}
        found = matched(many, one, one)
        assert found is not None
        ours.append(math.log(found.ratio.mean))
        of_means.append(logs.mean(axis=1).min())
    assert np.mean(of_means) < -0.25 and abs(np.mean(ours)) < 3 * np.std(ours) / math.sqrt(40) + 0.02


def test_a_setting_without_a_value_in_some_unit_is_no_point() -> None:
    family = made({"a": 0.2, "b": 0.1}, {"a": 0.46, "b": 0.462})
    del family["b"][2]["pd"]
    assert [spec for *_, spec in points(family, "pd", [0, 1, 2, 3])] == ["a"]
    family["a"][1]["pd"] = 0.0
    assert points(family, "pd", [0, 1, 2, 3]) == []
