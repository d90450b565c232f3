"""From texts and cells to small integers with names: those of users and items, and the values of features.

Texts become numbers 0, 1, 2 ... by first appearance: by a native table, or by pyarrow alone, with the same numbers;
its dictionary encoding takes several times as long on a column of a million distinct ids.

Shapes: n rows, or users, or items; K distinct cells, S slots.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from simulator.native.loader import NativeMissing, library
from simulator.types import Doubles, Ints, Rows
from simulator.world.features import hashed

MAX_WAITING = 2_000_000
"""Texts that wait to be numbered together, at most."""
CHUNK = 1 << 20
"""Rows worked on at once, so that no more than that is held besides whole columns."""
SAMPLE = 100_000
"""Numbers that buckets are fitted on, at most, evenly out of those that there are."""


def filled(texts: pa.StringArray) -> pa.StringArray:
    """Null is the empty text."""
    return texts.fill_null("") if texts.null_count else texts


class NativeCoder:
    """By native/coder.hpp, without Python's global lock while it works."""

    def __init__(self) -> None:
        """Raises NativeMissing."""
        self._library = library()
        self._coder = self._library.coder_make()
        if not self._coder:
            raise MemoryError
        self._size = 0

    def __del__(self) -> None:
        if getattr(self, "_coder", None):
            self._library.coder_free(self._coder)

    def code(self, texts: pa.StringArray) -> Rows:
        """Numbers of texts, -1 of what is null or empty; a new text gets the next number. Raises MemoryError."""
        texts = filled(texts)
        codes = np.empty(len(texts), np.int32)
        if len(texts):
            _, places, data = texts.buffers()
            start = places.address + 4 * texts.offset
            address = data.address if data is not None else 0
            self._size = self._library.coder_code(self._coder, start, address, len(texts), codes.ctypes.data)
        if self._size < 0:
            raise MemoryError
        return codes

    def rest(self) -> Rows:
        """Of texts that wait: none."""
        return np.empty(0, np.int32)

    def texts(self) -> pa.LargeStringArray:
        """All distinct texts, by number."""
        offsets = np.empty(self._size + 1, np.int64)
        data = np.empty(self._library.coder_bytes(self._coder), np.uint8)
        self._library.coder_copy(self._coder, offsets.ctypes.data, data.ctypes.data)
        return pa.LargeStringArray.from_buffers(self._size, pa.py_buffer(offsets), pa.py_buffer(data))


class PlainCoder:
    """By dictionary encoding of known texts with new ones behind them, in groups twice as large as the known ones."""

    def __init__(self) -> None:
        self._known = pa.array([""], pa.large_string())
        self._waiting: list[pa.LargeStringArray] = []

    def code(self, texts: pa.StringArray) -> Rows:
        """As NativeCoder, but perhaps not at once: what is missing comes with later ones, the last with `rest`."""
        self._waiting.append(filled(texts).cast(pa.large_string()))
        is_due = sum(map(len, self._waiting)) >= min(2 * len(self._known), MAX_WAITING)
        return self.rest() if is_due else np.empty(0, np.int32)

    def rest(self) -> Rows:
        """Numbers of the texts that wait."""
        encoded = pa.concat_arrays([self._known, *self._waiting]).dictionary_encode()
        codes: Rows = encoded.indices.to_numpy()[len(self._known) :] - np.int32(1)
        self._known, self._waiting = encoded.dictionary, []
        return codes

    def texts(self) -> pa.LargeStringArray:
        """As NativeCoder."""
        return self._known.slice(1)


Coder = NativeCoder | PlainCoder
"""Numbers distinct texts."""


def make_coder(native: bool = True) -> Coder:
    """The native one where there is a library and it is wanted."""
    if native:
        with suppress(NativeMissing):
            return NativeCoder()
    return PlainCoder()


@dataclass(frozen=True)
class Values:
    """Values of one feature."""

    cell: Rows
    """[n] which of the distinct cells, -1 is empty; of any type of whole numbers."""
    table: Rows
    """[K + 1, S] the values of each cell, -1 in slots that it leaves free; the last row is that of -1."""
    names: pa.LargeStringArray
    """Names of the values, at least one."""

    @property
    def slots(self) -> int:
        """S."""
        return int(self.table.shape[1])


def chunks(rows: int) -> Iterator[slice]:
    """All rows, some at a time."""
    for first in range(0, rows, CHUNK):
        yield slice(first, min(first + CHUNK, rows))


def side_by_side(features: Sequence[Values], rows: slice) -> Rows:
    """[m, all slots] the values of some rows."""
    empty = np.empty((rows.stop - (rows.start or 0), 0), np.int32)
    return np.concatenate([empty, *(values.table[values.cell[rows]] for values in features)], axis=1)


