"""Raw rows of a Parquet log, batch by batch; the one place that needs pyarrow (the extra `flicker-recsys[parquet]`)."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from simulator.errors import DataError
from simulator.world.tables import Chunk, Position

BATCH = 8_192
"""Rows decoded at once."""


def _pyarrow(path: Path) -> ModuleType:
    """pyarrow with its submodules, imported on first use."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{path}: reading Parquet needs pyarrow; pip install 'flicker-recsys[parquet]'") from error
    return pyarrow  # type: ignore[no-any-return]


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """pyarrow's errors as one line that names the file."""
    arrow = _pyarrow(path)
    try:
        yield
    except (arrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: damaged or not Parquet ({reason}); write the file again") from error


class ParquetTable:
    """A Parquet file; its columns may hold texts, numbers, timestamps, and lists of them."""

    def __init__(self, path: Path) -> None:
        """DataError where the file is damaged or pyarrow is not installed."""
        self.path = path
        with _damage_named(path), _pyarrow(path).parquet.ParquetFile(path) as file:
            self.columns: tuple[str, ...] = tuple(file.schema_arrow.names)

    def open(self, wanted: Sequence[str], position: Position | None = None) -> ParquetReader:
        """A reader of some columns, from the start or from where another reader was."""
        return ParquetReader(self.path, wanted, (position or (0, 0))[0])


class ParquetReader:
    """Goes through a Parquet file once; a row's line is its number, from 1."""

    def __init__(self, path: Path, wanted: Sequence[str], row: int) -> None:
        self._path, self._row = path, row
        with _damage_named(path):
            self._arrow = _pyarrow(path)
            # Without pre_buffer: it would hold a whole row group, which may be the whole log
            self._file = self._arrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
            self._check_kinds(wanted)
            groups = self._file.metadata.num_row_groups
            starts = np.cumsum([0] + [self._file.metadata.row_group(group).num_rows for group in range(groups)])
            first = min(int(np.searchsorted(starts, row, side="right")) - 1, groups)
            self._batches = self._file.iter_batches(BATCH, row_groups=range(first, groups), columns=list(wanted))
            self._pending = self._file.schema_arrow.empty_table().select(list(wanted))
            self._skip(row - int(starts[first]))

    def _skip(self, rows: int) -> None:
        """Passes over the rows of the first row group that come before the position."""
        while rows > 0 and (batch := next(self._batches, None)) is not None:
            rows -= len(batch)
            if rows < 0:
                self._pending = self._arrow.Table.from_batches([batch.slice(len(batch) + rows)])

    def _check_kinds(self, wanted: Sequence[str]) -> None:
        """DataError for a column of structures or maps."""
        kinds = self._arrow.types
        for name in wanted:
            kind = self._file.schema_arrow.field(name).type
            value = kind.value_type if kinds.is_list(kind) or kinds.is_large_list(kind) else kind
            if kinds.is_nested(value):
                hint = "columns may hold texts, numbers, timestamps and lists of them"
                raise DataError(f"{self._path}: column {name!r} holds {kind}; {hint}")

    @property
    def position(self) -> Position:
        """Rows before the next one, twice."""
        return self._row, self._row

    def read(self, count: int) -> Chunk | None:
        """The next `count` rows, fewer at the end; None when there are no more."""
        with _damage_named(self._path):
            while len(self._pending) < count and (batch := next(self._batches, None)) is not None:
                table = self._arrow.Table.from_batches([batch])
                self._pending = self._arrow.concat_tables([self._pending, table]) if len(self._pending) else table
            part, self._pending = self._pending.slice(0, count), self._pending.slice(count)
            if not len(part):
                return None
            columns: dict[str, Sequence[Hashable]] = {
                name: self._cells(part.column(name)) for name in part.column_names
            }
        lines = range(self._row + 1, self._row + 1 + len(part))
        self._row += len(part)
        return Chunk(columns, lines, [])

    def _cells(self, column: Any) -> list[Hashable]:
        """Python values: not-a-number is empty, dates and timestamps are datetimes, lists are tuples."""
        kinds, kind = self._arrow.types, column.type
        if kinds.is_floating(kind):
            column = self._arrow.compute.if_else(self._arrow.compute.is_nan(column), None, column)
        elif kinds.is_timestamp(kind) or kinds.is_date(kind):
            zone = "UTC" if kinds.is_timestamp(kind) and kind.tz else None
            column = column.cast(self._arrow.timestamp("us", zone), safe=False)
        cells: list[Any] = column.to_pylist()
        return [tuple(cell) if isinstance(cell, list) else cell for cell in cells]

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
