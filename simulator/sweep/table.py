"""The results of a sweep as one table: a row per cell and arm, in sweep.csv and on the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from simulator.errors import ResultError
from simulator.files import as_csv, write_atomically
from simulator.result import Arm, read_result
from simulator.sweep.grid import Cell
from simulator.words import DASH, duration, label, number, written

SHOWN = (("pair swaps", "swaps.pair", None), ("log loss", "log_loss", 4))
"""Heading, measure, places after the point, of the terminal's columns that are means alone."""


@dataclass(frozen=True)
class Row:
    """One arm of one cell."""

    cell: Cell
    arm: Arm


def rows(cells: list[Cell], folder: Path) -> tuple[list[Row], list[ResultError]]:
    """Every arm of every finished cell, and what is wrong with the results that cannot be read."""
    readable, unread = list[Row](), list[ResultError]()
    for cell in cells:
        if (folder / cell.name / "result.json").exists():
            try:
                readable += [Row(cell, arm) for arm in read_result(folder / cell.name).arms]
            except ResultError as problem:
                unread.append(problem)
    return readable, unread


def write_csv(rows: list[Row], path: Path) -> None:
    """The axes, the arm, and all measures with their limits; empty where a run has no such measure."""
    axes = _axes(rows)
    measures = list(dict.fromkeys(name for row in rows for name in row.arm.measures))
    costs = list(dict.fromkeys(name for row in rows for name in row.arm.costs))
    limits = [f"{name}{part}" for name in measures for part in ("", "_low", "_high")]
    lines = [["cell", *(f"axis_{axis}" for axis in axes), "arm", *limits, *costs]]
    for row in rows:
        values = [row.cell.name, *(row.cell.place.get(axis, "") for axis in axes), row.arm.spec]
        for name in measures:
            interval = row.arm.measures.get(name)
            values += (
                ["", "", ""] if interval is None else [str(v) for v in (interval.mean, interval.low, interval.high)]
            )
        lines.append(values + [str(row.arm.costs.get(name, "")) for name in costs])
    write_atomically(path, as_csv(lines).encode())


def table_of(rows: list[Row]) -> Table:
    """The terminal's table; where a cell stands in the grid is said once, by values alone."""
    axes = {tuple(axis for axis in row.cell.place if axis != "arms") for row in rows}
    table, last = Table(box=SIMPLE_HEAD), ""
    for heading in (" ".join(axes.pop()) if len(axes) == 1 else "cell", "arm"):
        table.add_column(heading, no_wrap=True)
    for heading in ("PD", *(heading for heading, *_ in SHOWN), "train time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        measures = row.arm.measures
        values = [number(measures[name].mean, n) if name in measures else DASH for _, name, n in SHOWN]
        values.insert(0, written(measures.get("pd")).replace(" to ", "–"))
        seconds = row.arm.costs.get("train_seconds")
        place = " ".join(value for axis, value in row.cell.place.items() if axis != "arms")
        cell, last = ("" if place == last else place), place
        table.add_row(cell, label(row.arm.spec), *values, DASH if seconds is None else duration(seconds))
    return table


def _axes(rows: list[Row]) -> list[str]:
    """Of all cells: those of several grids do not have the same."""
    return list(dict.fromkeys(axis for row in rows for axis in row.cell.place))
