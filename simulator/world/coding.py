"""A log on its way into an archive: read, sorted by time, numbered, written column by column.

Users, items and values are numbered by first appearance in time order, so the order of rows in the files means
nothing, but for rows of equal time: they stay in that order. A log larger than memory passes through files: what is
held is the vocabularies, some batches, 8 bytes a row for the sort and one column at a time. Shapes: n rows, U users, I
items, m any of them, S slots.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from simulator.errors import DataError
from simulator.types import Doubles, Ints, Rows
from simulator.world import rows
from simulator.world.archive import Writer
from simulator.world.coder import Coder, make_coder
from simulator.world.mapping import EntityTable, FeatureColumn, Mapping
from simulator.world.rows import Column
from simulator.world.source import Damage, Source
from simulator.world.values import (
    Values,
    buckets,
    by_appearance,
    categories,
    chunks,
    positions,
    renumbered,
    side_by_side,
)

PAST = 0.1
"""Share of the rows, the earliest, that buckets of numbers are fitted on."""
FEWEST = 100
"""Rows that they are fitted on at least, where there are so many."""


def time_order(time: Doubles, limit: int | None = None) -> Ints | slice:
    """The first rows by time, all without a limit; rows of equal time stay in their order.

    Times that are whole milliseconds are sorted as one number with their row, which takes a fifth of the time.
    """
    if (time[1:] >= time[:-1]).all():
        return slice(limit)
    low, bits = np.floor(time.min() * 1e3), len(time).bit_length()
    key = np.empty(len(time), np.uint64)
    for part in chunks(len(time)):
        milli = np.rint(time[part] * 1e3)
        if (milli / 1e3 != time[part]).any() or milli.max() - low >= 2.0 ** (64 - bits):
            return np.argsort(time, kind="stable")[:limit]
        row = np.arange(part.start, part.stop, dtype=np.uint64)
        key[part] = (milli - low).astype(np.uint64) << np.uint64(bits) | row
    key.sort()
    key &= np.uint64(2**bits - 1)
    return key.view(np.int64)[:limit]


def previous_engagements(user: Rows, label: NDArray[np.uint8], users: int) -> Ints:
    """[n] the row of the same user's last engagement before each row, -1 for none."""
    previous, last = np.empty(len(user), np.int64), np.full(users, -1, np.int64)
    for part in chunks(len(user)):
        order = np.argsort(user[part], kind="stable")
        row, own = order + part.start, user[part][order]
        engaged = label[row] == 1
        before = np.append(-1, np.maximum.accumulate(np.where(engaged, np.arange(len(row)), -1))[:-1])
        previous[row] = np.where((before >= 0) & (own[before] == own), row[before], last[own])
        np.maximum.at(last, own, np.where(engaged, row, -1))
    return previous


def changes(said: np.ndarray[Any, Any], entity: Rows, first: Ints) -> bool:
    """Whether a user's or item's rows ever say another thing than its first row did; empty says nothing."""
    static = said[first]
    for part in chunks(len(entity)):
        now, then = said[part], static[entity[part]]
        differs = (now != then) & (now == now) & (then == then)  # not-a-number is empty, and differs from itself
        if (differs if now.dtype.kind == "f" else differs & (now >= 0) & (then >= 0)).any():
            return True
    return False


@dataclass(frozen=True)
class Said:
    """What a column says of users, of items or of rows [m], in order of first appearance."""

    feature: FeatureColumn
    column: Column
    numbers: np.ndarray[Any, Any]
    """[m] codes of the column's coder, -1 is empty; or numbers where it has none, not-a-number is empty."""

    def of(self, places: Ints) -> Said:
        """What is said at some places; -1 is none."""
        empty = np.full(1, -1 if self.column.coder else np.nan, self.numbers.dtype)
        return replace(self, numbers=np.append(self.numbers, empty)[places])

    def values(self, known: int) -> Values:
        """As values; buckets of numbers are fitted on the first so many."""
        feature, coder = self.feature, self.column.coder
        if coder is None:
            return buckets(self.numbers, self.numbers[:known], feature.buckets)
        return categories(self.numbers, coder, self.column.separator, feature.vocabulary, feature.column)


