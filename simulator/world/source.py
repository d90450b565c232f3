"""The files of a log as batches of raw columns, file by file, for coding.py.

A table is a file, a folder, a glob or an fsspec URL of CSV (plain or packed), Parquet, or the files of a family (see
families.py). Columns of Parquet keep their types, those of text are text; columns.py makes numbers and times of either.
Parts are unified by name: a column that one lacks is null there. Folders named `key=value` are columns, too. Text is
UTF-8, or Latin-1 where a line is not; blank lines are passed over.
"""

from __future__ import annotations

import csv
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal
from urllib.parse import unquote

import fsspec
import fsspec.implementations.local
import numpy as np

from simulator.errors import DataError
from simulator.types import Ints
from simulator.world.columns import as_text, decoded, is_list, is_text, pa, types
from simulator.world.families import DERIVED, UNIT, derived, prepared
from simulator.world.mapping import Table, excerpt

BLOCK, CHUNK = 8 << 20, 1 << 20
"""Bytes of text that are read at once, and that a thread takes apart."""
ROWS = 65_536
"""Rows of Parquet that are read at once."""
MAX_LINE_BYTES = 64 << 20
"""Bytes of a line of text."""
SUFFIXES = re.compile(r"\.(csv|tsv|txt|parquet|pq)(\.(gz|bz2|xz|zst))?$")
"""Of the files of a folder that are read."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class DamagedRows:
    """Receives every damaged row of a log, in log order."""

    def __init__(self, bad_rows: Literal["stop", "skip"]) -> None:
        self.skipped = 0
        """Rows left out so far."""
        self._stop = bad_rows == "stop"

    def report(self, rows: int, first: Callable[[], str]) -> None:
        """Counts damaged rows, or raises DataError with the first one's place and fault, from `first`."""
        if rows and self._stop:
            raise DataError(f"{first()}; correct the row, or leave damaged rows out with --bad-rows skip")
        self.skipped += rows


@dataclass(frozen=True)
class Part:
    """One file of a log."""

    path: str
    size: int
    """Bytes."""
    stamp: str
    """Modification time in nanoseconds, or ETag: it shows a changed file."""


@dataclass(frozen=True)
class RowPlace:
    """Where the rows of a batch stand, for messages: FILE:LINE for text, FILE: row N for Parquet."""

    path: str
    row: int
    """Of the batch's first row, from 0, among the rows of its part."""
    first_line: int = 0
    """Of `text`; 0: rows have no lines."""
    text: bytes = field(default=b"", repr=False)
    """As it is in the file; the batch is a part of it. Lines are exact unless damaged rows before were left out."""
    before: int = 0
    """Rows of `text` before the batch."""
    quotes: bool = True
    unfolded: Ints | None = field(default=None, repr=False)
    """[n] the line of the batch, from 0, that each row comes from, where lines hold several."""

    def of(self, row: int) -> str:
        """The place of row `row` of the batch, as messages write it."""
        if not self.first_line:
            return f"{self.path}: row {self.row + row + 1}"
        record = self.before + (row if self.unfolded is None else int(self.unfolded[row]))
        return f"{self.path}:{self.first_line + self.start(record)[0]}"

    def start(self, record: int) -> tuple[int, int]:
        """Where a row of `text` starts: the lines and the bytes before it."""
        in_quotes, offset = False, 0
        for line, content in enumerate(self.text.split(b"\n")):
            if not in_quotes and content.strip(b"\r"):
                if record == 0:
                    return line, offset
                record -= 1
            in_quotes ^= self.quotes and content.count(b'"') % 2 == 1
            offset += len(content) + 1
        return line, offset


