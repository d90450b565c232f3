"""State on disk: whole or not at all, one trainer at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from simulator.errors import ResultError
from trainer.resume import StateFolder, TrainerState

SETTINGS = {"generation_events": 512}
TENSORS = {"a": torch.arange(6.0).view(2, 3), "none": torch.empty(3, 0)}
STATE = TrainerState(512, 1, "500-0", 1_700_000_000.25, {"relu": {"log_loss": 0.5, "auc": None, "calibration": 1.0}})


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StateFolder]:
    """An opened one."""
    made = StateFolder(tmp_path / "state", "run")
    made.open()
    yield made
    made.close()


def test_nothing_was_saved(folder: StateFolder) -> None:
    assert folder.load(SETTINGS) is None


def test_what_was_saved_comes_back_and_replaces_what_was_before(folder: StateFolder) -> None:
    folder.save({"a": torch.zeros(1)}, TrainerState(256), SETTINGS)
    folder.save(TENSORS, STATE, SETTINGS)
    loaded = folder.load(SETTINGS)
    assert loaded is not None and loaded[1] == STATE
    assert all(torch.equal(loaded[0][name], tensor) for name, tensor in TENSORS.items())
    assert sorted(entry.name for entry in folder.path.iterdir()) == ["2", "lock"]


@pytest.mark.parametrize("step", ["write_snapshot", "os.rename", "shutil.rmtree"])
def test_a_save_that_breaks_off_leaves_one_whole_state(
    folder: StateFolder, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.save({"a": torch.zeros(1)}, TrainerState(256), SETTINGS)

    def fail(*arguments: object, **named: object) -> None:
        if not named:  # leave the first look around alone
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(f"trainer.resume.{step}", fail)
        with pytest.raises(ResultError, match=r"state = .*state: No space left on device: name a folder"):
            folder.save(TENSORS, STATE, SETTINGS)
    loaded = folder.load(SETTINGS)
    assert loaded is not None and loaded[1].events == (512 if step == "shutil.rmtree" else 256)
    folder.save(TENSORS, TrainerState(512), SETTINGS)  # nothing learned since, but read
    (left,) = (entry.name for entry in folder.path.iterdir() if entry.name != "lock")
    assert int(left) > 1


def test_damage_is_named_and_nothing_is_begun_anew(folder: StateFolder) -> None:
    folder.save(TENSORS, STATE, SETTINGS)
    weights = folder.path / "1" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ResultError, match="the file is damaged"):
        folder.load(SETTINGS)


def test_other_settings_and_other_runs_are_named(folder: StateFolder) -> None:
    folder.save(TENSORS, STATE, SETTINGS)
    with pytest.raises(ResultError, match=r"other settings \(generation_events: 512 there, 1024 here\)"):
        folder.load({"generation_events": 1024})
    with pytest.raises(ResultError, match=r"run: run there, other here"):
        StateFolder(folder.path, "other").load(SETTINGS)


def test_one_trainer_at_a_time(folder: StateFolder) -> None:
    with pytest.raises(ResultError, match="another trainer uses it"):
        StateFolder(folder.path, "run").open()
    folder.close()
    folder.open()


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResultError, match="state = .*file: File exists"):
        StateFolder(tmp_path / "file", "run").open()


def test_state_of_another_version_is_named(folder: StateFolder) -> None:
    folder.save(TENSORS, STATE, SETTINGS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("trainer.resume.TrainerState", lambda **entries: TrainerState(**entries, offset=3))
        with pytest.raises(ResultError, match="saved by another version of Flicker: name another --state"):
            folder.load(SETTINGS)
