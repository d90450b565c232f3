"""A result folder: config.json first, checkpoints while the run goes on, result.json and report.html at the end.

OUT/config.json      {"config": ..., "repeatable": whether a second run gives the same numbers,
                     "arms": engine and settings of each, "tuned": learning rates that were found,
                     "versions": ..., "machine": ..., "command": ...,
                     "parts": in how many parts it runs, if it does, see simulator/experiment/parts.py}
OUT/checkpoint/G/    snapshot of everything after generation G; only the newest is kept, none after the end
OUT/parts/           of a run in parts, until result.json is there
OUT/result.json      see simulator/result.py
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch

from simulator.config import ExperimentConfig, as_json, as_plain
from simulator.errors import ResultError
from simulator.experiment.evaluation import State
from simulator.files import flicker_version, require_empty, write_atomically, writing
from simulator.models.snapshot import read_snapshot, write_snapshot
from simulator.result import Result, differences, load_json, write_result
from simulator.tuning import Tuned

CHECKPOINT_SHARE = 0.05
"""Checkpoints take at most about this share of a run's time: the next one waits for it."""


class Resumable(Protocol):
    """An experiment: its state, and all else that it needs to go on from here."""

    state: State

    def tensors(self) -> dict[str, torch.Tensor]:
        """See Experiment."""

    def restore(self, tensors: dict[str, torch.Tensor], state: State) -> None:
        """See Experiment."""


