"""`flicker sweep`: from its arguments to a folder of results.

OUT/cells/NAME/     the result folder of each cell, as `flicker run` leaves it
OUT/cells/NAME.log  what a run that failed said
OUT/damaged/NAME/   what could not be read there and was run again
OUT/sweep.json      the command, the cells with their arguments, and where each stands in its grid
OUT/sweep.csv       a row per finished cell and arm: all measures with their intervals
"""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import TimeElapsedColumn
from rich.table import Table

from simulator.errors import ResultError, SettingError
from simulator.files import as_csv, write_atomically
from simulator.flags import Resources, require_ray
from simulator.measures.words import DASH, duration, label, number, plural, written
from simulator.process import Parser
from simulator.result import Arm, read_result
from simulator.sweep.backend import Backend, Ended, OnRay, Processes
from simulator.sweep.grid import Grid, read_grid
from simulator.sweep.record import Cell, claim, set_aside
from simulator.terminal import open_console, progress_bar

HELP = """Run a grid of experiments; each cell is a result folder of `flicker run`.

  flicker sweep --vary arms relu smelu:beta=1 gelu --vary seed 0 1 2 --data ml-1m --fleets 3
  flicker sweep grid.toml --out results/grid
  flicker sweep grid.toml --out results/grid --resume       only what is missing
  flicker sweep grid.toml --backend ray --address auto --cpus 2      on a Ray cluster, two cores for each run

Whatever is not listed below is a flag of `flicker run` and the same for every cell. A file says the same in TOML:

  [run]
  data = "ml-1m"
  [vary]
  arms = ["relu", "smelu:beta=1", "relu gelu"]     # the last one: two arms in one run
  noise = [{ name = "none", window = 0 }, { name = "own start", window = 0, init = "own" }]

or several small grids, each a [[grid]] with name, run and vary.

A cell that fails is reported with its reason and does not stop the rest. Exit code 1 when any has failed."""
SHOWN = (("pair swaps", "swaps.pair", None), ("log loss", "log_loss", 4))
"""Heading, measure, places after the point, of the terminal's columns that are means alone."""


@dataclass(frozen=True)
class SweepFlags:
    """The sweep's own flags, and the grid."""

    cells: list[Cell]
    out: Path
    jobs: int | None
    backend: Literal["local", "ray"]
    address: str | None
    resources: Resources
    """Of each cell, on a cluster."""
    resume: bool


def parse(arguments: list[str]) -> SweepFlags:
    """From the command line. Prints help and exits with 0 for --help; raises FlickerError for what cannot be used."""
    parser = Parser(
        prog="flicker sweep",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        usage="flicker sweep [FILE.toml] [--vary FLAG VALUE ...] ... [flags of flicker run]",
    )
    parser.add_argument(
        "--vary", nargs="+", action="append", default=[], metavar="X", help="a flag of `flicker run` and its values"
    )
    parser.add_argument("--out", type=Path, help="folder of the results (default: results/sweep)", metavar="DIR")
    parser.add_argument("--resume", action="store_true", help="go on in --out: run what has no result yet")
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at once on this machine (default: one per core)")
    parser.add_argument("--backend", default="local", choices=["local", "ray"], help="where the runs are started")
    parser.add_argument("--address", help="of a Ray cluster, such as auto (default: one on this machine)")
    parser.add_argument("--cpus", type=float, default=1.0, help="cores of each run on a cluster (default: 1)")
    parser.add_argument("--gpus", type=float, default=0.0, help="its GPUs (default: 0; with --device cuda)")
    parser.add_argument("--memory", default="", metavar="SIZE", help="its memory, such as 2GiB (default: any)")
    options, rest = parser.parse_known_args(arguments)
    if options.jobs is not None and options.jobs < 1:
        raise SettingError("jobs", options.jobs, "at least 1")
    resources = Resources(options.cpus, options.gpus, options.memory)
    require_ray(options.backend, resources)
    grids = _grids(rest, any(axis == "data" for axis, *_ in options.vary))
    axes: dict[str, list[str]] = {}
    for axis, *values in options.vary:
        if not values:
            raise SettingError("vary", axis, f"values after it, as in --vary {axis} A B")
        if _flag(axis) in map(_flag, axes):
            raise SettingError("vary", axis, f"given twice: put all its values after one, as in --vary {axis} A B")
        axes[axis] = values
    grids = [Grid([*one.shared, *rest], _joined(one.axes, axes), one.name) for one in grids]
    cells = [cell for one in grids for cell in one.cells()]
    where = options.jobs, options.backend, options.address, resources
    return SweepFlags(cells, options.out or Path("results/sweep"), *where, options.resume)


def _flag(axis: str) -> str:
    """One spelling of a flag, which may be written with - or _."""
    return axis.replace("-", "_")


def _joined(axes: Mapping[str, Sequence[Any]], given: Mapping[str, list[str]]) -> dict[str, Sequence[Any]]:
    """The axes of a file with those of the command line, which go first where both name a flag."""
    spelled = {_flag(axis): axis for axis in axes}
    return {**axes, **{spelled.get(_flag(axis), axis): values for axis, values in given.items()}}


def _grids(rest: list[str], replay: bool) -> list[Grid]:
    """The grids of a file, whose name is taken out of `rest`; without one a single grid without axes.

    `replay`: a log is named by an axis.
    """
    replay = replay or any(word.partition("=")[0] == "--data" for word in rest)
    path = Path(rest.pop(0)) if rest and not rest[0].startswith("-") else None  # first: no value of a flag
    if path and path.suffix != ".toml":
        raise SettingError("file", path, "name a grid file that ends in .toml; see flicker sweep --help")
    return read_grid(path, replay) if path else [Grid()]


