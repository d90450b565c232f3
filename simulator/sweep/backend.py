"""Where the cells of a sweep run: what every backend gives; processes on this machine; a Ray cluster.

On a cluster (simulator/cluster.py) each cell is a task that sends its files back.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

from simulator.cluster import Cluster
from simulator.files import write_atomically
from simulator.flags import Resources
from simulator.process import last_line, wait_or_kill
from simulator.sweep.record import Cell

PATIENCE = 10.0
"""Seconds that a run has to end after it was asked to."""
POLL = 0.05
"""Seconds between looks at the processes."""


@dataclass(frozen=True)
class Ended:
    """A cell whose run has ended."""

    cell: Cell
    seconds: float
    """Wall clock."""
    failure: str | None
    """Why there is no result: the last line that the run wrote to standard error; None where it succeeded."""


class Backend(Protocol):
    """Runs cells side by side."""

    workers: int
    """How many cells run at once."""

    def run(self, cells: list[Cell], folder: Path) -> Iterator[Ended]:
        """Run each cell into its folder `folder`/NAME, telling of each as it ends, in any order.

        Closing the iterator ends all that still runs.
        """


def command(cell: Cell, out: Path) -> list[str]:
    """The command of one cell; it goes on where an earlier attempt was cut off."""
    going_on = ["--resume"] if (out / "config.json").exists() else []
    return [sys.executable, "-m", "simulator", "run", *cell.arguments, "--out", str(out), *going_on]


def environment(threads: int) -> dict[str, str]:
    """Variables of a run that may use so many threads."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}


def reason(text: str, code: int) -> str:
    """What went wrong, in the words of the run."""
    return last_line(text).removeprefix("flicker: ") or f"ended with exit code {code} and said nothing"


class Processes(Backend):
    """Runs on this machine, at most `workers` at once, each with its share of the cores."""

    def __init__(self, workers: int | None = None) -> None:
        cores = os.cpu_count() or 1
        self.workers = workers or cores
        self._threads = max(1, cores // self.workers)

    def run(self, cells: list[Cell], folder: Path) -> Iterator[Ended]:
        """See Backend. What a failed run wrote stays in `folder`/NAME.log."""
        waiting, running = deque(cells), list[_Running]()
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    running.append(_Running(waiting.popleft(), folder, self._threads))
                ended = [one for one in running if one.process.poll() is not None]
                running = [one for one in running if one not in ended]
                yield from (one.ended() for one in ended)
                time.sleep(POLL)
        finally:
            for one in running:
                one.process.terminate()
            for one in running:
                one.stop()


class _Running:
    """One run and its log."""

    def __init__(self, cell: Cell, folder: Path, threads: int) -> None:
        self.cell, self.started = cell, time.monotonic()
        self._log = folder / f"{cell.name}.log"
        self._file: TextIO = self._log.open("w")
        # a session of its own: Ctrl-C is for the sweep, which then ends its runs
        self.process = subprocess.Popen(
            command(cell, folder / cell.name),
            stdout=subprocess.DEVNULL,
            stderr=self._file,
            env=environment(threads),
            start_new_session=True,
        )

    def ended(self) -> Ended:
        """What came of it; the log is only kept where it failed."""
        self._file.close()
        seconds, code = time.monotonic() - self.started, self.process.returncode
        if code:
            return Ended(self.cell, seconds, reason(self._log.read_text(errors="replace"), code))
        self._log.unlink()
        return Ended(self.cell, seconds, None)

    def stop(self) -> None:
        """Wait until the process that was asked to end has ended, not for ever."""
        wait_or_kill(self.process, PATIENCE)
        self._file.close()


Files = dict[str, bytes]
"""Path below the result folder -> content."""


def run_cell(cell: Cell, threads: int) -> tuple[Files, str | None, float]:
    """Run one cell on this node with so many threads; its files, why it failed (None: it did not), and its seconds."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="flicker-cell-") as place:
        out = Path(place) / "result"
        done = subprocess.run(command(cell, out), env=environment(threads), capture_output=True, text=True, check=False)
        failure = reason(done.stderr, done.returncode) if done.returncode else None
        files = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        return ({} if failure else files), failure, time.monotonic() - started


class OnRay(Backend):
    """Runs on all nodes of a Ray cluster, each cell with its own share of a node."""

    def __init__(self, address: str | None = None, resources: Resources | None = None) -> None:
        """`address` as of Cluster, which also says what it raises; one core for each cell unless said."""
        self._resources = resources or Resources()
        self._cluster = Cluster(address, self._resources)
        self.workers = self._cluster.room

    def run(self, cells: list[Cell], folder: Path) -> Iterator[Ended]:
        calls = [(cell, self._resources.threads) for cell in cells]
        with closing(self._cluster.run(run_cell, calls, retries=1)) as ending:
            for done in ending:
                cell = cells[done.number]
                files, failure, seconds = done.result or ({}, done.lost, 0.0)
                _write(files, folder / cell.name)
                yield Ended(cell, seconds, failure)


def _write(files: Files, folder: Path) -> None:
    """Lay a result down; result.json, which says that it is complete, comes last."""
    for name in sorted(files, key=lambda name: name == "result.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, files[name])
