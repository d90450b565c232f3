"""Result folders: who may write there, and runs that are cut off and go on as if nothing had happened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from simulator import folder as folder_module
from simulator.config import ExperimentConfig, NoiseConfig, ReplayConfig
from simulator.errors import ResultError
from simulator.experiment import Experiment
from simulator.folder import Folder, as_json
from simulator.recommender.snapshot import read_snapshot
from tests.small_runs import SMALL, outcome, prepared, small_replay, timeless

Damage = Callable[[Path], None]

NOISES = {
    "window": NoiseConfig(window=4),
    "delay": NoiseConfig(window=4, delay=9),
    "all": NoiseConfig(init="own", window=2, lost=0.1, delay=3, precision="bfloat16", reductions=True),
}


class CutOff(Exception):
    """What stands for a crash after a checkpoint."""


@pytest.fixture(autouse=True)
def a_checkpoint_at_every_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs this short would otherwise wait for checkpoints to be worth their time."""
    monkeypatch.setattr(folder_module, "CHECKPOINT_SHARE", float("inf"))


def cut_off(config: ExperimentConfig, path: Path, generation: int, keep: Path | None = None) -> Experiment:
    """Runs until a generation is saved; copies each checkpoint to `keep`."""
    folder, experiment = Folder(path), prepared(config)
    folder.start(config, "a test")

    def save() -> None:
        folder.save(experiment)
        now = experiment.state.generation
        if keep:
            shutil.copytree(path / "checkpoint" / str(now), keep / str(now))
        if now == generation:
            raise CutOff

    with pytest.raises(CutOff):
        experiment.run(lambda events: None, save)
    return experiment


def resumed(config: ExperimentConfig, path: Path) -> Experiment:
    """A new experiment that stands where the folder says."""
    folder, experiment = Folder(path), prepared(config)
    folder.check(config, resume=True)
    folder.restore(experiment)
    return experiment


def small(noise: str) -> ExperimentConfig:
    return replace(SMALL, noise=NOISES[noise], duplicates=2)


@pytest.mark.parametrize("noise", NOISES)
def test_a_run_cut_off_after_any_generation_ends_with_identical_numbers(noise: str, tmp_path: Path) -> None:
    config = small(noise)
    whole = timeless(outcome(prepared(config)))
    generations = prepared(config).plan.generations
    for generation in range(1, generations):
        path = tmp_path / str(generation)
        before = cut_off(config, path, generation)
        if NOISES[noise].delay:
            assert any(before.learner.pending), "nothing was waiting: this generation shows nothing about delays"
        experiment = resumed(config, path)
        assert experiment.state.generation == generation
        assert timeless(outcome(experiment)) == whole


def test_a_replayed_log_goes_on_with_identical_numbers(tmp_path: Path) -> None:
    config = small_replay(tmp_path / "log")
    whole = timeless(outcome(prepared(config)))
    cut_off(config, tmp_path / "out", 2)
    assert timeless(outcome(resumed(config, tmp_path / "out"))) == whole


def test_a_run_may_be_cut_off_again_and_again(tmp_path: Path) -> None:
    whole = timeless(outcome(prepared(SMALL)))
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
    damage(out / "checkpoint" / "2")
    assert resumed(SMALL, out).state.generation == 1


@damages
def test_a_run_whose_only_checkpoint_is_damaged_starts_again(damage: Damage, tmp_path: Path) -> None:
    cut_off(SMALL, tmp_path / "out", 2)
    damage(tmp_path / "out" / "checkpoint" / "2")
    experiment = resumed(SMALL, tmp_path / "out")
    assert experiment.state.generation == experiment.state.position == 0
    folder = Folder(tmp_path / "out")
    assert timeless(outcome(experiment, lambda: folder.save(experiment))) == timeless(outcome(prepared(SMALL)))


def test_strange_entries_among_the_checkpoints_are_passed_over(tmp_path: Path) -> None:
    cut_off(SMALL, tmp_path / "out", 1)
    for name in ("notes", "²", "-3"):
        (tmp_path / "out" / "checkpoint" / name).mkdir()
    assert resumed(SMALL, tmp_path / "out").state.generation == 1


def test_only_the_newest_checkpoint_is_kept_and_none_after_the_end(tmp_path: Path) -> None:
    out = tmp_path / "out"
    cut_off(SMALL, out, 3)
    assert [entry.name for entry in (out / "checkpoint").iterdir()] == ["3"]
    Folder(out).finish({"pd": float("nan"), "auc": [float("inf"), 1.5]})
    assert sorted(entry.name for entry in out.iterdir()) == ["config.json", "result.json"]
    assert json.loads((out / "result.json").read_text()) == {"pd": None, "auc": [None, 1.5]}


