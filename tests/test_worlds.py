"""`--worlds`: a run in each of several made-up worlds, then all of them as one result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from simulator.report.pool import pooled
from simulator.result import read_result, to_json
from tests.result_schema import assert_documented
from tests.small_runs import small_log, timeless
from tests.terminal import SMALL_RUN, Terminal, assert_refused

RUN = ("run", *SMALL_RUN, "--events", "4000", "--seed", "3")


def held(folder: Path) -> Any:
    return timeless(to_json(read_result(folder)) | {"command": "", "config": {}, "machine": {}, "versions": {}})


@pytest.fixture
def two(flicker: Terminal, tmp_path: Path) -> Path:
    said = flicker(*RUN, "--worlds", "2", "--out", tmp_path / "two")
    assert said.code == 0, said.err
    assert "World 2 of 2, seed 4" in said.out and "in each of 2 worlds" in (tmp_path / "two/report.html").read_text()
    return tmp_path / "two"


def test_each_world_is_a_run_of_its_own_seed_and_the_result_is_all_of_them(
    flicker: Terminal, two: Path, tmp_path: Path
) -> None:
    for seed in (3, 4):
        assert flicker(*RUN, "--seed", str(seed), "--out", tmp_path / str(seed)).code == 0
    apart = [tmp_path / "3", tmp_path / "4"]
    assert held(two / "seed-3") == held(apart[0]) and held(two / "seed-4") == held(apart[1])
    raw = json.loads((two / "result.json").read_text())
    assert_documented(raw)
    result, wanted = read_result(two), pooled([(folder, read_result(folder)) for folder in apart])
    for arm, its in zip(result.arms, wanted.arms, strict=True):
        assert (arm.measures, arm.ratios, arm.against) == (its.measures, its.ratios, its.against)
    assert result.baselines == wanted.baselines and result.world == wanted.world
    first, second = (read_result(folder) for folder in apart)
    loss, losses = result.arms[0].measures["log_loss"], [one.arms[0].measures["log_loss"] for one in (first, second)]
    assert loss.mean == pytest.approx((losses[0].mean + losses[1].mean) / 2)
    apart_by = 12.706 * abs(losses[0].mean - losses[1].mean) / 2  # t of one degree of freedom, s / sqrt(2)
    assert loss.high - loss.mean >= apart_by * 0.999
    assert result.world["shares"]["user"] == pytest.approx(
        (first.world["shares"]["user"] + second.world["shares"]["user"]) / 2
    )
    assert result.config["worlds"] == 2 and result.notes[0].startswith("2 results were pooled (seeds 3, 4)")


def test_it_goes_on_where_it_was_cut_off(flicker: Terminal, two: Path) -> None:
    whole = held(two)
    (two / "result.json").unlink()
    shutil.rmtree(two / "seed-4")
    said = flicker(*RUN, "--worlds", "2", "--out", two, "--resume")
    assert said.code == 0 and "World 1 of 2" not in said.out and held(two) == whole
    assert_refused(flicker(*RUN, "--worlds", "2", "--out", two, "--resume"), "this run is complete")
    assert_refused(flicker(*RUN, "--worlds", "3", "--out", two, "--resume"), "worlds: 2 there, 3 here")


def test_worlds_that_are_in_two_results_are_refused_as_one(flicker: Terminal, two: Path, tmp_path: Path) -> None:
    more = shutil.copytree(two, tmp_path / "more")
    about = json.loads((more / "config.json").read_text())
    (more / "config.json").write_text(json.dumps(about | {"config": about["config"] | {"seed": 4}}))
    assert_refused(flicker("report", two, more), "a seed is there twice")


def test_a_log_is_one_world_and_what_cannot_be_leaves_nothing(flicker: Terminal, tmp_path: Path) -> None:
    log = small_log(tmp_path / "log")
    out = tmp_path / "out"
    said = flicker("run", *SMALL_RUN, "--data", log, "--worlds", "2", "--out", out)
    assert_refused(said, "worlds = 2: 1 with a log")
    for arms in (("relu:engine=native,norm=weight",), ("relu:norm=none,lr=1e30",)):  # at the start; while learning
        assert_refused(flicker(*RUN, "--worlds", "2", "--arms", *arms, "--out", out))
        assert not out.exists()
