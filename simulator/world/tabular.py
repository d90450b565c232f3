"""A CSV or Parquet log with its mapping file, read twice: once to number and check everything, then for its rows.

Held in memory: vocabularies, one row of features per user and item, and one position per block; never the log (but
for `sort = true`, which loads it). Times out of order always stop: one wrong time would make all later rows suspect.
Shapes: n rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import compress
from pathlib import Path
from typing import Protocol

import numpy as np

from simulator.config import ReplayConfig
from simulator.errors import DataError
from simulator.types import Doubles, Floats, Ints
from simulator.world.features import Encoder
from simulator.world.log import BLOCK, Block, Index, Log, MemoryLog
from simulator.world.mapping import Mapping, read_mapping_file
from simulator.world.parquet import ParquetTable
from simulator.world.tables import Chunk, CsvTable, Damage, Position, Table, shown
from simulator.world.vocabulary import MOST_VALUES, Feature, Vocabulary, assemble, missing

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
    label = numbers(columns[mapping.label.text]) if mapping.label else np.ones(len(lines))
    sound = {
        mapping.time: np.abs(time) < LATEST,
        mapping.user: _present(columns[mapping.user]),
        mapping.item: _present(columns[mapping.item]),
    }
    wanted = {mapping.time: _time_wanted(mapping.time_unit), mapping.user: "a user", mapping.item: "an item"}
    if mapping.label:
        sound[mapping.label.text], wanted[mapping.label.text] = np.isin(label, (0, 1)), "0 or 1"
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


def open_mapped(path: Path, config: ReplayConfig, hash_rows: int = 0) -> Log:
    """The log that a mapping file describes; DataError naming file and line where anything is wrong with either."""
    mapping = read_mapping_file(path)
    log = Path(mapping.log.path)
    if not log.is_file():
        raise DataError(f"{log}: no such file; correct `log` in {path}")
    parquet = log.suffix in (".parquet", ".pq")
    table: Table = ParquetTable(log) if parquet else CsvTable(log, mapping.log.delimiter)
    mapping.check_columns(mapping.log, mapping.columns, table.columns)
    damage = Damage(config.bad_rows)
    if not mapping.sort:
        return MappedLog(mapping, FileRows(table, mapping, damage, config.limit), damage, hash_rows)
    source = SortedRows(FileRows(table, mapping, damage, None), config.limit)
    held = MappedLog(mapping, source, damage, hash_rows)
    return MemoryLog(held.name, held.encoder, held.labelled, Block.concatenate(list(held.blocks(0))), held.skipped_rows)


class RowSource(Protocol):
    """Sound rows in blocks, again and again."""

    def scan(self) -> Iterator[RowBlock]:
        """All blocks, once, checking."""

    def blocks(self, first: int) -> Iterator[RowBlock]:
        """After the scan: the same blocks from number `first` on."""


class FileRows:
    """Rows straight from the file."""

    def __init__(self, table: Table, mapping: Mapping, damage: Damage, limit: int | None) -> None:
        self.table, self.mapping = table, mapping
        self._damage, self._limit = damage, limit
        self._places: list[tuple[Position, int]] = []

    def scan(self) -> Iterator[RowBlock]:
        """All blocks; DataError for a damaged row (unless they are skipped) and, unless to be sorted, for disorder."""
        latest, left = -np.inf, self._limit or np.inf
        with closing(self.table.open(self.mapping.columns)) as reader:
            while left > 0:
                position, count = reader.position, int(min(BLOCK, left))
                if (chunk := reader.read(count)) is None:
                    return
                rows, faults = parse(chunk, self.mapping)
                for line, fault in faults:
                    self._damage.report(self.table.path, line, fault)
                if not self.mapping.sort and len(rows):
                    self._check_order(rows, latest)
                    latest = float(rows.time[-1])
                left -= len(rows)
                self._places.append((position, count))
                yield rows

    def blocks(self, first: int) -> Iterator[RowBlock]:
        """The blocks of the scan from number `first` on."""
        if first >= len(self._places):
            return
        try:
            opened = self.table.open(self.mapping.columns, self._places[first][0])
        except OSError as error:
            raise _changed(self.table.path) from error
        with closing(opened) as reader:
            for _, count in self._places[first:]:
                if (chunk := reader.read(count)) is None:
                    raise _changed(self.table.path)
                yield parse(chunk, self.mapping)[0]

    def _check_order(self, rows: RowBlock, latest: float) -> None:
        back = np.flatnonzero(np.diff(rows.time, prepend=latest) < 0)
        if len(back):
            row = int(back[0])
            before = float(rows.time[row - 1]) if row else latest
            raise DataError(
                f"{self.table.path}:{rows.lines[row]}: {self.mapping.time} = {rows.time[row]:.15g} s is earlier than "
                f"{before:.15g} s in the row before; sort the log, or set sort = true in {self.mapping.path.name}"
            )


class SortedRows:
    """All rows of a file, in memory, by time; rows of equal time stay in the file's order."""

    def __init__(self, source: FileRows, limit: int | None) -> None:
        parts = list(source.scan())
        time = np.concatenate([np.empty(0), *(part.time for part in parts)])
        order = np.argsort(time, kind="stable")[:limit]
        self._time = time[order]
        self._label = np.concatenate([np.empty(0, np.float32), *(part.label for part in parts)])[order]
        self._columns: dict[str, Sequence[Hashable]] = {}
        for column in source.mapping.columns:
            cells = [cell for part in parts for cell in part.columns[column]]
            self._columns[column] = [cells[row] for row in order]

    def scan(self) -> Iterator[RowBlock]:
        """All blocks."""
        return self.blocks(0)

    def blocks(self, first: int) -> Iterator[RowBlock]:
        """The blocks from number `first` on."""
        for start in range(first * BLOCK, len(self._time), BLOCK):
            part = slice(start, start + BLOCK)
            columns = {column: cells[part] for column, cells in self._columns.items()}
            yield RowBlock(columns, self._time[part], self._label[part], ())