class Folder:
    """Where one run leaves what it found."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._saved_at = time.monotonic()
        self._cost = 0.0
        self._claimed = False

    def check(self, config: ExperimentConfig, resume: bool) -> None:
        """ResultError where a new run would overwrite something, or, to resume, where this very run is not there."""
        if resume:
            self._same_run(as_json(config))
        elif self.path.exists() and not self.path.is_dir():
            raise ResultError(f"out = {self.path}: a file: name another folder, or delete it")
        elif (self.path / "config.json").exists():
            hint = "name another folder, delete it, or go on with --resume"
            raise ResultError(f"out = {self.path}: holds another run: {hint}")
        else:
            require_empty(self.path, "empty it")

    def start(
        self,
        config: ExperimentConfig,
        command: str,
        designs: Mapping[str, Any] | None = None,
        tuned: Mapping[str, Tuned] | None = None,
    ) -> None:
        """Claim the folder for a new run; `designs` as of Engines. Raises ResultError where it cannot be written."""
        self.check(config, resume=False)
        self._claim(config, command, designs or {}, tuned or {})

    def join(
        self, config: ExperimentConfig, command: str, designs: Mapping[str, Any], tuned: Mapping[str, Tuned], parts: int
    ) -> None:
        """Claim the folder for a run in so many parts, or join those that did: two may at once, and write the same.

        Raises ResultError as `begun` does, and where engines or versions here would give other numbers than theirs.
        """
        if not self.begun(config, parts):
            self._claim(config, command, designs, tuned, {"parts": parts})
        held = self.about()
        for kind, theirs, ours in ("arms", held["arms"], designs), ("versions", held["versions"], versions()):
            if different := differences(as_plain(theirs), as_plain(ours)):
                hint = "run all parts on machines that are set up alike"
                raise ResultError(f"out = {self.path}: its other parts have other {kind} ({different}): {hint}")

    def begun(self, config: ExperimentConfig, parts: int) -> bool:
        """Whether some part of this very run was begun. Raises ResultError where the folder holds anything else."""
        names = set(os.listdir(self.path)) if self.path.is_dir() else set()
        if "config.json" in names:
            self._same_run(as_json(config), parts)
            return True
        if any(not name.startswith(".config.json.") for name in names) or self.path.is_file():
            raise ResultError(f"out = {self.path}: is not empty: name another folder, or empty it")
        return False

    def about(self) -> dict[str, Any]:
        """config.json. Raises ResultError where there is none."""
        path = self.path / "config.json"
        return load_json(path, "name a folder that `flicker run --out` wrote", "the file is damaged")

    def _claim(
        self,
        config: ExperimentConfig,
        command: str,
        designs: Mapping[str, Any],
        tuned: Mapping[str, Tuned],
        more: Mapping[str, Any] | None = None,
    ) -> None:
        about = {
            "config": as_json(config),
            "repeatable": config.repeatable,
            "arms": designs,
            "tuned": {spec: result.as_dict() for spec, result in tuned.items()},
            "versions": versions(),
            "machine": machine(),
            "command": command,
            **(more or {}),
        }
        with writing("out", self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / "config.json", json.dumps(about, indent=1).encode())
        self._claimed = True

    def rates(self) -> dict[str, float]:
        """The learning rates that the interrupted run found for specs with `lr=tuned`."""
        tuned = json.loads((self.path / "config.json").read_bytes()).get("tuned", {})
        return {spec: float(result["rate"]) for spec, result in tuned.items()}

    def withdraw(self) -> None:
        """Take back all of a run that cannot be brought to its end; one that was only resumed stays as it is."""
        if self._claimed:
            self.forget()
            (self.path / "config.json").unlink(missing_ok=True)
            with suppress(OSError):  # what somebody else put there stays
                self.path.rmdir()

    def _same_run(self, resolved: dict[str, Any], parts: int | None = None) -> None:
        """`parts`: how many the run is cut in; None where it is not."""
        try:
            held = json.loads((self.path / "config.json").read_bytes())
            config, cut = held["config"], held.get("parts")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise ResultError(f"out = {self.path}: no run to resume there: leave --resume away") from None
        if different := differences(config, resolved):
            raise ResultError(f"out = {self.path}: cannot resume with other settings ({different}): use the same ones")
        if cut != parts:
            stored, wanted = (f"in {count} parts" if count else "in one piece" for count in (cut, parts))
            raise ResultError(f"out = {self.path}: holds this run {stored}, not {wanted}: go on as it was begun")
        if (self.path / "result.json").exists():
            raise ResultError(f"out = {self.path}: this run is complete: flicker report {self.path}")

    def save(self, experiment: Resumable) -> None:
        """Write a checkpoint, unless the last one was so recent that they would cost more than CHECKPOINT_SHARE."""
        start = time.monotonic()
        if start - self._saved_at < self._cost / CHECKPOINT_SHARE:
            return
        root, generation = self.path / "checkpoint", experiment.state.generation
        with writing("out", self.path):
            write_snapshot(root / str(generation), experiment.tensors(), asdict(experiment.state))
            for old in root.iterdir():
                if old.name != str(generation):
                    shutil.rmtree(old, ignore_errors=True)  # gone already, where a part runs twice
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - start

    def restore(self, experiment: Resumable) -> None:
        """Put an experiment where its newest readable checkpoint stands; leave it at the start where there is none."""
        root = self.path / "checkpoint"
        names = [int(entry.name) for entry in root.iterdir() if entry.name.isdecimal()] if root.is_dir() else []
        for generation in sorted(names, reverse=True):
            try:
                tensors, about = read_snapshot(root / str(generation))
            except ResultError:  # written when the run was cut off: the one before it is still there
                continue
            experiment.restore(tensors, State(**about))
            return

    def finish(self, result: Result) -> None:
        """Write result.json, then forget the checkpoints, and what parts left."""
        write_result(self.path, result)
        self.forget()

    def forget(self) -> None:
        """Remove the checkpoints, and what parts left."""
        for name in ("checkpoint", "parts"):
            shutil.rmtree(self.path / name, ignore_errors=True)


def versions() -> dict[str, str]:
    """What the numbers may depend on."""
    packages = {package: version(package) for package in ("torch", "numpy", "safetensors")}
    return {"python": platform.python_version(), "flicker": flicker_version()} | packages


def machine() -> dict[str, Any]:
    """What the speed depends on."""
    description: dict[str, Any] = {"platform": platform.platform(), "cores": os.cpu_count()}
    description["torch_threads"] = torch.get_num_threads()
    description["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    if torch.cuda.is_available():
        description["gpu"] = torch.cuda.get_device_name()
    return description
