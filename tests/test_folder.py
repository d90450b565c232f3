"""Result folders: who may write there, what lies in them, and when they are left alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from simulator.config import ReplayConfig, as_json
from simulator.errors import ResultError
from simulator.experiment.folder import Folder
from tests.interrupted import cut_off, files
from tests.small_runs import SMALL, prepared, small_replay


def test_config_json_holds_settings_versions_machine_and_command(tmp_path: Path) -> None:
    config = small_replay(tmp_path / "log")
    Folder(tmp_path / "out").start(config, "flicker run --something")
    held = json.loads((tmp_path / "out" / "config.json").read_text())
    assert held.keys() == {"config", "repeatable", "arms", "tuned", "versions", "machine", "command"}
    assert held["repeatable"] is True and held["command"] == "flicker run --something"
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


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_holds_another_run_is_left_as_it_is(resume: bool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cut_off(SMALL, out, 1)
    before, other = files(out), replace(SMALL, seed=1, model=replace(SMALL.model, learning_rate=0.1))
    with pytest.raises(ResultError) as error:
        Folder(out).check(other, resume)
    if resume:
        changed = "model.learning_rate: 0.08 there, 0.1 here, seed: 0 there, 1 here"
        assert str(error.value) == f"out = {out}: cannot resume with other settings ({changed}): use the same ones"
    else:
        hint = "name another folder, delete it, or go on with --resume"
        assert str(error.value) == f"out = {out}: holds another run: {hint}"
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
