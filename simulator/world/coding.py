"""Coding of a log into an archive: read, sort by time, number, write column by column.

Users, items and values are numbered by first appearance in time order, so the order of rows in the files means
nothing, but for rows of equal time: they stay in that order. A log larger than memory passes through files: what is
held is the vocabularies, some batches, 8 bytes a row for the sort and one column at a time. Shapes: n rows, U users, I
items, m any of them, S slots.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from simulator.errors import DataError
from simulator.types import Doubles, Ints, Rows
from simulator.world import rows
from simulator.world.clicklog import Writer
from simulator.world.mapping import FeatureColumn, Mapping
from simulator.world.rows import Column
from simulator.world.source import DamagedRows, Source
from simulator.world.values import (
    Coder,
    Values,
    buckets,
    by_appearance,
    categories,
    chunks,
    make_coder,
    positions,
    renumbered,
    side_by_side,
)

FITTED_SHARE = 0.1
"""Share of the rows, the earliest, that buckets of numbers are fitted on."""
MIN_FITTED_ROWS = 100
"""Minimum of rows that they are fitted on, where there are so many."""


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
        row, users_of_rows = order + part.start, user[part][order]
        engaged = label[row] == 1
        last_place = np.append(-1, np.maximum.accumulate(np.where(engaged, np.arange(len(row)), -1))[:-1])
        is_here = (last_place >= 0) & (users_of_rows[last_place] == users_of_rows)
        previous[row] = np.where(is_here, row[last_place], last[users_of_rows])
        np.maximum.at(last, users_of_rows, np.where(engaged, row, -1))
    return previous


def changes(cells: np.ndarray[Any, Any], entity: Rows, first: Ints) -> bool:
    """Whether a user's or item's rows ever hold another value than its first row; empty cells do not count."""
    static = cells[first]
    for part in chunks(len(entity)):
        current, original = cells[part], static[entity[part]]
        is_empty = np.isnan if current.dtype.kind == "f" else lambda codes: codes < 0
        if ((current != original) & ~is_empty(current) & ~is_empty(original)).any():
            return True
    return False


@dataclass(frozen=True)
class FeatureCells:
    """Cells of a feature for users, items or rows [m], in order of first appearance."""

    feature: FeatureColumn
    column: Column
    numbers: np.ndarray[Any, Any]
    """[m] codes of the column's coder, -1 is empty; or numbers where it has none, not-a-number is empty."""

    def of(self, places: Ints) -> FeatureCells:
        """The cells at some places; -1 is none."""
        empty = np.full(1, -1 if self.column.coder else np.nan, self.numbers.dtype)
        return replace(self, numbers=np.append(self.numbers, empty)[places])

    def values(self, known: int) -> Values:
        """The cells as values; buckets of numbers are fitted on the first `known` ones."""
        feature, coder = self.feature, self.column.coder
        if coder is None:
            return buckets(self.numbers, self.numbers[:known], feature.buckets)
        return categories(self.numbers, coder, self.column.separator, feature.vocabulary, feature.column)


@dataclass(frozen=True)
class NumberedEntities:
    """Users or items of the log, by number."""

    number: Rows
    """[n] of each row."""
    codes: Ints
    """[U] or [I] codes of their coder."""
    first: Ints
    """[U] or [I] the row of the first appearance."""
    coder: Coder