class MappedLog:
    """A log (see simulator/world/log.py) whose rows are read and numbered anew each time."""

    def __init__(self, mapping: Mapping, source: RowSource, damage: Damage, hash_rows: int) -> None:
        """Scans the whole source; DataError where it is damaged or empty."""
        self.name, self.labelled = mapping.path.stem, mapping.label is not None
        self._mapping, self._source, self._damage = mapping, source, damage
        self._users, self._items = Vocabulary(), Vocabulary()
        self._features = [Feature(f.column, f.side, f.separator) for f in mapping.features]
        self._context = [feature for feature in self._features if feature.side == "context"]
        self.index = Index()
        for rows in source.scan():
            self._learn(rows)
        if not len(self._users):
            left_out = f" ({damage.skipped} damaged ones left out)" if damage.skipped else ""
            raise DataError(f"{mapping.log.path}: no rows in it{left_out}; give a log with at least one row")
        self.encoder: Encoder = assemble(len(self._users), len(self._items), self._features, hash_rows)

    @property
    def skipped_rows(self) -> int:
        """Damaged rows that were left out."""
        return self._damage.skipped

    def _learn(self, rows: RowBlock) -> None:
        """Numbers new users, items and values; the first row of a user or item says what describes it."""
        for side, column, vocabulary in (
            ("user", self._mapping.user, self._users),
            ("item", self._mapping.item, self._items),
        ):
            known = len(vocabulary)
            first = _first_rows(vocabulary.learn(rows.columns[column]), known)
            for feature in self._features:
                if feature.side == side:
                    cells = rows.columns[feature.name]
                    for row in first:
                        feature.append(cells[row])
        for feature in self._context:
            for cell in dict.fromkeys(rows.columns[feature.name]):
                feature.learn(cell)
        self.index.add(len(rows), int(rows.label.sum()), len(self._items))

    def blocks(self, first: int) -> Iterator[Block]:
        """The blocks from number `first` on; DataError where the file is not what it was at the scan."""
        schema = self.encoder.schema
        for number, rows in enumerate(self._source.blocks(first), start=first):
            try:
                user = self._users.look_up(rows.columns[self._mapping.user])
                item = self._items.look_up(rows.columns[self._mapping.item])
                parts = [f.rows(rows.columns[f.name], schema.first_row(f.name)) for f in self._context]
            except KeyError as error:
                raise _changed(Path(self._mapping.log.path)) from error
            if len(rows) != self.index.size(number):
                raise _changed(Path(self._mapping.log.path))
            context = np.concatenate([np.empty((len(rows), 0), np.int32), *parts], axis=1)
            yield Block(user, item, rows.time, rows.label, context)


def _first_rows(numbers: Ints, known: int) -> list[int]:
    """Rows where a number not below `known` appears for the first time (numbers rise by one as they appear)."""
    highest = np.maximum.accumulate(np.concatenate([[known - 1], numbers]))
    return np.flatnonzero(np.diff(highest)).tolist()


def _changed(path: Path) -> DataError:
    return DataError(f"{path}: changed while it was being read; start again with a log that stays as it is")