class Source:
    """All rows of a log, or of a table beside it: files of one format. DataError where there are none to read."""

    def __init__(self, table: Table, damage: DamagedRows) -> None:
        self._table, self._damage = table, damage
        self._quotes = table.form == "plain" or table.delimiter == ","
        self._system, self._base, paths = _find(table.path)
        self.parts = tuple(_part(self._system, path) for path in paths)
        self._schemas = [self._schema(path) for path in paths]
        first = self._schemas[0].names
        raw_names = dict.fromkeys(name for schema in self._schemas for name in schema.names)
        self._derived = {name: raw for name, raw in DERIVED.get(table.form, {}).items() if raw in raw_names}
        self.columns: tuple[str, ...] = (*first, *(name for name in raw_names if name not in first), *self._derived)
        """All columns that there are."""

    def batches(self, wanted: Sequence[str]) -> Iterator[tuple[RowPlace, pa.RecordBatch]]:
        """All rows, some ten thousand at a time, with these columns.

        Rows that cannot be taken apart (a wrong number of cells) go to `damage`, and are not among them. DataError
        where a file is damaged, or a part has other types.
        """
        raw_names = list(dict.fromkeys(self._derived.get(name, name) for name in wanted))
        self.check_types(raw_names)
        for part, schema in zip(self.parts, self._schemas, strict=True):
            folders = self._folders(part.path)
            present = [name for name in raw_names if name in schema.names and name not in folders]
            with _damage_named(part.path):
                for place, batch in (self._parquet if _is_parquet(part.path) else self._text)(part.path, present):
                    columns = dict(zip(present, batch.columns, strict=True)) if present else {}
                    for name, value in folders.items():
                        columns[name] = pa.repeat(pa.scalar(value, pa.string()), len(batch))
                    if self._derived:
                        unfolded, columns = derived(self._table.form, columns)
                        place = replace(place, unfolded=unfolded)
                    rows = len(next(iter(columns.values()), batch))
                    columns |= {name: pa.nulls(rows) for name in wanted if name not in columns}
                    yield place, pa.record_batch({name: columns[name] for name in wanted})

    def _schema(self, path: str) -> pa.Schema:
        """Names and types of a file's columns; DataError where it is damaged."""
        with _damage_named(path):
            if _is_parquet(path):
                with pa.parquet.ParquetFile(self._opened(path)) as file:
                    schema = file.schema_arrow
            else:
                schema = pa.schema([(name, pa.string()) for name in self._names(path)])
        for name in self._folders(path):
            if name not in schema.names:
                schema = schema.append(pa.field(name, pa.string()))
        return schema

    def _folders(self, path: str) -> dict[str, str | None]:
        """Columns that the folders of a part name (day=2024-01-01/0.parquet), as Hive and Spark write them."""
        pairs = re.findall(r"(?<=/)([^/=]+)=([^/]*)(?=/)", path.removeprefix(self._base))
        return {name: None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value) for name, value in pairs}

    def _names(self, path: str) -> Sequence[str]:
        """The names of the columns of text."""
        if self._table.columns:
            return self._table.columns
        with self._system.open(path, compression="infer") as file:
            start = file.read(1 << 20).removeprefix(BYTE_ORDER_MARK)
        if b"\0" in start[:1_000]:
            raise DataError(f"{path}: no text in UTF-8 (UTF-16, or no CSV at all?); write it again as CSV in UTF-8")
        line, mark = decoded(start.split(b"\n", 1)[0].rstrip(b"\r")), self._table.delimiter
        names = next(csv.reader([line], delimiter=mark), []) if self._quotes else line.split(mark)
        if not line:
            raise DataError(f"{path}: no header line; the first line must name the columns, or `columns` does")
        return [name.rpartition(":")[0] for name in names] if self._table.form == "recbole" else names

    def check_types(self, wanted: Sequence[str]) -> None:
        """DataError for a column that changes its type between parts, or holds structures."""
        for name in wanted:
            first: tuple[str, str, pa.DataType] | None = None
            for part, schema in zip(self.parts, self._schemas, strict=True):
                if name not in schema.names:
                    continue
                kind = schema.field(name).type
                if (group := _group(kind)) == "structures":
                    hint = "columns may hold texts, numbers, dates, timestamps and lists of them"
                    raise DataError(f"{part.path}: column {name!r} holds {kind}; {hint}")
                first = first or ((group, part.path, kind) if group else None)
                if first and group and group != first[0]:
                    has = f"column {name!r} is {kind} here and {first[2]} in {first[1]}"
                    raise DataError(f"{part.path}: {has}; write one of them again with the type of the other")

    def _opened(self, path: str) -> Any:
        """The path or stream that pyarrow reads Parquet from."""
        return path if _is_local(self._system) else pa.PythonFile(self._system.open(path), mode="r")

    def _parquet(self, path: str, wanted: Sequence[str]) -> Iterator[tuple[RowPlace, pa.RecordBatch]]:
        # Without pre_buffer: it would hold a whole row group, which may be the whole log
        with pa.parquet.ParquetFile(self._opened(path), pre_buffer=False, buffer_size=1 << 20) as file:
            row = 0
            for batch in file.iter_batches(ROWS, columns=list(wanted)):
                yield RowPlace(path, row), _utf8_texts(batch)
                row += len(batch)

    def _text(self, path: str, wanted: Sequence[str]) -> Iterator[tuple[RowPlace, pa.RecordBatch]]:
        names, line, row = self._names(path), 1, 0
        with self._system.open(path, compression="infer") as file:
            for block in _blocks(file, path, self._quotes):
                text = block if block.isascii() else _utf8(block.removeprefix(BYTE_ORDER_MARK) if line == 1 else block)
                place = RowPlace(path, row, line, text, quotes=self._quotes)
                if line == 1 and not self._table.columns:
                    end = text.find(b"\n") + 1 or len(text)
                    place = replace(place, first_line=2, text=text[end:])
                line += count_of(b"\n", block)
                for position, batch in self._parsed_rows(place, names, wanted):
                    yield position, batch
                    row = position.row + len(batch)

    def _parsed_rows(
        self, place: RowPlace, names: Sequence[str], wanted: Sequence[str]
    ) -> Iterator[tuple[RowPlace, pa.RecordBatch]]:
        """The rows of a block of text; those with too few or too many cells are damage, reported in their turn."""
        while place.text.lstrip(b"\r\n"):  # without a copy
            table, faults = self._rows(place.text, names, wanted, threads=True)
            first = self._rows(place.text, names, names[:1], threads=False)[1][0] if faults else None
            sound_rows = first.number - 1 if first else len(table)
            yield from _batches(place, table.slice(0, sound_rows))
            if first is None:
                return
            open_quote = any("\n" in fault.text for fault in faults)
            place = replace(place, row=place.row + sound_rows, before=sound_rows)
            cells = f"{first.actual_columns} cells where there are {len(names)} columns"
            fault = f"{place.of(0)}: {cells}: {excerpt(first.text.replace(UNIT, '::'))}"
            self._damage.report(1 if open_quote else len(faults), partial(str, fault))
            if not open_quote:
                yield from _batches(place, table.slice(sound_rows))
                return
            # The lines behind it were taken for one cell: without its own line they are rows again
            line, start = place.start(sound_rows)
            end = place.text.find(b"\n", start) + 1 or len(place.text)
            place = replace(place, first_line=place.first_line + line + 1, text=place.text[end:], before=0)

    def _rows(
        self, raw: bytes, names: Sequence[str], wanted: Sequence[str], threads: bool
    ) -> tuple[pa.Table, list[Any]]:
        """The sound rows, and pyarrow's description of the others, which has their numbers only without threads."""
        faults: list[Any] = []

        def fault(row: Any) -> str:
            faults.append(row)
            return "skip"

        text, delimiter = prepared(raw, self._table.delimiter, len(names))
        quoted, size = self._quotes and b'"' in text, CHUNK if threads else len(text) + 1
        quotes = {"quote_char": '"' if quoted else False, "newlines_in_values": quoted}
        strings = {"column_types": dict.fromkeys(names, pa.string()), "null_values": [""], "strings_can_be_null": True}
        options = (
            pa.csv.ReadOptions(use_threads=threads, block_size=size, column_names=names),
            pa.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=fault, **quotes),
            pa.csv.ConvertOptions(include_columns=list(wanted), **strings),
        )
        try:
            return pa.csv.read_csv(pa.BufferReader(text), *options), faults
        except pa.ArrowInvalid:
            if not threads:
                raise
            return self._rows(raw, names, wanted, threads=False)  # a row is longer than a thread's share


