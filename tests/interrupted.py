"""Runs that are cut off after a checkpoint, and go on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from simulator.config import ExperimentConfig
from simulator.experiment.experiment import Experiment
from simulator.experiment.folder import Folder
from tests.small_runs import prepared


class CutOff(Exception):
    """What stands for a crash after a checkpoint."""


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


def files(path: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
