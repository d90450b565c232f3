"""The backend for a Ray cluster (`pip install 'flicker-recsys[ray]'`): each cell is a task that sends its files back.

Every node needs Flicker installed and, for a replayed log, the log at the same path.
"""

from __future__ import annotations

import logging
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from simulator.errors import FlickerError
from simulator.files import write_atomically
from simulator.sweep.backend import Ended, command, environment, reason
from simulator.sweep.grid import Cell

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