def _batches(place: RowPlace, table: pa.Table) -> Iterator[tuple[RowPlace, pa.RecordBatch]]:
    for batch in table.to_batches():
        yield place, batch
        place = replace(place, row=place.row + len(batch), before=place.before + len(batch))


def _find(path: str) -> tuple[Any, str, list[str]]:
    """The file system that a path is of, the folder or file to start from, and its files."""
    try:
        system, place = fsspec.core.url_to_fs(path)
        base = place.rstrip("/")
        if system.isdir(place):
            visible = [name for name in system.find(place) if not re.search(r"/[._]", name.removeprefix(base))]
            paths = [name for name in visible if SUFFIXES.search(name)]
        elif system.isfile(place):
            paths = [place]
        else:
            base = re.split(r"[*?[]", place)[0].rpartition("/")[0]
            paths = [name for name in system.glob(place) if system.isfile(name)]
    except ImportError as error:
        raise DataError(f"{path}: {error}; install that package") from None
    except Exception as error:  # whatever a driver raises
        raise DataError(f"{path}: cannot be reached ({_reason(error)}); correct the path") from error
    if not paths:
        raise DataError(f"{path}: no such file, or none of CSV or Parquet in the folder; correct `log` or `file`")
    if len({_is_parquet(name) for name in paths}) > 1:
        raise DataError(f"{path}: both Parquet and text in it; name one kind, as in {path.rstrip('/')}/*.parquet")
    return system, base, sorted(paths)