def by_appearance(codes: Rows) -> tuple[Ints, Ints]:
    """The codes among codes [n] in order of first appearance, and the row of each; -1 is no code."""
    first = np.full(int(codes.max(initial=-1)) + 2, len(codes), np.int64)  # the last place is that of -1
    for part in chunks(len(codes)):
        np.minimum.at(first, codes[part], np.arange(part.start, part.stop))
    distinct = np.flatnonzero(first[:-1] < len(codes))
    order = distinct[np.argsort(first[distinct])]
    return order, first[order]


def renumbered(codes: Rows, order: Ints) -> Rows:
    """[n] the place of each code in the order; -1 stays."""
    number = np.full(int(order.max(initial=-1)) + 2, -1, np.int32)
    number[order] = np.arange(len(order))
    places = np.empty(len(codes), np.int32)
    for part in chunks(len(codes)):
        places[part] = number[codes[part]]
    return places


def categories(codes: Rows, coder: Coder, separator: str | None, maximum: int, name: str) -> Values:
    """Of cells numbered by a coder, rows in time order; values are numbered by first appearance.

    A separator stands between the values of a cell. More than `most` values: the later ones share a tenth by a hash.
    """
    order, _ = by_appearance(codes)
    names = coder.texts().take(order)
    table = np.arange(len(names), dtype=np.int32)[:, None]
    if separator is not None:
        table, names = _split(names, separator)
    if len(names) > maximum:
        table, names = _limited(table, names, maximum, name)
    placed = np.full((int(order.max(initial=-1)) + 2, table.shape[1]), -1, np.int32)
    placed[order] = table
    return _values(codes, placed, names)


def _values(cell: Rows, table: Rows, names: pa.LargeStringArray | list[str]) -> Values:
    """A feature has at least one value."""
    return Values(cell, table, pa.array(names if len(names) else ["unknown"], pa.large_string()))


def _plain(cell: Rows, names: list[str]) -> Values:
    """Cells that are the values themselves."""
    return _values(cell, np.append(np.arange(len(names), dtype=np.int32), np.int32(-1))[:, None], names)


def _split(cells: pa.LargeStringArray, separator: str) -> tuple[Rows, pa.LargeStringArray]:
    """The distinct values of each cell [K, S], and their names."""
    coder = make_coder()
    lists = pc.split_pattern(cells, separator)
    parts = [coder.code(lists.flatten().cast(pa.string())), coder.rest()]
    code = np.concatenate(parts).astype(np.int64)
    names = coder.texts()
    owner = np.repeat(np.arange(len(cells)), np.diff(lists.offsets.to_numpy()))
    _, first = np.unique(np.where(code < 0, -1, owner * len(names) + code), return_index=True)
    firsts = np.sort(first[code[first] >= 0])
    owner, code = owner[firsts], code[firsts]
    count = np.bincount(owner, minlength=len(cells))
    table = np.full((len(cells), max(1, count.max(initial=1))), -1, np.int32)
    table[owner, np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)] = code
    return table, names


def _limited(table: Rows, names: pa.LargeStringArray, maximum: int, name: str) -> tuple[Rows, list[str]]:
    """At most `maximum` values: the first ones keep their numbers, all others share the remaining numbers."""
    shared = max(1, maximum // 10)
    number = np.arange(len(names))
    number[maximum - shared :] = maximum - shared + hashed(number[maximum - shared :], name, shared)
    shared_names = [f"others, {part} of {shared}" for part in range(1, shared + 1)]
    return np.append(number, -1).astype(np.int32)[table], names[: maximum - shared].to_pylist() + shared_names


def buckets(numbers: Doubles, fitted: Doubles, count: int) -> Values:
    """Numbers [n] in buckets by the quantiles of the `fitted` ones; not-a-number is unknown.

    A bucket holds its lower end, not its upper one. Each distinct number has its own where there are few enough.
    """
    sample = np.sort(fitted[:: -(-len(fitted) // SAMPLE) or 1])
    sample = sample[np.isfinite(sample)]
    edges = np.unique(sample)[1:]
    if len(edges) >= count:
        edges = np.unique(sample[np.arange(1, count) * len(sample) // count])
        edges = edges[edges > sample[0]]
    cell = np.empty(len(numbers), np.int32)
    for part in chunks(len(numbers)):
        cell[part] = np.searchsorted(edges, numbers[part], side="right")
        cell[part][np.isnan(numbers[part])] = -1
    ends = [f"{edge:.12g}" for edge in edges.tolist()]
    inner_names = [f"{low} to {high}" for low, high in zip(ends, ends[1:], strict=False)]
    names = [f"below {ends[0]}", *inner_names, f"{ends[-1]} or more"] if ends else ["any number"]
    return _plain(cell, names)


def positions(places: Rows) -> Values:
    """Places on a page, which a log counts from 0 or from 1."""
    first = int(places.min() > 0)
    names = [str(place) for place in range(first, int(places.max()) + 1)]
    return _plain(places - np.int32(first), names)