def test_a_checkpoint_that_would_cost_too_much_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "CHECKPOINT_SHARE", 1e-9)
    folder, experiment = Folder(tmp_path / "out"), prepared(SMALL)
    folder.start(SMALL, "a test")
    experiment.run(lambda events: None, lambda: folder.save(experiment))
    assert [entry.name for entry in (tmp_path / "out" / "checkpoint").iterdir()] == ["1"]


def test_config_json_holds_settings_versions_machine_and_command(tmp_path: Path) -> None:
    config = small_replay(tmp_path / "log")
    Folder(tmp_path / "out").start(config, "flicker run --something")
    held = json.loads((tmp_path / "out" / "config.json").read_text())
    assert held.keys() == {"config", "versions", "machine", "command"}
    assert held["command"] == "flicker run --something"
    assert {"python", "flicker", "torch", "numpy", "safetensors"} <= held["versions"].keys()
    assert {"platform", "cores", "torch_threads"} <= held["machine"].keys()
    settings = held["config"]
    assert settings["seed"] == 0 and settings["arms"] == ["relu", "smelu:beta=1"]
    assert settings["model"]["hidden"] == [16, 8] and settings["noise"]["window"] == 4
    assert settings["world"]["kind"] == "replay" and settings["world"]["path"] == str(tmp_path / "log")


def test_a_relative_path_to_the_same_log_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = replace(SMALL, world=ReplayConfig(Path("log")))
    there = replace(SMALL, world=ReplayConfig(tmp_path / "log"))
    assert as_json(here) == as_json(there)


def files(path: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_holds_another_run_is_left_as_it_is(resume: bool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cut_off(SMALL, out, 1)
    before, other = files(out), replace(SMALL, seed=1, model=replace(SMALL.model, learning_rate=0.1))
    with pytest.raises(ResultError) as error:
        Folder(out).check(other, resume)
    if resume:
        changed = "model.learning_rate: 0.005 there, 0.1 here, seed: 0 there, 1 here"
        assert str(error.value) == f"out = {out}: cannot resume with other settings ({changed}): use the same ones"
    else:
        way_out = "name another folder, delete it, or go on with --resume"
        assert str(error.value) == f"out = {out}: holds another run: {way_out}"
        with pytest.raises(ResultError, match="holds another run"):
            Folder(out).start(other, "a test")
    assert files(out) == before


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"config": 1}'])
def test_what_is_no_run_cannot_be_resumed(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ResultError, match=f"out = {tmp_path}: "):
        Folder(tmp_path).check(SMALL, resume=True)


def test_a_missing_folder_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="no run to resume there: leave --resume away"):
        Folder(tmp_path / "out").check(SMALL, resume=True)
    assert not (tmp_path / "out").exists()


def test_a_complete_run_is_not_resumed(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out")
    folder.start(SMALL, "a test")
    folder.finish({})
    with pytest.raises(ResultError, match=f"this run is complete: flicker report {tmp_path / 'out'}"):
        Folder(tmp_path / "out").check(SMALL, resume=True)


def test_a_folder_with_other_things_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ResultError, match="is not empty: name another folder, or empty it"):
        Folder(tmp_path).start(SMALL, "a test")
    with pytest.raises(ResultError, match="a file: name another folder, or delete it"):
        Folder(tmp_path / "thesis.txt").start(SMALL, "a test")
    with pytest.raises(ResultError, match="Not a directory: name a folder that can be written"):
        Folder(tmp_path / "thesis.txt" / "out").start(SMALL, "a test")
    assert files(tmp_path) == {"thesis.txt": b"years of work"}


def test_an_empty_folder_is_used_and_a_missing_one_is_made(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "results" / "today"):
        Folder(path).start(SMALL, "a test")
        assert (path / "config.json").is_file()


def test_withdrawing_leaves_nothing_of_ours_and_all_of_others(tmp_path: Path) -> None:
    alone, shared = Folder(tmp_path / "alone"), Folder(tmp_path / "shared")
    for folder in (alone, shared):
        folder.start(SMALL, "a test")
        experiment = prepared(SMALL)
        folder.save(experiment)
    (tmp_path / "shared" / "notes.txt").write_text("mine")
    alone.withdraw()
    shared.withdraw()
    assert not (tmp_path / "alone").exists() and files(tmp_path / "shared") == {"notes.txt": b"mine"}


def test_a_run_that_was_only_resumed_is_not_withdrawn(tmp_path: Path) -> None:
    cut_off(SMALL, tmp_path / "out", 1)
    before = files(tmp_path / "out")
    again = Folder(tmp_path / "out")
    again.check(SMALL, resume=True)
    again.withdraw()
    assert files(tmp_path / "out") == before


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
