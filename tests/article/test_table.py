"""What is kept of a cell, and intervals over units against SciPy."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from simulator.article.table import line_of, mean, over_units, ratio, read_lines, worlds, write_lines
from simulator.errors import ResultError
from simulator.experiment.outcome import measure
from simulator.result import to_json
from tests.article.made import world
from tests.small_runs import SMALL, prepared

units = st.lists(st.floats(0.01, 10), min_size=2, max_size=12)


@given(units)
def test_an_interval_over_units_is_students(values: list[float]) -> None:
    found = over_units(values)
    assert found.mean == pytest.approx(np.mean(values))
    if np.std(values) > 1e-9:
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-3 * (high - low))


@given(units, st.floats(0.1, 3.0))
def test_a_ratio_is_paired_by_unit(values: list[float], factor: float) -> None:
    base = {unit: {"pd": value} for unit, value in enumerate(values)}
    own = {unit: {"pd": factor * value} for unit, value in enumerate(values)} | {99: {"pd": 7.0}}
    found = ratio(own, base, "pd")
    assert found is not None and (found.mean, found.low, found.high) == pytest.approx((factor, factor, factor))


def test_of_one_unit_no_interval_is_known_and_of_zero_no_ratio() -> None:
    one = {0: {"pd": 0.1}}
    found = ratio(one, one, "pd")
    assert found is not None and found.mean == 1 and found.low == 0 and found.high > 1e100
    assert ratio({0: {"pd": 0.0}}, one, "pd") is None and ratio(one, {}, "pd") is None
    assert ratio(one, one, "other") is None and mean(one, "other") is None and mean({}, "pd") is None


def test_lines_survive_writing_in_one_order_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    path, lines = tmp_path / "cells.jsonl", world().lines[:5]
    write_lines(path, reversed(lines))
    assert sorted(read_lines(path), key=str) == sorted(lines, key=str)
    first = path.read_bytes()
    write_lines(path, lines)
    assert path.read_bytes() == first
    path.write_text(path.read_text() + '{"world": 3}\n')
    with pytest.raises(ResultError, match=r"cells.jsonl:6: .* delete the line"):
        read_lines(path)
    assert read_lines(tmp_path / "none.jsonl") == [] and worlds([]) == {}


def test_what_is_kept_of_a_run_are_its_own_means() -> None:
    experiment = prepared(replace(SMALL, generations=12))
    result = measure(experiment, experiment.run(lambda events: None, lambda: None))
    line = line_of(result, {"world": "w", "group": "g", "seed": "3"}, ["--seed", "3"])
    raw = to_json(result)
    for arm in result.arms:
        kept, own = line.arms[arm.spec], raw["arms"][arm.spec]
        assert kept["pd"] == pytest.approx(own["pd"]["mean"], rel=1e-5)
        assert kept["refresh_pair"] == pytest.approx(own["refresh_swaps"]["pair"]["mean"], rel=1e-5)
        assert kept["lookups"] == own["lookups"]
        learned = raw["world"]["learned"]
        part = [g["arms"][arm.spec] for g in raw["generations"] if 0.1 * learned < g["events"] <= 0.5 * learned]
        assert part and kept["part_pd"] == pytest.approx(np.mean([one["pd"]["mean"] for one in part]), rel=1e-5)
        losses = [one["progressive_log_loss"]["mean"] for one in part]
        assert kept["part_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert line.name == "w g 3" and math.isfinite(line.baselines["popularity"]["log_loss"])
