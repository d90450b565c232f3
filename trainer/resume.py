"""A trainer's state on disk, saved as a whole or not at all.

    DIR/lock          held while a trainer uses the folder
    DIR/NUMBER/       that snapshot: weights, optimiser, pending gradients, validation, engagements, events read ahead,
                      and in its manifest the place in the log and the counters; only the newest is kept
    DIR/.saving/      one that is being written

A crash while saving leaves the state before; the log still holds what was learned since, for it is acknowledged only
behind what is saved.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from simulator.errors import ResultError
from simulator.files import flush, writing
from simulator.models.snapshot import read_snapshot, write_snapshot
from simulator.result import differences
from trainer.progressive import Scores

SAVING = ".saving"


@dataclass
class TrainerState:
    """What a trainer needs besides tensors to go on."""

    events: int = 0
    """Events of the log that were learned."""
    generation: int = 0
    """The last one that was cut; 0 before the first."""
    after: str = ""
    """The last entry that was read; what was not learned of it is among the tensors."""
    cut: float = 0.0
    """When the generation was cut, unix seconds."""
    scores: Scores = field(default_factory=dict)
    """Measures of each duplicate's predictions for the generation's events."""


class StateFolder:
    """Where one trainer keeps its state."""

    def __init__(self, path: Path, run: str) -> None:
        """`run`: name of the run that the state belongs to."""
        self.path, self._run = path, run
        self._lock: IO[str] | None = None

    def open(self) -> None:
        """Make the folder and claim it. Raises ResultError where that cannot be."""
        with writing("state", self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / "lock", "w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            hint = "stop it, or name another folder"
            raise ResultError(f"state = {self.path}: another trainer uses it: {hint}") from None

    def close(self) -> None:
        """Let another trainer use the folder."""
        if self._lock:
            self._lock.close()

    def load(self, settings: dict[str, Any]) -> tuple[dict[str, Tensor], TrainerState] | None:
        """The newest state, None where nothing was ever saved. `settings`: all that decides the numbers, as JSON.

        Raises ResultError where it is damaged, or was saved under other settings.
        """
        saved = self._saved()
        if not saved:
            return None
        tensors, about = read_snapshot(self.path / str(max(saved)))
        if different := differences(about["settings"], {"run": self._run, **settings}):
            hint = "use the same ones, or name another --state and --run"
            raise ResultError(f"state = {self.path}: cannot go on with other settings ({different}): {hint}")
        try:
            return tensors, TrainerState(**about["state"])
        except TypeError:
            hint = "name another --state and --run"
            raise ResultError(f"state = {self.path}: was saved by another version of Flicker: {hint}") from None

    def save(self, tensors: dict[str, Tensor], state: TrainerState, settings: dict[str, Any]) -> None:
        """Replace what is saved. Raises ResultError where the folder cannot be written."""
        with writing("state", self.path):
            number = max(self._saved(), default=0) + 1
            unfinished, finished = self.path / SAVING, self.path / str(number)
            shutil.rmtree(unfinished, ignore_errors=True)
            about = {"settings": {"run": self._run, **settings}, "state": asdict(state)}
            write_snapshot(unfinished, tensors, about)
            os.rename(unfinished, finished)
            flush(self.path)
            for old in self._saved():
                if old != number:
                    shutil.rmtree(self.path / str(old))

    def _saved(self) -> list[int]:
        return [int(entry.name) for entry in self.path.iterdir() if entry.name.isdecimal()]
