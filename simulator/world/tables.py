"""Raw rows of a log in chunks, from any remembered position on, never the whole file; CSV here, Parquet next door.

Text is UTF-8, or Latin-1 where a line is not. Blank lines of a CSV are passed over. At a damaged row reading stops with
the row's place, or the row is left out and counted.
"""

from __future__ import annotations

import csv
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from simulator.errors import DataError

SHOWN = 60
"""Characters of a damaged value that a message shows."""


class Damage:
    """Receives every damaged row of a log, in log order."""

    def __init__(self, bad_rows: Literal["stop", "skip"]) -> None:
        self.skipped = 0
        """Rows left out so far."""
        self._stop = bad_rows == "stop"

    def report(self, path: Path, line: int, fault: str) -> None:
        """Raise DataError for the row at this line (1 is the first), or count it."""
        if self._stop:
            raise DataError(f"{path}:{line}: {fault}; correct the row, or leave damaged rows out with --bad-rows skip")
        self.skipped += 1


def shown(value: object) -> str:
    """A value as a message shows it: on one line and not too long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def decoded(line: bytes) -> str:
    """UTF-8, or else Latin-1 (as the titles of MovieLens 1M are)."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")


BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Position = tuple[int, int]
"""Where to go on reading: byte offset and lines before it (CSV), or twice the rows before it (Parquet)."""


@dataclass(frozen=True)
class Chunk:
    """Adjacent rows as they are in the file."""

    columns: dict[str, Sequence[Hashable]]
    """Per wanted column the cells [n]; None or "" is empty."""
    lines: Sequence[int]
    """[n] line (CSV) or row (Parquet), 1 is the first."""
    faults: list[tuple[int, str]]
    """Line and reason of the rows that could not be taken apart; they are not among the n."""


class Reader(Protocol):
    """Goes through a table once."""

    @property
    def position(self) -> Position:
        """Where the next chunk starts."""

    def read(self, count: int) -> Chunk | None:
        """The next `count` rows, fewer at the end; None when there are no more."""

    def close(self) -> None:
        """Closes the file."""


class Table(Protocol):
    """A file of named columns."""

    path: Path
    columns: tuple[str, ...]

    def open(self, wanted: Sequence[str], position: Position | None = None) -> Reader:
        """A reader of some columns, from the start or from where another reader was."""


class CsvTable:
    """A CSV file with a header line."""

    def __init__(self, path: Path, delimiter: str) -> None:
        self.path, self.delimiter = path, delimiter
        with path.open("rb") as file:
            lines = _Lines(file, len(BYTE_ORDER_MARK) if file.read(3) == BYTE_ORDER_MARK else 0, 0)
            try:
                self.columns = tuple(next(csv.reader(lines, delimiter=delimiter), []))
            except csv.Error as error:
                raise DataError(
                    f"{path}:1: not a CSV header ({error}); the first line must name the columns"
                ) from error
            self._start = lines.offset, lines.number
        if not self.columns:
            raise DataError(f"{path}: no header line; the first line must name the columns")

    def open(self, wanted: Sequence[str], position: Position | None = None) -> CsvReader:
        """A reader of some columns, from the start or from where another reader was."""
        return CsvReader(self, wanted, position or self._start)


class _Lines:
    """Lines of a file as text; knows how far it got (csv.reader never reads ahead of the record it returns)."""

    def __init__(self, file: BinaryIO, offset: int, number: int) -> None:
        file.seek(offset)
        self._file, self.offset, self.number = file, offset, number

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline()
        if not line:
            raise StopIteration
        self.offset += len(line)
        self.number += 1
        return decoded(line)


class CsvReader:
    """Goes through a CSV file once."""

    def __init__(self, table: CsvTable, wanted: Sequence[str], position: Position) -> None:
        self._width = len(table.columns)
        self._places = {column: table.columns.index(column) for column in wanted}
        self._file = table.path.open("rb")
        self._lines = _Lines(self._file, *position)
        self._rows = csv.reader(self._lines, delimiter=table.delimiter)

    @property
    def position(self) -> Position:
        """Byte offset and number of lines before it."""
        return self._lines.offset, self._lines.number

    def read(self, count: int) -> Chunk | None:
        """The next `count` rows, fewer at the end; None when there are no more."""
        rows: list[list[str]] = []
        starts: list[int] = []
        faults: list[tuple[int, str]] = []
        width, lines, source = self._width, self._lines, self._rows
        while len(rows) + len(faults) < count:
            line = lines.number + 1
            try:
                row = next(source)
            except StopIteration:
                break
            except csv.Error as error:
                faults.append((line, f"not a CSV row ({error})"))
                continue
            if len(row) == width:
                rows.append(row)
                starts.append(line)
            elif row:
                faults.append((line, f"{len(row)} cells where the header has {width}"))
        if not rows and not faults:
            return None
        cells = list(zip(*rows, strict=True)) or [()] * width
        return Chunk({column: cells[place] for column, place in self._places.items()}, starts, faults)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