@dataclass(frozen=True)
class Seen:
    """Users or items that the log shows, by number."""

    number: Rows
    """[n] of each row."""
    codes: Ints
    """[U] or [I] what their coder calls them."""
    first: Ints
    """[U] or [I] the row of the first appearance."""
    coder: Coder


class Coding:
    """One log; `run` is called once."""

    def __init__(self, mapping: Mapping, damage: Damage, folder: Path, native: bool) -> None:
        self._mapping, self._damage, self._native = mapping, damage, native
        self._writer, self._spool = Writer(folder), folder / "spool"
        self._past = 0
        """Rows that are early enough to fit on."""
        self._context: list[tuple[str, Values]] = []
        self._notes: list[str] = []

    def run(self, sources: Sequence[Source], limit: int | None) -> None:
        """Of the log, and of the tables of users and items where there are any.

        DataError for a damaged row (unless they are skipped), and where no row is left.
        """
        mapping, beside = self._mapping, iter(sources[1:])
        self._spool.mkdir()
        columns, features = self._columns(), self._features(mapping.features)
        rows.read(sources[0], [*columns.values(), *features], mapping.columns, self._damage, self._spool)
        order = self._sort(columns["time"], limit)
        with ThreadPoolExecutor(2) as pool:
            seen = dict(pool.map(lambda side: (side, self._seen(side, columns[side], order)), ("user", "item")))
            found = pool.map(lambda f, column: self._found(f, column, order, seen), mapping.features, features)
            said = self._said(found)
        self._events(columns, order, seen["user"])
        if mapping.position:
            self._context.append((mapping.position, positions(columns["position"].take(order))))
        for side, table in (("user", mapping.users), ("item", mapping.items)):
            self._entities(side, seen[side], said[side], table, next(beside) if table else None)
        self._write_context(len(seen["user"].number))
        shutil.rmtree(self._spool)
        facts = {"labelled": mapping.label is not None, "position": mapping.position, "history": mapping.history}
        self._writer.close({**facts, "skipped_rows": self._damage.skipped, "notes": self._notes})

    def _columns(self) -> dict[str, Column]:
        """What is read of the log beside its features."""
        mapping = self._mapping
        columns = {
            "user": rows.ids(mapping.user, "a user", make_coder(self._native)),
            "item": rows.ids(mapping.item, "an item", make_coder(self._native)),
            "time": rows.times(mapping.time, mapping.time_unit),
        }
        if mapping.label:
            columns["label"] = rows.labels(mapping.label)
        if mapping.weight:
            columns["weight"] = rows.weights(mapping.weight)
        if mapping.slate:
            columns["slate"] = rows.ids(mapping.slate, "a page", make_coder(self._native))
        if mapping.position:
            columns["position"] = rows.places(mapping.position)
        return columns

    def _features(self, features: Sequence[FeatureColumn]) -> list[Column]:
        """One column each."""
        return [
            rows.numbers(f.column) if f.kind == "number" else rows.categories(f, make_coder(self._native))
            for f in features
        ]

    def _sort(self, column: Column, limit: int | None) -> Ints | slice:
        """Write the times; returns the order of all rows."""
        time = column.take(slice(None))
        if not len(time):
            left_out = f" ({self._damage.skipped:,} damaged ones left out)" if self._damage.skipped else ""
            raise DataError(f"{self._mapping.log.path}: no rows in it{left_out}; give a log with at least one row")
        order = time_order(time, limit)
        count = len(self._writer.array("time", time[order]))
        self._past = max(int(count * PAST), min(count, FEWEST))
        return order

    def _seen(self, side: str, column: Column, order: Ints | slice) -> Seen:
        """Write the number of each row's user or item."""
        taken = column.take(order)
        codes, first = by_appearance(taken)
        assert column.coder
        return Seen(self._writer.array(side, renumbered(taken, codes)), codes, first, column.coder)

    def _events(self, columns: dict[str, Column], order: Ints | slice, users: Seen) -> None:
        """Write what else the rows hold."""
        write = self._writer.array
        label = columns["label"].take(order) if "label" in columns else np.ones(len(users.number), np.uint8)
        write("label", label)
        if "weight" in columns:
            write("weight", columns["weight"].take(order))
        if "slate" in columns:
            slate = columns["slate"].take(order)
            write("slate", renumbered(slate, by_appearance(slate)[0]))
        if self._mapping.history:
            write("previous", previous_engagements(users.number, label, len(users.codes)))

    def _found(
        self, feature: FeatureColumn, column: Column, order: Ints | slice, seen: dict[str, Seen]
    ) -> Said | Values:
        """What the rows say of users or items, or, of context and of an item that changes, their values."""
        every, of = Said(feature, column, column.take(order)), seen.get(feature.side)
        if of is None or (feature.side == "item" and changes(every.numbers, of.number, of.first)):
            values = every.values(self._past)
            narrow = values.cell.astype(np.min_scalar_type(-len(values.table)), copy=False)
            return replace(values, cell=Writer(self._spool).array(column.path.stem, narrow))  # waits in a file
        return every.of(of.first)

    def _said(self, found: Iterable[Said | Values]) -> dict[str, list[Said]]:
        """What is said of users and items; the rest joins the context."""
        said: dict[str, list[Said]] = {"user": [], "item": []}
        for feature, part in zip(self._mapping.features, found, strict=True):
            if isinstance(part, Said):
                said[feature.side].append(part)
                continue
            self._context.append((feature.column, part))
            if feature.side == "item":
                self._notes.append(f"{feature.column} changes between the rows of an item: it is taken as context")
        return said

    def _write_context(self, count: int) -> None:
        """All slots side by side."""
        for name, values in self._context:
            self._writer.feature("context", name, values.slots, values.names)
        every = [values for _, values in self._context]
        self._writer.parts("context", count, (side_by_side(every, part) for part in chunks(count)))

    def _entities(
        self, side: str, seen: Seen, said: list[Said], beside: EntityTable | None, source: Source | None
    ) -> None:
        """Write the ids, titles and features of users or items; items of the table alone come last."""
        group, codes, write = f"{side}s", seen.codes, self._writer
        if beside and source:
            columns = {"id": rows.ids(beside.id, f"the id of one {side}", seen.coder)}
            if beside.title:
                columns["title"] = rows.titles(beside.title, make_coder(self._native))
            features = self._features(beside.features)
            rows.read(source, [*columns.values(), *features], beside.columns, self._damage, self._spool)
            codes, row = joined(codes, columns["id"].take(slice(None)), side == "item")
            there = np.append(np.arange(len(seen.codes)), np.full(len(codes) - len(seen.codes), -1))
            said = [part.of(there) for part in said]
            for feature, column in zip(beside.features, features, strict=True):
                said.append(Said(feature, column, column.take(slice(None))).of(row))
        ids = seen.coder.texts().take(codes)
        write.texts(f"{group}.ids", ids)
        if beside and beside.title:
            write.texts(f"{group}.titles", titles_of(columns["title"], row, ids))
        known = int(np.searchsorted(seen.first, self._past))
        every = [part.values(known) for part in said]
        for part, values in zip(said, every, strict=True):
            write.feature(group, part.feature.column, values.slots, values.names)
        write.array(f"{group}.values", side_by_side(every, slice(len(codes))))


def joined(codes: Ints, ids: Rows, all_of_them: bool) -> tuple[Ints, Ints]:
    """The codes of a log's users or items, with those that a table alone holds behind, and the table row of each.

    `ids` are the codes of the table's rows; the first row of an id counts, -1 is none.
    """
    there, first = by_appearance(ids)
    row = np.full(max(codes.max(), there.max(initial=0)) + 1, -1)
    row[there] = first
    if all_of_them:
        codes = np.append(codes, there[~np.isin(there, codes)])
    return codes, row[codes]


def titles_of(column: Column, row: Ints, ids: pa.LargeStringArray) -> pa.LargeStringArray:
    """The title in each row of a table; the id where there is none."""
    assert column.coder
    code = np.append(column.take(slice(None)), np.int32(-1))[row]
    return pc.coalesce(column.coder.texts().take(pa.array(code, mask=code < 0)), ids)
