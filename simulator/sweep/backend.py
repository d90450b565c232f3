"""Where the cells of a sweep run: what every backend gives; processes on this machine; a Ray cluster.

For a cluster (`pip install 'flicker-recsys[ray]'`) each cell is a task that sends its files back. Every node needs
Flicker installed and, for a replayed log, the log at the same path.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TextIO

from simulator.errors import FlickerError
from simulator.files import write_atomically
from simulator.process import last_line, wait_or_kill
from simulator.sweep.grid import Cell

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


class Processes:
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


def run_cell(cell: Cell) -> tuple[Files, str | None, float]:
    """Run one cell on this node; its files, why it failed (None: it did not), and the seconds that it took."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="flicker-cell-") as place:
        out = Path(place) / "result"
        done = subprocess.run(command(cell, out), env=environment(1), capture_output=True, text=True, check=False)
        failure = reason(done.stderr, done.returncode) if done.returncode else None
        files = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        return ({} if failure else files), failure, time.monotonic() - started


class OnRay:
    """Runs on all nodes of a cluster, one cell per core."""

    def __init__(self, address: str | None = None) -> None:
        """`address` of a cluster, such as `auto` or host:6379; None starts one on this machine.

        Raises FlickerError where Ray is not installed or the cluster cannot be reached.
        """
        try:
            ray: Any = import_module("ray")
        except ImportError:
            raise FlickerError("backend = ray: it is not installed: pip install 'flicker-recsys[ray]'") from None
        self._ray = ray
        if not ray.is_initialized():
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, include_dashboard=False)
            except (ConnectionError, ValueError, RuntimeError) as problem:
                reason = str(problem).splitlines()[0]
                raise FlickerError(f"address = {address}: {reason}: give that of a running cluster") from None
        self.workers = max(1, int(ray.cluster_resources().get("CPU", 1)))

    def run(self, cells: list[Cell], folder: Path) -> Iterator[Ended]:
        """See Backend."""
        ray, task = self._ray, self._ray.remote(num_cpus=1, max_retries=1)(run_cell)
        pending = {task.remote(cell): cell for cell in cells}
        try:
            while pending:
                (ready, *_), _ = ray.wait(list(pending), num_returns=1)
                cell = pending.pop(ready)
                try:
                    files, failure, seconds = ray.get(ready)
                except ray.exceptions.RayError as problem:
                    files, failure, seconds = {}, told(problem, ray.exceptions), 0.0
                _write(files, folder / cell.name)
                yield Ended(cell, seconds, failure)
        finally:
            for task_left in pending:
                ray.cancel(task_left, force=True)


def told(problem: Exception, kinds: Any) -> str:
    """Why Ray brings no result of a task, in one line; `kinds` is ray.exceptions."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()] or ["no reason given"]
    if isinstance(problem, kinds.RayTaskError):  # a traceback of the node, whose last line is the cause
        return lines[-1]
    return f"{type(problem).__name__}: {lines[0]}"


def _write(files: Files, folder: Path) -> None:
    """Lay a result down; result.json, which says that it is complete, comes last."""
    for name in sorted(files, key=lambda name: name == "result.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, files[name])
