"""`--worlds`: a run in each of several made-up worlds, then all of them as one result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from simulator.experiment.main import run_experiment
from simulator.flags import parse_run
from simulator.report.pool import pooled
from simulator.result import read_result, to_json
from tests.result_schema import assert_documented
from tests.small_runs import small_log, timeless
from tests.terminal import SMALL_RUN, Terminal, assert_refused

RUN = ("run", *SMALL_RUN, "--events", "4000", "--seed", "3")


def held(folder: Path) -> Any:
    return timeless(to_json(read_result(folder)) | {"command": "", "config": {}, "machine": {}, "versions": {}})


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in two worlds: to be read, and copied before it is changed."""
    out = tmp_path_factory.mktemp("worlds") / "two"
    flags = parse_run([*RUN[1:], "--worlds", "2", "--out", str(out)])
    run_experiment(flags, flags.config(), "flicker run")
    return out


def test_each_world_is_a_run_of_its_own_seed_and_the_result_is_all_of_them(
    flicker: Terminal, two: Path, tmp_path: Path
) -> None:
    assert "in each of 2 worlds" in (two / "report.html").read_text()
    assert flicker(*RUN, "--seed", "4", "--out", tmp_path / "4").code == 0
    assert held(two / "seed-4") == held(tmp_path / "4")
    apart = [two / "seed-3", tmp_path / "4"]
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


def test_it_goes_on_where_it_was_cut_off(flicker: Terminal, two: Path, tmp_path: Path) -> None:
    out = shutil.copytree(two, tmp_path / "out")
    (out / "result.json").unlink()
    shutil.rmtree(out / "seed-4")
    said = flicker(*RUN, "--worlds", "2", "--out", out, "--resume")
    assert said.code == 0 and "World 2 of 2, seed 4" in said.out and "World 1 of 2" not in said.out, said.err
    assert held(out) == held(two)
    assert_refused(flicker(*RUN, "--worlds", "2", "--out", out, "--resume"), "this run is complete")
    assert_refused(flicker(*RUN, "--worlds", "3", "--out", out, "--resume"), "worlds: 2 there, 3 here")


def test_worlds_that_are_in_two_results_are_refused_as_one(flicker: Terminal, two: Path, tmp_path: Path) -> None:
    more = shutil.copytree(two, tmp_path / "more")
    shutil.rmtree(more / "seed-3")
    assert_refused(flicker("report", two, more), "a seed is there twice")


def test_a_gate_sees_each_world_and_advice_knows_that_there_are_two_fleets(flicker: Terminal, two: Path) -> None:
    """Their spread counts as that of two folders does."""
    allowed, arms = ("--max-swap-increase", "0.5"), ("--arm", "smelu:beta=0.1", "--baseline-arm", "relu")
    both = flicker("gate", two, "--baseline", two, *allowed, *arms)
    folders = [two / "seed-3", two / "seed-4"]
    assert both == flicker("gate", *folders, "--baseline", *folders, *allowed, *arms) and "increase" in both.out
    said = flicker("recommend", two)
    assert "one fleet" not in said.out and said.out.startswith("ReLU: "), said


def test_a_log_is_one_world_and_what_cannot_be_leaves_nothing(flicker: Terminal, tmp_path: Path) -> None:
    log = small_log(tmp_path / "log")
    out = tmp_path / "out"
    said = flicker("run", *SMALL_RUN, "--data", log, "--worlds", "2", "--out", out)
    assert_refused(said, "worlds = 2: 1 with a log")
    for arms in (("relu:engine=native,norm=weight",), ("relu:norm=none,lr=1e30",)):  # at the start; while learning
        assert_refused(flicker(*RUN, "--worlds", "2", "--arms", *arms, "--out", out))
        assert not out.exists()
