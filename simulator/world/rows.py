"""The rows of a log, or of a table beside it: each column checked, made numbers, and spooled to a file, batch by batch.

A row with a damaged cell is left out, or stops everything (Damage). Shapes: n rows of a batch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from simulator.pace import prefetched
from simulator.types import Doubles, Ints
from simulator.world.columns import as_number, as_seconds, as_text, flat, is_list, joined
from simulator.world.mapping import excerpt
from simulator.world.source import DamagedRows, RowPlace, Source
from simulator.world.values import Coder

if TYPE_CHECKING:
    from simulator.world.label import Label
    from simulator.world.mapping import FeatureColumn

LATEST = 1e11
"""Seconds: the year 5138. Milliseconds taken for seconds lie beyond it."""
MAX_BYTES = 1_024
"""Bytes of an id, or of a value."""
MAX_VALUES = 64
"""Values that one cell of a multi-valued feature may hold: every user or item gets as many slots as the longest."""
MAX_POSITION = 10_000
"""Largest position on a page."""
SLOW_BYTES = 50 << 20
"""Bytes of a log that takes long enough for a progress bar."""
LIST = "\x1f"
"""Stands between the values of a list."""

Cells = Any
"""Texts [n], pyarrow's, or numbers [n], NumPy's."""
IsValid = NDArray[np.bool_]
"""[n] which cells are valid."""


@dataclass
class Column:
    """One column while it is read: in the order of the files, then taken in another."""

    name: str
    wanted: str
    """What a valid cell is, for messages."""
    kind: type[np.generic]
    cells: Callable[[pa.RecordBatch], Cells]
    sound: Callable[[Cells], IsValid]
    coder: Coder | None = None
    """Makes numbers of texts."""
    separator: str | None = None
    """Between the values of a cell; None where it holds one."""

    def open(self, path: Path, stack: ExitStack) -> None:
        """Before the first cells; the file is where they are spooled."""
        self.path = path
        self._file = stack.enter_context(path.open("wb"))

    def append(self, cells: Cells) -> None:
        """More cells."""
        numbers = self.coder.code(cells) if self.coder else cells
        self._file.write(np.ascontiguousarray(numbers, self.kind).data)

    def end(self) -> None:
        """After the last ones."""
        if self.coder:
            self._file.write(self.coder.rest().data)

    def take(self, order: Ints | slice) -> np.ndarray[Any, Any]:
        """All cells, in an order, once: the file is removed then."""
        empty = self.path.stat().st_size == 0
        spooled = np.empty(0, self.kind) if empty else np.memmap(self.path, self.kind, "r").view(np.ndarray)
        taken = spooled[order] if isinstance(order, np.ndarray) else spooled[order].copy()
        self.path.unlink()
        return taken


def read(source: Source, columns: Sequence[Column], wanted: Sequence[str], damage: DamagedRows, folder: Path) -> None:
    """Spool the columns of all sound rows to the folder."""
    batches = (sound(place, batch, columns, damage) for place, batch in source.batches(wanted))
    with ExitStack() as stack, progress(source) as advance:
        for number, column in enumerate(columns):
            column.open(folder / f"{number}.spool", stack)
        for batch in prefetched(batches, 1):
            for column, cells in zip(columns, batch, strict=True):
                column.append(cells)
            advance(len(batch[0]))
        for column in columns:
            column.end()


def sound(place: RowPlace, batch: pa.RecordBatch, columns: Sequence[Column], damage: DamagedRows) -> list[Cells]:
    """The cells of each column, without the rows in which one is damaged: those are reported."""
    cells_of = [column.cells(batch) for column in columns]
    is_valid = [column.sound(cells) for column, cells in zip(columns, cells_of, strict=True)]
    is_good = np.logical_and.reduce(is_valid)
    if is_good.all():
        return cells_of
    row = int(np.argmin(is_good))

    def first() -> str:
        column = next(column for column, is_good in zip(columns, is_valid, strict=True) if not is_good[row])
        cell = batch.column(column.name)[row].as_py()
        return f"{place.of(row)}: {column.name} = {excerpt(cell)} is not {column.wanted}"

    damage.report(int(len(is_good) - is_good.sum()), first)
    return [cells[is_good] if isinstance(cells, np.ndarray) else cells.filter(pa.array(is_good)) for cells in cells_of]


def ids(name: str, wanted: str, coder: Coder) -> Column:
    """Users, items, pages."""
    sound = within(1, MAX_BYTES + 1)
    wanted = f"{wanted} of 1 to {MAX_BYTES:,} bytes"
    return Column(name, wanted, np.int32, lambda b: text_of(flat(b, name)), lambda texts: sound(sizes(texts)), coder)


def titles(name: str, coder: Coder) -> Column:
    """Texts that may be anything."""
    return Column(name, "a text", np.int32, lambda b: text_of(flat(b, name)), always_valid, coder)


def times(name: str, unit: str) -> Column:
    """Unix seconds."""
    hint = " (milliseconds? set time_unit in the mapping file)" if unit == "seconds" else ""
    form = unit if unit == "iso8601" or "%" in unit else f"unix {unit}"
    wanted = f"a time in {form} from 1970 on{hint}"
    return Column(name, wanted, np.float64, lambda b: doubles(as_seconds(flat(b, name), unit)), within(0, LATEST))


def labels(label: Label) -> Column:
    """1 or 0."""
    return Column(label.columns[0], "0 or 1", np.uint8, lambda b: label.of(b).fill_null(2).to_numpy(), within(0, 2))


def numbers(name: str) -> Column:
    """Finite numbers; all else is unknown."""
    return Column(name, "a number", np.float64, number_of(name), always_valid)


def weights(name: str) -> Column:
    """0 or more."""
    return Column(name, "a weight, 0 or more", np.float32, number_of(name), within(0, 3e38))


def places(name: str) -> Column:
    """Positions on a page, as the log counts them."""
    wanted = f"a position, a whole number from 0 to {MAX_POSITION:,}"
    return Column(name, wanted, np.int32, number_of(name), within(0, MAX_POSITION + 1, whole=True))


def categories(feature: FeatureColumn, coder: Coder) -> Column:
    """Cells that hold a value, or several: a list, or a text with separators."""

    def texts(batch: pa.RecordBatch) -> pa.StringArray:
        cells = batch.column(feature.column)
        if not is_list(cells.type):
            return text_of(cells)
        column.separator = LIST
        return joined(cells, LIST)

    def sound(texts: pa.StringArray) -> IsValid:
        if column.separator is None:
            return sizes(texts) <= MAX_BYTES
        column.wanted = f"at most {MAX_VALUES} values"
        return counts(pc.count_substring(texts, column.separator)) < MAX_VALUES

    wanted = f"a value of at most {MAX_BYTES:,} bytes"
    column = Column(feature.column, wanted, np.int32, texts, sound, coder, feature.separator)
    return column


def number_of(name: str) -> Callable[[pa.RecordBatch], Doubles]:
    """Reads a column of a batch as numbers."""
    return lambda batch: doubles(as_number(flat(batch, name)))


def text_of(column: pa.Array) -> pa.StringArray:
    """[n] a column as text."""
    return column if pa.types.is_string(column.type) else as_text(column)


def sizes(texts: pa.StringArray) -> NDArray[np.int32]:
    """[n] bytes, 0 where there is no text."""
    return counts(pc.binary_length(texts))


def counts(column: pa.Array) -> NDArray[np.int32]:
    """[n] whole numbers, null is 0."""
    return column.fill_null(0).to_numpy()  # type: ignore[no-any-return]


def doubles(column: pa.Array) -> Doubles:
    """[n] numbers, null is not-a-number."""
    return column.fill_null(np.nan).to_numpy()  # type: ignore[no-any-return]


def within(low: float, end: float, whole: bool = False) -> Callable[[Cells], IsValid]:
    """Whether numbers lie from `low` to below the end, and are whole ones where they have to be."""
    return lambda cells: (cells >= low) & (cells < end) & (not whole or cells == np.floor(cells))


def always_valid(cells: Cells) -> IsValid:
    """Every cell is fine."""
    return np.ones(len(cells), np.bool_)


@contextmanager
def progress(source: Source) -> Iterator[Callable[[int], None]]:
    """Shows a terminal how many rows have been read; nothing where there is none, or little to read."""
    if not sys.stderr.isatty() or sum(part.size for part in source.parts) < SLOW_BYTES:
        yield lambda rows: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("reading {task.description}: {task.completed:,.0f} rows"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(Path(source.parts[0].path).name)
        yield lambda rows: bar.advance(task, rows)
