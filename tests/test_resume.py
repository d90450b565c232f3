"""A run that is cut off and goes on ends with the numbers of one that never stopped."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from simulator.config import ExperimentConfig, NoiseConfig
from simulator.errors import ResultError
from simulator.experiment import folder as folder_module
from simulator.experiment.experiment import Experiment
from simulator.experiment.folder import Folder
from simulator.models.snapshot import read_snapshot
from simulator.result import Arm, Result
from simulator.types import Interval
from tests.interrupted import CutOff, cut_off, resumed
from tests.small_runs import SMALL, outcome, prepared, small_replay, timeless

Damage = Callable[[Path], None]

NOISES = {
    "delay": NoiseConfig(window=4, delay=9),
    "all": NoiseConfig(init="own", window=2, lost=0.1, delay=3, precision="bfloat16", reductions=True),
}


@pytest.fixture(autouse=True)
def a_checkpoint_at_every_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs this short would otherwise wait for checkpoints to be worth their time."""
    monkeypatch.setattr(folder_module, "CHECKPOINT_SHARE", float("inf"))


def small(noise: str) -> ExperimentConfig:
    return replace(SMALL, noise=NOISES[noise], duplicates=2)


@pytest.fixture(scope="module")
def whole() -> Any:
    """What SMALL ends with that nothing stops."""
    return timeless(outcome(prepared(SMALL)))


@pytest.mark.parametrize("noise", NOISES)
def test_a_run_cut_off_after_any_generation_ends_with_identical_numbers(noise: str, tmp_path: Path) -> None:
    config = small(noise)
    whole = timeless(outcome(prepared(config)))
    generations = prepared(config).plan.generations
    for generation in range(1, generations):
        path = tmp_path / str(generation)
        before = cut_off(config, path, generation)
        if NOISES[noise].delay:
            waiting = any(".pending." in name for name in before.engines.state())
            assert waiting, "nothing was waiting: this generation shows nothing about delays"
        experiment = resumed(config, path)
        assert experiment.state.generation == generation
        assert timeless(outcome(experiment)) == whole


def test_a_replayed_log_goes_on_with_identical_numbers(tmp_path: Path) -> None:
    config = small_replay(tmp_path / "log")
    whole = timeless(outcome(prepared(config)))
    cut_off(config, tmp_path / "out", 2)
    assert timeless(outcome(resumed(config, tmp_path / "out"))) == whole


def test_modules_of_the_users_go_on_with_identical_numbers(tmp_path: Path) -> None:
    """With dropout, buffers and an optimiser of its own, and behind a cure that keeps weights of its own."""
    module = "torch:tests.models.own_modules:"
    config = replace(small("all"), arms=(f"{module}make", f"average:{module}plain,relu=gelu"))
    whole = timeless(outcome(prepared(config)))
    cut_off(config, tmp_path / "out", 2)
    experiment = resumed(config, tmp_path / "out")
    assert experiment.state.generation == 2
    assert timeless(outcome(experiment)) == whole


def test_a_run_may_be_cut_off_again_and_again(whole: Any, tmp_path: Path) -> None:
    cut_off(SMALL, tmp_path / "out", 1)
    for generation in (2, 3):
        folder, experiment = Folder(tmp_path / "out"), resumed(SMALL, tmp_path / "out")
        assert experiment.state.generation == generation - 1

        def save(folder: Folder = folder, experiment: Experiment = experiment) -> None:
            folder.save(experiment)
            raise CutOff

        with pytest.raises(CutOff):
            experiment.run(lambda events: None, save)
    assert timeless(outcome(resumed(SMALL, tmp_path / "out"))) == whole


def cut_weights(checkpoint: Path) -> None:
    weights = checkpoint / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1_000])


def drop_manifest(checkpoint: Path) -> None:
    (checkpoint / "manifest.json").unlink()


def change_state(checkpoint: Path) -> None:
    manifest = checkpoint / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"position": ', '"position": 1'))


damages = pytest.mark.parametrize("damage", [cut_weights, drop_manifest, change_state])


@damages
def test_a_damaged_checkpoint_falls_back_to_the_one_before(damage: Damage, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cut_off(SMALL, out, 2, keep=tmp_path / "kept")
    shutil.copytree(tmp_path / "kept" / "1", out / "checkpoint" / "1")
    assert resumed(SMALL, out).state.generation == 2
    damage(out / "checkpoint" / "2")
    assert resumed(SMALL, out).state.generation == 1


@damages
def test_a_run_whose_only_checkpoint_is_damaged_starts_again(damage: Damage, whole: Any, tmp_path: Path) -> None:
    cut_off(SMALL, tmp_path / "out", 2)
    damage(tmp_path / "out" / "checkpoint" / "2")
    experiment = resumed(SMALL, tmp_path / "out")
    assert experiment.state.generation == experiment.state.position == 0
    folder = Folder(tmp_path / "out")
    assert timeless(outcome(experiment, lambda: folder.save(experiment))) == whole


def test_strange_entries_among_the_checkpoints_are_passed_over(tmp_path: Path) -> None:
    cut_off(SMALL, tmp_path / "out", 1)
    for name in ("notes", "²", "-3"):
        (tmp_path / "out" / "checkpoint" / name).mkdir()
    assert resumed(SMALL, tmp_path / "out").state.generation == 1


def test_only_the_newest_checkpoint_is_kept_and_none_after_the_end(tmp_path: Path) -> None:
    out = tmp_path / "out"
    cut_off(SMALL, out, 3)
    assert [entry.name for entry in (out / "checkpoint").iterdir()] == ["3"]
    Folder(out).finish(Result("run", {"name": "none"}, [Arm("relu", {"auc": Interval(math.nan, math.nan, math.nan)})]))
    assert sorted(entry.name for entry in out.iterdir()) == ["config.json", "result.json"]
    assert json.loads((out / "result.json").read_text())["arms"] == {"relu": {"activation": None}}


def test_a_checkpoint_that_would_cost_too_much_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "CHECKPOINT_SHARE", 1e-9)
    folder, experiment = Folder(tmp_path / "out"), prepared(SMALL)
    folder.start(SMALL, "a test")
    experiment.run(lambda events: None, lambda: folder.save(experiment))
    assert [entry.name for entry in (tmp_path / "out" / "checkpoint").iterdir()] == ["1"]


def test_a_disk_that_cannot_be_written_is_one_line_and_keeps_the_older_checkpoint(tmp_path: Path) -> None:
    """A file lies where the next checkpoint's folder should be made."""
    out = tmp_path / "out"
    cut_off(SMALL, out, 1)
    folder, experiment = Folder(out), resumed(SMALL, out)
    (out / "checkpoint" / "2").write_text("in the way")
    with pytest.raises(ResultError, match=f"out = {out}: File exists: name a folder that can be written"):
        experiment.run(lambda events: None, lambda: folder.save(experiment))
    assert read_snapshot(out / "checkpoint" / "1")[1]["generation"] == 1


def test_the_state_that_is_saved_is_all_plain_json(tmp_path: Path) -> None:
    experiment = cut_off(SMALL, tmp_path / "out", 2)
    state: dict[str, Any] = read_snapshot(tmp_path / "out" / "checkpoint" / "2")[1]
    assert state == json.loads(json.dumps(vars(experiment.state)))
