"""Rows of many models as parts: all rows of some queries, of every model, small enough for memory.

Where every file holds whole queries one after the other, files are streamed side by side, and a query is compared as
soon as every model has answered it. Otherwise rows go to anonymous temporary files first, by a hash of their query:
the system removes these whatever happens to the process.

Shapes: n rows, Q queries of one length, N items of each.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from simulator.errors import DataError
from simulator.pace import prefetched
from simulator.predictions.read import PredictionSource, Rows, mix, read
from simulator.types import Ints

Part = dict[int, Rows]
"""Model number -> its rows of whole queries."""

PART_ROWS = 1_000_000
"""Rows of a part, of all models together."""
MAX_PENDING = 4 * PART_ROWS
"""Rows that wait for the same query in another file before files count as not grouped alike."""
MAX_SEEN = 1 << 24
"""Queries of a model that are remembered, to detect one that comes twice."""
FLOATS = ("score", "logit", "label")
"""Columns of Rows that are no whole numbers: of each item, as its id is; the others are the same for a whole query."""
MAX_PARTITIONS = 512
"""Files open at a time."""
MAX_THREADS = 4
"""Files that are read by a thread each."""


class NotGroupedError(Exception):
    """A file does not hold whole queries one after the other, in about the same order as the others."""


class BadRowError(Exception):
    """A model has scored an item of a query twice, or a column that is of the query has another value for this item."""

    def __init__(self, query: int, item: int, column: str = "", model: int = -1) -> None:
        super().__init__(query, item, column, model)
        self.query, self.item, self.column, self.model = query, item, column, model


@dataclass(frozen=True)
class Reading:
    """The rows to read, and callbacks on the way."""

    sources: Sequence[PredictionSource]
    by: tuple[str, ...]
    """Columns of results by their values."""
    optional: tuple[str, ...]
    """Columns of Rows beside query, item and score."""
    progress: Callable[[int], None]
    """Called with the number of further rows read."""
    log: Callable[[str], None]
    temporary: Path | None = None
    """Folder for temporary files; that of the system where it is None."""
    values: dict[str, dict[int, str]] = field(default_factory=dict)
    """Texts of the ids of columns of --by; filled while reading."""

    @property
    def rows(self) -> int:
        """Of all sources together."""
        return sum(source.rows for source in self.sources)

    def read(self, source: PredictionSource, size: int) -> Iterator[Rows]:
        """Its rows, of whole queries or not."""
        for rows in read(source, size, self.optional, self.values):
            self.progress(len(rows["query"]))
            yield rows


def streamed(reading: Reading) -> Iterator[Part]:
    """Parts of sources that are grouped by query. Raises NotGroupedError, perhaps late: then all parts are void."""
    if any(len(source.numbers) > 1 for source in reading.sources):
        raise NotGroupedError
    models = sorted({source.numbers[0] for source in reading.sources})
    size = max(PART_ROWS // len(models) // 2, 8_192)
    with contextlib.ExitStack() as threads:
        streams = {}
        for model in models:
            of_model = [reading.read(source, size) for source in reading.sources if source.numbers[0] == model]
            rows = chain.from_iterable(of_model)
            with_threads = len(models) <= MAX_THREADS
            streams[model] = _Stream(
                threads.enter_context(contextlib.closing(prefetched(rows))) if with_threads else rows
            )
        taken: list[Ints] = []
        while any(stream.open for stream in streams.values()):
            fewest = min(len(stream.runs) for stream in streams.values() if stream.open)
            for stream in streams.values():
                if stream.open and len(stream.runs) <= fewest:
                    stream.read_on()
            ready = reduce(_common, (stream.whole() for stream in streams.values()))
            if len(ready):
                taken.append(ready)
                yield {model: stream.take(ready) for model, stream in streams.items()}
            pending = sum(int(stream.runs[-1]) for stream in streams.values())
            if pending > MAX_PENDING or sum(map(len, taken)) > MAX_SEEN:
                raise NotGroupedError
        yield {model: stream.rows for model, stream in streams.items() if stream.rows}  # those of one model alone
        for stream in streams.values():
            _distinct(np.concatenate([*taken, stream.queries]))  # none came again after it was taken


class _Stream:
    """One model's rows, read as far as the others are."""

    def __init__(self, source: Iterator[Rows]) -> None:
        self._source = source
        self.open = True
        self.rows: Rows = {}
        """Rows that wait."""
        self.runs = np.zeros(1, np.int64)
        """Where runs of one query begin, and where the last one ends."""

    @property
    def queries(self) -> Ints:
        """Queries of the rows that wait, one for each run."""
        return self.rows["query"][self.runs[:-1]] if self.rows else np.zeros(0, np.int64)

    def read_on(self) -> None:
        """Take in the next rows."""
        new_rows = next(self._source, None)
        if new_rows is None:
            self.open = False
        else:
            self.rows = {k: np.concatenate([self.rows[k], new_rows[k]]) for k in new_rows} if self.rows else new_rows
            self.runs = _runs(self.rows["query"])

    def whole(self) -> Ints:
        """Queries that wait with all their rows: the last may go on. Raises NotGroupedError for one in two places."""
        return _distinct(self.queries[:-1] if self.open else self.queries)

    def take(self, ready: Ints) -> Rows:
        """The rows of these queries, which wait no longer."""
        is_ready = np.isin(self.queries, ready)
        mask = np.repeat(is_ready, np.diff(self.runs))
        count = int(mask.sum())
        head, tail = (slice(count), slice(count, None)) if mask[:count].all() else (mask, ~mask)  # mostly no copies
        taken, self.rows = _slice(self.rows, head), _slice(self.rows, tail)
        self.runs = np.concatenate([[0], np.diff(self.runs)[~is_ready].cumsum()])
        return taken


