"""Values become numbers by first appearance; features become table rows; all fields together become the schema."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from simulator.types import Field, Ints, Rows, Schema, Side
from simulator.world.features import Encoder
from simulator.world.identities import Identified, id_field, id_rows

MOST_VALUES = 64
"""Values that one cell of a multi-valued feature may hold: every user or item gets as many slots as the longest."""


def missing(cell: object) -> bool:
    """An empty cell: its value is not known, its slots stay padding."""
    return cell is None or cell == ""


class Vocabulary:
    """Numbers values 0, 1, 2 ... in order of first appearance."""

    def __init__(self) -> None:
        self.numbers: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    def learn(self, values: Sequence[Hashable]) -> Ints:
        """Numbers [n] of the values [n]; new values get new numbers."""
        numbers = self.numbers
        return np.fromiter((numbers.setdefault(value, len(numbers)) for value in values), np.int64, len(values))

    def look_up(self, values: Sequence[Hashable]) -> Ints:
        """Numbers [n] of the values [n]; KeyError for one that was never learned."""
        return np.fromiter(map(self.numbers.__getitem__, values), np.int64, len(values))


class Feature:
    """One field besides the identity: its vocabulary and, on the user and item side, what each of them has."""

    def __init__(self, name: str, side: Side, separator: str | None = None) -> None:
        """With a separator a cell holds several values."""
        self.name, self.side, self.separator = name, side, separator
        self.vocabulary = Vocabulary()
        self.slots = 1
        self._values, self._lengths = array("i"), array("i")

    def split(self, cell: Hashable) -> list[Hashable]:
        """The distinct values of a cell; none if it is empty."""
        if missing(cell):
            return []
        if self.separator is None:
            return [cell]
        values: Iterable[Hashable] = [cell]
        if isinstance(cell, str):
            values = cell.split(self.separator)
        elif isinstance(cell, tuple):
            values = cell
        return [value for value in dict.fromkeys(values) if not missing(value)]

    def learn(self, cell: Hashable) -> Ints:
        """Numbers of a cell's values; new ones are added to the vocabulary."""
        values = self.split(cell)
        self.slots = max(self.slots, len(values))
        return self.vocabulary.learn(values)

    def append(self, cell: Hashable) -> None:
        """What the next user or item has, in the order of their numbers."""
        numbers = self.learn(cell)
        self._values.extend(numbers.tolist())
        self._lengths.append(len(numbers))

    @property
    def field(self) -> Field:
        """The field of the schema; a feature that is never known keeps one value."""
        return Field(self.name, self.side, max(1, len(self.vocabulary)), self.slots)

    def table(self, first_row: int) -> Rows:
        """Rows [U or I, slots] of everything appended."""
        return self._padded(np.array(self._values, np.int64), np.array(self._lengths, np.int64), first_row)

    def rows(self, cells: Sequence[Hashable], first_row: int) -> Rows:
        """Rows [n, slots] of learned cells [n]; KeyError for a value that was never learned."""
        place = {cell: number for number, cell in enumerate(dict.fromkeys(cells))}
        parts = [self.vocabulary.look_up(self.split(cell)) for cell in place]
        lengths = np.array([len(part) for part in parts], np.int64)
        distinct = self._padded(np.concatenate([np.empty(0, np.int64), *parts]), lengths, first_row)
        return distinct[np.fromiter(map(place.__getitem__, cells), np.int64, len(cells))]

    def _padded(self, values: Ints, lengths: Ints, first_row: int) -> Rows:
        """Ragged values, lengths [n], as rows [n, slots] padded with 0."""
        rows = np.zeros((len(lengths), self.slots), np.int32)
        rows[np.arange(self.slots) < lengths[:, None]] = first_row + values
        return rows


def assemble(users: int, items: int, features: Sequence[Feature], hash_rows: int = 0) -> Encoder:
    """Fields in schema order: user, features of the user, item, features of the item, features of the context.

    `hash_rows` as in `ModelConfig`.
    """
    of: dict[Side, list[Feature]] = {"user": [], "item": [], "context": []}
    for feature in features:
        of[feature.side].append(feature)
    schema = Schema(
        (
            id_field("user", users, hash_rows),
            *(feature.field for feature in of["user"]),
            id_field("item", items, hash_rows),
            *(feature.field for feature in of["item"]),
            *(feature.field for feature in of["context"]),
        )
    )

    def table(side: Identified, count: int) -> Rows:
        identity = id_rows(schema, side, count).astype(np.int32)[:, None]
        return np.concatenate([identity, *(f.table(schema.first_row(f.name)) for f in of[side])], axis=1)

    names = {feature.name: [str(value) for value in feature.vocabulary.numbers] for feature in features}
    return Encoder(schema, table("user", users), table("item", items), names)


def by_first_appearance(values: Ints) -> tuple[Ints, Ints]:
    """Numbers [n] by first appearance, and the value that each number stands for."""
    distinct, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty(len(distinct), np.int64)
    number[order] = np.arange(len(distinct))
    return number[inverse], distinct[order]
