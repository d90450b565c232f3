"""From raw cells to times, labels and sound rows: what makes a row of a CSV or Parquet log damaged.

Shapes: n rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import compress

import numpy as np

from simulator.types import Doubles, Floats
from simulator.world.damage import shown
from simulator.world.mapping import Mapping
from simulator.world.tables import Chunk
from simulator.world.vocabulary import MOST_VALUES, missing

LATEST = 1e11
"""Seconds: the year 5138. Milliseconds taken for seconds lie beyond it."""

Cells = Sequence[Hashable]
Fault = tuple[int, str]
"""Line and reason."""


@dataclass(frozen=True)
class RowBlock:
    """Sound rows, not yet numbered."""

    columns: dict[str, Cells]
    """Per column the cells [n]."""
    time: Doubles
    """[n] unix seconds."""
    label: Floats
    """[n] 1 or 0; 1 everywhere in a log of engagements."""
    lines: Sequence[int]
    """[n] line in the file."""

    def __len__(self) -> int:
        return len(self.time)


def parse(chunk: Chunk, mapping: Mapping) -> tuple[RowBlock, list[Fault]]:
    """The sound rows of a chunk, and the faults of all others by line."""
    columns, lines = chunk.columns, chunk.lines
    time = instants(columns[mapping.time], mapping.time_unit)
    label = numbers(columns[mapping.label]) if mapping.label else np.ones(len(lines))
    sound = {
        mapping.time: np.abs(time) < LATEST,
        mapping.user: _present(columns[mapping.user]),
        mapping.item: _present(columns[mapping.item]),
    }
    wanted = {mapping.time: _time_wanted(mapping.time_unit), mapping.user: "a user", mapping.item: "an item"}
    if mapping.label:
        sound[mapping.label], wanted[mapping.label] = np.isin(label, (0, 1)), "0 or 1"
    for feature in mapping.features:
        if feature.separator is not None:
            lengths = [_values(cell, feature.separator) for cell in columns[feature.column]]
            sound[feature.column] = np.array(lengths, np.int64) <= MOST_VALUES
            wanted[feature.column] = f"at most {MOST_VALUES} values"
    good = np.logical_and.reduce(list(sound.values()))
    faults = list(chunk.faults)
    for row in np.flatnonzero(~good).tolist():
        column = next(column for column, ok in sound.items() if not ok[row])
        faults.append((lines[row], f"{column} = {shown(columns[column][row])} is not {wanted[column]}"))
    if not good.all():
        columns = {column: list(compress(cells, good)) for column, cells in columns.items()}
        lines = list(compress(lines, good))
    return RowBlock(columns, time[good], label[good].astype(np.float32), lines), sorted(faults)


def numbers(cells: Cells) -> Doubles:
    """[n] floats; not-a-number where a cell is none."""
    try:
        whole = np.array(cells, np.float64)
    except (ValueError, TypeError, OverflowError):
        whole = np.empty((0, 0))
    return whole if whole.ndim == 1 else np.array([_number(cell) for cell in cells], np.float64)


def instants(cells: Cells, unit: str) -> Doubles:
    """[n] unix seconds of times in a unit of the mapping file; not-a-number where a cell is none."""
    if unit == "iso8601" or any(isinstance(cell, datetime) for cell in cells):
        return np.array([_instant(cell) for cell in cells], np.float64)
    return numbers(cells) / (1_000 if unit == "milliseconds" else 1)


def _number(cell: Hashable) -> float:
    try:
        return float(cell)  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError):
        return np.nan


def _instant(cell: Hashable) -> float:
    """Seconds of an ISO 8601 text or a datetime; UTC where it names no zone."""
    try:
        time = cell if isinstance(cell, datetime) else datetime.fromisoformat(cell)  # type: ignore[arg-type]
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return np.nan


def _present(cells: Cells) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.fromiter((not missing(cell) for cell in cells), bool, len(cells))


def _values(cell: Hashable, separator: str) -> int:
    """Values of a multi-valued cell, doubles counted."""
    if isinstance(cell, tuple):
        return len(cell)
    return cell.count(separator) + 1 if isinstance(cell, str) else 1


def _time_wanted(unit: str) -> str:
    if unit == "iso8601":
        return "an ISO 8601 time"
    hint = " (milliseconds? set time_unit in the mapping file)" if unit == "seconds" else ""
    return f"a unix time in {unit}{hint}"