def _part(system: Any, path: str) -> Part:
    if _is_local(system):
        status = os.stat(path)
        return Part(path, status.st_size, str(status.st_mtime_ns))
    return Part(path, system.size(path) or 0, system.ukey(path))


def _is_local(system: Any) -> bool:
    return isinstance(system, fsspec.implementations.local.LocalFileSystem)


def _is_parquet(path: str) -> bool:
    return path.endswith((".parquet", ".pq"))


def _group(kind: pa.DataType) -> str | None:
    """The type group in which columns of different parts must agree; None fits all."""
    if types.is_dictionary(kind):
        return _group(kind.value_type)
    if is_list(kind):
        inner = _group(kind.value_type)
        return f"lists of {inner}" if inner in ("text", "numbers", "times") else inner and "structures"
    if is_text(kind):
        return "text"
    if types.is_null(kind):
        return None
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_boolean(kind)
    return "numbers" if number else "times" if types.is_date(kind) or types.is_timestamp(kind) else "structures"


def _blocks(file: Any, path: str, quotes: bool) -> Iterator[bytes]:
    """A file of text in blocks that end at the end of a row."""
    rest = b""
    while data := file.read(BLOCK):
        end = _row_end(rest, data, quotes)
        if end:
            yield b"".join((rest, memoryview(data)[:end]))
        rest = data[end:] if end else rest + data
        if len(rest) > MAX_LINE_BYTES:
            raise DataError(f"{path}: a line of more than {MAX_LINE_BYTES >> 20} MB; is it CSV?")
    if rest:
        yield rest


def _row_end(rest: bytes, data: bytes, quotes: bool) -> int:
    """In the data behind a rest: after the last line end that is inside no quotes, else after the last one."""
    last = end = data.rfind(b"\n") + 1
    quotes_before = count_of(b'"', rest)
    for _ in range(100 if quotes else 0):
        if end and (quotes_before + count_of(b'"', data, end)) % 2 == 0:
            return end
        end = data.rfind(b"\n", 0, max(0, data.rfind(b'"', 0, end))) + 1
    return last


def _utf8_texts(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with texts that are UTF-8, which Parquet does not see to."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        columns = [as_text(cells.cast(pa.binary())) if is_text(cells.type) else cells for cells in batch.columns]
        batch = pa.record_batch(columns, batch.schema.names)
        batch.validate(full=True)
    return batch


def count_of(byte: bytes, data: bytes, end: int | None = None) -> int:
    """How often a byte is among the first ones; in a tenth of the time of bytes.count."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8)[:end] == byte[0]))


def _utf8(block: bytes) -> bytes:
    try:
        block.decode()
    except UnicodeDecodeError:
        return b"\n".join(decoded(line).encode() for line in block.split(b"\n"))
    return block


@contextmanager
def _damage_named(path: str) -> Iterator[None]:
    """Errors of pyarrow and of what opens files as one line that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, ImportError, csv.Error, zlib.error) as error:
        kind = "Parquet" if _is_parquet(path) else "text"
        raise DataError(f"{path}: damaged or not {kind} ({_reason(error)}); write the file again") from error


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