class Coding:
    """One log; `run` is called once."""

    def __init__(self, mapping: Mapping, damage: DamagedRows, folder: Path, native: bool) -> None:
        self._mapping, self._damage, self._native = mapping, damage, native
        self._writer, self._spool = Writer(folder), folder / "spool"
        self._fitted_rows = 0
        """Number of the earliest rows that buckets are fitted on."""
        self._context: list[tuple[str, Values]] = []
        self._notes: list[str] = []

    def run(self, sources: Sequence[Source], limit: int | None) -> None:
        """Of the log, and of the tables of users and items where there are any.

        DataError for a damaged row (unless they are skipped), and where no row is left.
        """
        mapping, (log, *others) = self._mapping, sources
        self._spool.mkdir()
        columns, features = self._columns(), self._features(mapping.features)
        rows.read(log, [*columns.values(), *features], mapping.columns, self._damage, self._spool)
        order = self._sort(columns["time"], limit)
        with ThreadPoolExecutor(2) as pool:
            numbered = dict(pool.map(lambda side: (side, self._numbered(side, columns[side], order)), ("user", "item")))
            read = partial(self._feature_cells, order=order, numbered=numbered)
            cells_of = self._entity_cells(pool.map(read, mapping.features, features))
        self._events(columns, order, numbered["user"])
        if mapping.position:
            self._context.append((mapping.position, positions(columns["position"].take(order))))
        tables = iter(others)
        for side in ("user", "item"):
            self._entities(side, numbered[side], cells_of[side], tables)
        self._write_context(len(numbered["user"].number))
        shutil.rmtree(self._spool)
        facts = {"labelled": mapping.label is not None, "position": mapping.position, "history": mapping.history}
        self._writer.close({**facts, "skipped_rows": self._damage.skipped, "notes": self._notes})

    def _columns(self) -> dict[str, Column]:
        """Columns of the log beside its features."""
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
        self._fitted_rows = max(int(count * FITTED_SHARE), min(count, MIN_FITTED_ROWS))
        return order

    def _numbered(self, side: str, column: Column, order: Ints | slice) -> NumberedEntities:
        """Write the number of each row's user or item."""
        taken = column.take(order)
        codes, first = by_appearance(taken)
        assert column.coder
        return NumberedEntities(self._writer.array(side, renumbered(taken, codes)), codes, first, column.coder)

    def _events(self, columns: dict[str, Column], order: Ints | slice, users: NumberedEntities) -> None:
        """Write labels, weights, pages and histories."""
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

    def _feature_cells(
        self, feature: FeatureColumn, column: Column, order: Ints | slice, numbered: dict[str, NumberedEntities]
    ) -> FeatureCells | Values:
        """Cells of users or items, or, of context and of an item that changes, the rows' values."""
        cells, entities = FeatureCells(feature, column, column.take(order)), numbered.get(feature.side)
        if entities is None or (feature.side == "item" and changes(cells.numbers, entities.number, entities.first)):
            values = cells.values(self._fitted_rows)
            narrow = values.cell.astype(np.min_scalar_type(-len(values.table)), copy=False)
            return replace(values, cell=Writer(self._spool).array(column.path.stem, narrow))  # waits in a file
        return cells.of(entities.first)

    def _entity_cells(self, parts_of_features: Iterable[FeatureCells | Values]) -> dict[str, list[FeatureCells]]:
        """Cells of users and items; the rest joins the context."""
        by_side: dict[str, list[FeatureCells]] = {"user": [], "item": []}
        for feature, cells in zip(self._mapping.features, parts_of_features, strict=True):
            if isinstance(cells, FeatureCells):
                by_side[feature.side].append(cells)
                continue
            self._context.append((feature.column, cells))
            if feature.side == "item":
                self._notes.append(f"{feature.column} changes between the rows of an item: it is taken as context")
        return by_side

    def _write_context(self, count: int) -> None:
        """All slots side by side."""
        for name, values in self._context:
            self._writer.feature("context", name, values.slots, values.names)
        all_values = [values for _, values in self._context]
        self._writer.parts("context", count, (side_by_side(all_values, part) for part in chunks(count)))

    def _entities(
        self, side: str, numbered: NumberedEntities, cells: list[FeatureCells], tables: Iterator[Source]
    ) -> None:
        """Write the ids, titles and features of users or items; items of the table alone come last."""
        group, codes, write = f"{side}s", numbered.codes, self._writer
        table = self._mapping.users if side == "user" else self._mapping.items
        if table:
            columns = {"id": rows.ids(table.id, f"the id of one {side}", numbered.coder)}
            if table.title:
                columns["title"] = rows.titles(table.title, make_coder(self._native))
            features = self._features(table.features)
            rows.read(next(tables), [*columns.values(), *features], table.columns, self._damage, self._spool)
            codes, row = joined(codes, columns["id"].take(slice(None)), side == "item")
            places = np.append(np.arange(len(numbered.codes)), np.full(len(codes) - len(numbered.codes), -1))
            cells = [part.of(places) for part in cells]
            for feature, column in zip(table.features, features, strict=True):
                cells.append(FeatureCells(feature, column, column.take(slice(None))).of(row))
        ids = numbered.coder.texts().take(codes)
        write.texts(f"{group}.ids", ids)
        if table and table.title:
            write.texts(f"{group}.titles", titles_of(columns["title"], row, ids))
        known = int(np.searchsorted(numbered.first, self._fitted_rows))
        all_values = [part.values(known) for part in cells]
        for part, values in zip(cells, all_values, strict=True):
            write.feature(group, part.feature.column, values.slots, values.names)
        write.array(f"{group}.values", side_by_side(all_values, slice(len(codes))))


def joined(codes: Ints, ids: Rows, all_of_them: bool) -> tuple[Ints, Ints]:
    """The codes of a log's users or items, with those that a table alone holds behind, and the table row of each.

    `ids` are the codes of the table's rows; the first row of an id counts, -1 is none.
    """
    distinct, first = by_appearance(ids)
    row = np.full(max(codes.max(), distinct.max(initial=0)) + 1, -1)
    row[distinct] = first
    if all_of_them:
        codes = np.append(codes, distinct[~np.isin(distinct, codes)])
    return codes, row[codes]


def titles_of(column: Column, row: Ints, ids: pa.LargeStringArray) -> pa.LargeStringArray:
    """The title in each row of a table; the id where there is none."""
    assert column.coder
    code = np.append(column.take(slice(None)), np.int32(-1))[row]
    return pc.coalesce(column.coder.texts().take(pa.array(code, mask=code < 0)), ids)
