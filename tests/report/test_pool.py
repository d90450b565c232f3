"""Several seeds as one: intervals that cover, and nothing pooled that is not alike."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from simulator.errors import ResultError
from simulator.randomness import generator
from simulator.report.pool import estimate, pooled
from simulator.result import read_result
from simulator.types import Interval
from tests.report.fake_results import CONFIG, Json, fake_result, write
from tests.terminal import Terminal


def around(mean: float, half: float) -> Interval:
    return Interval(mean, mean - half, mean + half)


def test_the_wider_of_squares_and_spread() -> None:
    tight = estimate([around(1.0, 0.3), around(1.0, 0.4)])
    assert (tight.mean, tight.high) == pytest.approx((1.0, 1.25)), "no spread: half-widths in squares"
    values = (0.8, 1.1, 1.4)
    apart = estimate([around(value, 0.001) for value in values])
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (apart.low, apart.high) == pytest.approx((low, high), rel=1e-3)
    assert estimate([around(1.0, 0.3), around(1.0, 0.4)], shared=True).high == pytest.approx(1.35), "the same users"
    assert estimate([around(2.0, 0.5)]) == around(2.0, 0.5)


def test_ratios_are_pooled_as_logarithms() -> None:
    found = estimate([Interval(0.5, 0.25, 1.0), Interval(2.0, 1.0, 4.0)], logarithms=True)
    assert found.mean == pytest.approx(1.0) and found.low == pytest.approx(1 / found.high)
    assert estimate([Interval(0, 0, 0), Interval(0.5, 0.2, 0.8)], logarithms=True).mean == 0.25


def test_pooled_intervals_cover_what_is_true() -> None:
    """Seeds whose own intervals know half of the variance only: 95 % of the pooled ones hold the truth, or more."""
    draws, held = generator(0, "test pool"), 0
    for _ in range(400):
        seen = draws.normal(0.0, math.sqrt(2.0), 4)
        found = estimate([around(float(mean), 1.96) for mean in seen])
        held += found.low <= 0 <= found.high
    assert held >= 374


def seeds(folder: Path, **changes: Json) -> list[Path]:
    """Two results that differ by their seed and what is given."""
    folders = []
    for seed, factor in enumerate((1.0, 1.2)):
        place = folder / f"seed-{seed}"
        place.mkdir()
        config = CONFIG["config"] | {"seed": seed} | (changes if seed else {})
        arms = {"relu": (factor, 0.43), "smelu:beta=1": (0.5, 0.42)}
        folders.append(write(place, fake_result(arms, 3), CONFIG | {"config": config}))
    return folders


def test_every_arm_has_one_estimate(tmp_path: Path) -> None:
    found = [(folder, read_result(folder)) for folder in seeds(tmp_path)]
    result = pooled(found)
    relu = [run.arms[0].measures["swaps.pair"] for _, run in found]
    wanted, got = estimate(relu, shared=False), result.arms[0].measures["swaps.pair"]
    assert (got.mean, got.high) == (wanted.mean, wanted.high)
    assert wanted.low < 0 == got.low, "no share is below 0, however far two seeds lie apart"
    assert [generation.number for generation in result.generations] == [1, 2, 3]
    assert result.notes[0].startswith("2 results were pooled (seeds 0, 1): an interval is the wider of")


def test_one_page_in_the_folder_that_holds_them(flicker: Terminal, tmp_path: Path) -> None:
    said = flicker("report", *seeds(tmp_path))
    assert (said.code, said.out) == (0, f"{tmp_path / 'report.html'}\n"), said.err
    assert "2 results were pooled" in (tmp_path / "report.html").read_text()


def test_a_sweep_of_seeds_is_one_page_too(flicker: Terminal, tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "sweep.json").write_text("{}")
    seeds(tmp_path / "cells")
    (tmp_path / "cells" / "seed-2").mkdir()  # not finished
    said = flicker("report", tmp_path)
    assert (said.code, said.out) == (0, f"{tmp_path / 'report.html'}\n"), said.err
    assert "2 results were pooled (seeds 0, 1)" in (tmp_path / "report.html").read_text()


def test_what_is_not_alike_is_named(tmp_path: Path) -> None:
    found = [(folder, read_result(folder)) for folder in seeds(tmp_path, k=3)]
    with pytest.raises(ResultError, match=r"seed-1: k = 3, where the first has None: name results that"):
        pooled(found)


def test_a_seed_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    folder, _ = seeds(tmp_path)
    with pytest.raises(ResultError, match="a seed is there twice: name runs of different seeds, one of each"):
        pooled([(folder, read_result(folder))] * 2)
