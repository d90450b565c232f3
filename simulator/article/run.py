"""Runs what is missing of a grid on each world, and keeps a line per finished cell: stopped anywhere, it goes on.

Units come first: after the first three seeds everything can be looked at, with intervals that more seeds make narrower.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.progress import TimeElapsedColumn

from simulator.article import grid
from simulator.article.table import CellResult, line_of, read_lines, write_lines
from simulator.config import require
from simulator.result import read_result
from simulator.sweep.backend import Backend, OnRay, Processes
from simulator.sweep.record import Cell
from simulator.terminal import open_console, progress_bar
from simulator.words import duration, plural

CELLS = "cells.jsonl"


@dataclass(frozen=True)
class GridFlags:
    """Run the grid that decides the article's claims (docs/protocol.md) on made-up worlds, and on your logs.

    What a cell found is a line of OUT/cells.jsonl: a run that was stopped goes on there, on any machine."""

    out: Path = Path("docs/article")
    """Folder of cells.jsonl, and of what `flicker article write` makes of it."""
    data: tuple[Path, ...] = ()
    """Logs to run on too, as in `flicker run --data`."""
    made_up: tuple[str, ...] = grid.INTERACTIONS
    """Made-up worlds by the share of the variance of their log-odds that is user x item; none: `--made-up` alone."""
    size: Literal["core", "quick", "full"] = "core"
    """core: decides the claims, 90 minutes on two cores. quick: everything once, minutes, wide intervals. full: twice
    the seeds, more rivals and cures, every condition on every world: a night, or a cluster."""
    backend: Literal["local", "ray"] = "local"
    """Where cells run."""
    address: str | None = None
    """Of a Ray cluster, such as auto (default: one on this machine)."""
    jobs: int | None = None
    """Cells at once on this machine (default: one per core)."""
    only: tuple[str, ...] = ()
    """Groups of cells to run, such as activations norms cures; all by default."""
    limit: int = 0
    """Stop after this many cells; 0: after all."""

    def __post_init__(self) -> None:
        require(self.jobs is None or self.jobs >= 1, "jobs", self.jobs, "at least 1")
        for share in self.made_up:
            require(share in grid.INTERACTIONS, "made-up", share, f"of {', '.join(grid.INTERACTIONS)}")
        require(len(self.data) + len(self.made_up) > 0, "made-up", "none", "a made-up world, or a log with --data")

    def cells(self) -> list[Cell]:
        """All runs, logs first."""
        all_cells = []
        for log in self.data:
            groups = grid.core(everything=True) if self.size == "core" else _groups(self.size)
            all_cells += grid.cells(log.stem, ("--data", str(log)), groups)
        for share in self.made_up:
            groups = grid.core(everything=share == "0.5") if self.size == "core" else _groups(self.size)
            events = grid.MADE_UP if self.size != "quick" else grid.MADE_UP.replace("240000", "80000")
            all_cells += grid.cells(f"made-up {share}", (*events.split(), "--interaction", share), groups)
        known = dict.fromkeys(cell.place["group"] for cell in all_cells)
        for name in self.only:
            require(name in known, "only", name, f"of {', '.join(known)}")
        return [cell for cell in all_cells if not self.only or cell.place["group"] in self.only]


def _groups(size: str) -> Iterator[grid.ArmGroup]:
    return grid.quick() if size == "quick" else grid.full()


def run_grid(flags: GridFlags) -> int:
    """Run; returns the exit code: 1 where a cell has failed. Raises FlickerError.

    For the main thread: SIGTERM ends it as Ctrl-C does, since its runs would not end with it.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console, path, work = open_console(), flags.out / CELLS, flags.out / "work"
    done = {line.name: line for line in read_lines(path)}
    cells = flags.cells()
    missing = [cell for cell in cells if not _is_done(cell, done)]
    missing = sorted(missing, key=lambda cell: int(cell.place["seed"]))[: flags.limit or None]
    console.print(f"{plural(len(cells), 'cell')}, {len(missing)} to run; lines go to {path}; Ctrl-C is safe")
    if not missing:
        return 0
    work.mkdir(parents=True, exist_ok=True)
    backend: Backend = OnRay(flags.address) if flags.backend == "ray" else Processes(flags.jobs)
    started, failed = time.monotonic(), 0
    with progress_bar(console, TimeElapsedColumn(), "{task.fields[left]}") as bar:
        task = bar.add_task("cells", total=len(missing), left="")
        for number, ended in enumerate(backend.run(missing, work), 1):
            seconds_per_cell = (time.monotonic() - started) / number
            bar.update(task, advance=1, left=f"{duration(seconds_per_cell * (len(missing) - number))} left")
            outcome = f"failed: {ended.failure}" if ended.failure else f"done in {duration(ended.seconds)}"
            bar.console.print(f"{ended.cell.name}: {outcome}", soft_wrap=True, markup=False)
            failed += ended.failure is not None
            if not ended.failure:
                folder = work / ended.cell.name
                line = line_of(read_result(folder), ended.cell.place, recorded(ended.cell))
                write_lines(path, [*({kept.name: kept for kept in read_lines(path)} | {line.name: line}).values()])
                shutil.rmtree(folder)
    return 1 if failed else 0


def _is_done(cell: Cell, done: dict[str, CellResult]) -> bool:
    line = done.get(f"{cell.place['world']} {cell.place['group']} {cell.place['seed']}")
    return line is not None and line.arguments == recorded(cell)


def recorded(cell: Cell) -> list[str]:
    """Its arguments without the place of a log on this machine."""
    arguments: Sequence[str] = cell.arguments
    if arguments[0] != "--data":
        return list(arguments)
    return ["--data", Path(arguments[1]).stem, *arguments[2:]]