def _distinct(queries: Ints) -> Ints:
    """The same; NotGroupedError where one is among them twice."""
    if len(np.unique(queries)) < len(queries):
        raise NotGroupedError
    return queries


def _slice(rows: Rows, which: Any) -> Rows:
    return {name: column[which] for name, column in rows.items()}


def _common(first: Ints, second: Ints) -> Ints:
    if np.array_equal(first, second):
        return first
    return np.intersect1d(first, second, assume_unique=True)


def _runs(query: Ints) -> Ints:
    """Where runs of one query begin, and where the last one ends."""
    begins = np.flatnonzero(query[1:] != query[:-1]) + 1
    return np.concatenate([[0], begins, [len(query)]]) if len(query) else np.zeros(1, np.int64)


def spilled(reading: Reading) -> Iterator[Part]:
    """Parts of sources in any order, through temporary files where they are more than one part."""
    names = ["query", "item", "score", "model", *reading.optional, *reading.by]
    count = max(1, min(-(-reading.rows // PART_ROWS), MAX_PARTITIONS))
    if count > 1:
        _require_disk_space(reading, 8 * len(names) * reading.rows)
    files = [tempfile.TemporaryFile(dir=reading.temporary) if count > 1 else io.BytesIO() for _ in range(count)]
    try:
        for rows in prefetched(chain.from_iterable(reading.read(source, PART_ROWS // 4) for source in reading.sources)):
            table = np.empty((len(rows["query"]), len(names)), np.int64)
            for place, name in enumerate(names):
                column = rows[name]
                table[:, place] = column.view(np.int64) if column.dtype == np.float64 else column
            partitions = partition(rows["query"], count)
            table = table.take(np.argsort(partitions, kind="stable"), axis=0)  # 16 bits: a radix sort
            ends = np.bincount(partitions, minlength=count).cumsum()
            for file, part in zip(files, np.split(table, ends[:-1]), strict=True):
                file.write(part.data)
        yield from prefetched(_by_model(table, names) for table in _back(files, len(names)))
    except OSError as error:
        folder = reading.temporary or tempfile.gettempdir()
        raise DataError(f"temp = {folder}: {error.strerror or error}: name another folder with --temp") from None
    finally:
        for file in files:
            file.close()


def partition(query: Ints, count: int) -> Ints:
    """[n] which of `count` partitions queries belong to."""
    spread = mix(query.view(np.uint64)) >> np.uint64(32)
    return ((spread * np.uint64(count)) >> np.uint64(32)).astype(np.uint16)


def _back(files: Sequence[Any], columns: int) -> Iterator[Ints]:
    for file in files:
        file.seek(0)
        yield np.frombuffer(file.read(), np.int64).reshape(-1, columns)
        file.close()


def _by_model(table: Ints, names: Sequence[str]) -> Part:
    """Rows [n, columns] of a partition by their model, grouped by query."""
    query, model = (np.ascontiguousarray(table[:, names.index(name)]) for name in ("query", "model"))
    part = {}
    for number in np.unique(model).tolist():
        of_model = np.flatnonzero(model == number)
        of_model = of_model[np.argsort(query[of_model])]
        columns = {name: table[:, place].take(of_model) for place, name in enumerate(names)}
        part[number] = {
            name: column.view(np.float64) if name in FLOATS else column != 0 if name == "event" else column
            for name, column in columns.items()
        }
    return part


def _require_disk_space(reading: Reading, needed: int) -> None:
    """Log the size of the temporary files; DataError where they do not fit on the disk."""
    folder = reading.temporary or Path(tempfile.gettempdir())
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise DataError(f"temp = {folder}: {error.strerror}: name a folder that exists") from None
    if free < needed:
        hint = "name a larger folder with --temp, or sort the files by query"
        raise DataError(f"temp = {folder}: {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB needed: {hint}")
    reading.log(f"The files are not grouped by query: {needed / 1e9:.2f} GB go to {folder} meanwhile")


@dataclass(frozen=True)
class Block:
    """The queries of one model that have N items; queries and their items ascend."""

    query: Ints
    """[Q]"""
    columns: Rows
    """[Q, N] item, score, and the other columns of items in Rows."""
    per_query: Rows = field(default_factory=dict)
    """[Q] user (the query itself, where it has none) and values of --by."""


def blocks(rows: Rows) -> dict[int, Block]:
    """A model's rows of whole queries by the number of their items. Raises BadRowError."""
    query, begins = rows["query"], _runs(rows["query"])
    order = np.argsort(query[begins[:-1]])
    queries = query[begins[:-1]][order]
    if (queries[1:] == queries[:-1]).any():  # not grouped
        rows = _slice(rows, np.argsort(query))
        query, begins = rows["query"], _runs(rows["query"])
        order = np.arange(len(begins) - 1)
    lengths, by_length = np.diff(begins)[order], {}
    for n in np.unique(lengths).tolist() if len(query) else ():
        place = begins[:-1][order[lengths == n]][:, None] + np.arange(n)  # [Q, N]
        item = rows["item"][place]
        if n > 1:
            inner = np.argsort(item, axis=-1)
            place = np.take_along_axis(place, inner, axis=-1)
            item = np.take_along_axis(item, inner, axis=-1)
            if (is_repeated := item[:, 1:] == item[:, :-1]).any():
                row, column = np.argwhere(is_repeated)[0]
                raise BadRowError(int(query[place[row, 0]]), int(item[row, column]))
        first = place[:, 0]
        columns = {"item": item} | {name: column[place] for name, column in rows.items() if name in FLOATS}
        per_query = {name: column[first] for name, column in rows.items() if name not in ("model", "event", *columns)}
        for name in per_query.keys() - {"query"}:
            if (is_different := rows[name][place] != per_query[name][:, None]).any():
                row, column = np.argwhere(is_different)[0]
                raise BadRowError(int(query[first[row]]), int(item[row, column]), name)
        by_length[n] = Block(query[first], columns, {"user": per_query["query"], **per_query})
    return by_length