def run_sweep(flags: SweepFlags, command: str) -> int:
    """Run what has no result yet; prints a table. Returns the exit code: 1 when a cell has failed.

    For the main thread: SIGTERM ends it as Ctrl-C does, since its runs would not end with it.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cells, folder, console = flags.cells, flags.out / "cells", open_console()
    all_cells = claim(flags.out, cells, command, flags.resume)
    damaged = set_aside(cells, flags.out)
    missing = [cell for cell in cells if not (folder / cell.name / "result.json").exists()]
    on_cluster = missing and flags.backend == "ray"
    backend = OnRay(flags.address, flags.resources) if on_cluster else Processes(flags.jobs if missing else 1)
    done = len(cells) - len(missing)
    console.print(
        f"{plural(len(cells), 'cell')}, {done} done already, {min(backend.workers, max(1, len(missing)))} at a time; "
        f"results go to {flags.out}; Ctrl-C is safe (--resume goes on)",
        soft_wrap=True,
    )
    for line in damaged:
        console.print(line, soft_wrap=True, markup=False)
    failed = _run(backend, missing, folder, console, done)
    table_rows, unread = rows(all_cells, folder)
    write_csv(table_rows, flags.out / "sweep.csv")
    asked = {cell.name for cell in cells}
    console.print(table_of([(cell, arm) for cell, arm in table_rows if cell.name in asked]))
    for problem in unread:
        console.print(f"Left out: {problem}", soft_wrap=True, markup=False)
    console.print(f"All measures: {flags.out / 'sweep.csv'}", soft_wrap=True)
    if failed:
        console.print(f"[bold red]{plural(len(failed), 'cell')} failed:[/]")
        for one in failed:
            console.print(f"  {one.cell.name}: {one.failure}", soft_wrap=True, markup=False)
    return 1 if failed else 0


def _run(backend: Backend, missing: list[Cell], folder: Path, console: Console, done: int) -> list[Ended]:
    """Run cells, with a progress bar and the time left; returns those that failed."""
    failed: list[Ended] = []
    started = time.monotonic()
    with progress_bar(console, TimeElapsedColumn(), "{task.fields[left]}") as bar:
        task = bar.add_task("cells", total=done + len(missing), completed=done, left="")
        for number, one in enumerate(backend.run(missing, folder), 1):
            mean = (time.monotonic() - started) / number
            bar.update(task, advance=1, left=f"{duration(mean * (len(missing) - number))} left")
            outcome = f"failed: {one.failure}" if one.failure else f"done in {duration(one.seconds)}"
            bar.console.print(f"{one.cell.name}: {outcome}", soft_wrap=True, markup=False)
            if one.failure:
                failed.append(one)
    return failed


Row = tuple[Cell, Arm]
"""One arm of one cell."""


def rows(cells: list[Cell], folder: Path) -> tuple[list[Row], list[ResultError]]:
    """Every arm of every finished cell, and what is wrong with the results that cannot be read."""
    readable, unread = list[Row](), list[ResultError]()
    for cell in cells:
        if (folder / cell.name / "result.json").exists():
            try:
                readable += [(cell, arm) for arm in read_result(folder / cell.name).arms]
            except ResultError as problem:
                unread.append(problem)
    return readable, unread


def write_csv(rows: list[Row], path: Path) -> None:
    """The axes, the arm, and all measures with their limits; empty where a run has no such measure."""
    axes = list(dict.fromkeys(axis for cell, _ in rows for axis in cell.place))  # several grids have not the same
    measures = list(dict.fromkeys(name for _, arm in rows for name in arm.measures))
    costs = list(dict.fromkeys(name for _, arm in rows for name in arm.costs))
    limits = [f"{name}{part}" for name in measures for part in ("", "_low", "_high")]
    lines = [["cell", *(f"axis_{axis}" for axis in axes), "arm", *limits, *costs]]
    for cell, arm in rows:
        values = [cell.name, *(cell.place.get(axis, "") for axis in axes), arm.spec]
        for one in map(arm.measures.get, measures):
            values += ["", "", ""] if one is None else map(str, (one.mean, one.low, one.high))
        lines.append(values + [str(arm.costs.get(name, "")) for name in costs])
    write_atomically(path, as_csv(lines).encode())


def table_of(rows: list[Row]) -> Table:
    """The terminal's table; where a cell stands in the grid is said once, by values alone."""
    axes = {tuple(axis for axis in cell.place if axis != "arms") for cell, _ in rows}
    table, last = Table(box=SIMPLE_HEAD), ""
    for heading in (" ".join(axes.pop()) if len(axes) == 1 else "cell", "arm"):
        table.add_column(heading, no_wrap=True)
    for heading in ("PD", *(heading for heading, *_ in SHOWN), "train time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cell, arm in rows:
        measures = arm.measures
        values = [number(measures[name].mean, n) if name in measures else DASH for _, name, n in SHOWN]
        values.insert(0, written(measures.get("pd")).replace(" to ", "–"))
        seconds = arm.costs.get("train_seconds")
        place = " ".join(value for axis, value in cell.place.items() if axis != "arms")
        shown, last = ("" if place == last else place), place
        table.add_row(shown, label(arm.spec), *values, DASH if seconds is None else duration(seconds))
    return table
