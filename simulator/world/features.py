"""From numbers to table rows: one Encoder per world, the same for events, candidates and serving.

A user or an item has a row of its own, or shares one by a hash. Where I items share N < I rows, an item shares its row
with some other with probability 1 - (1 - 1/N)^(I-1), about 1 - exp(-I/N): 0.63 where N is just below I, 0.86 at half as
many rows, all but certain at a tenth. Those that share a row also share what a model learns from their identity; their
other features still tell them apart.

Shapes: n events, U users, I items, S slots = Su user slots + Si item slots + C context slots in that order, H items of
a user's history, which are the last of the user's slots.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from simulator.errors import DataError
from simulator.types import Field, Integers, Ints, Rows, Schema, Side
from simulator.world.clicklog import ClickLog, Entities, Feature

Identified = Literal["user", "item"]


def id_field(name: Identified, count: int, hash_rows: int) -> Field:
    """The field of all users or items, `count` of them, in at most `hash_rows` rows (0: one for each)."""
    return Field(name, name, min(count, hash_rows or count))


def id_rows(schema: Schema, name: str, count: int) -> Ints:
    """[count] the row of each user or item in a field of them, hashed where it has fewer rows than there are."""
    number = np.arange(count)
    rows = next(field.vocabulary for field in schema.fields if field.name == name)
    return schema.first_row(name) + (number if rows == count else hashed(number, name, rows))


def hashed(number: Ints, name: str, rows: int) -> Ints:
    """[n] from 0 to rows - 1, the same on every machine: the finaliser of SplitMix64 (Steele et al., OOPSLA 2014).

    `name` keeps fields apart: users who share a row do not come with items that share one.
    """
    x = number.astype(np.uint64) + (np.uint64(zlib.crc32(name.encode())) << np.uint64(32))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) % np.uint64(rows)).astype(np.int64)


HISTORY = "history"
"""Field of the last items that a user engaged with."""


class Encoder:
    """Joins the features of a user, an item and a context into the row numbers that the click model looks up."""

    def __init__(
        self,
        schema: Schema,
        user_rows: Rows,
        item_rows: Rows,
        names: Mapping[str, Sequence[str]] | None = None,
        history_rows: Ints | None = None,
    ) -> None:
        """`user_rows` [U, Su] and `item_rows` [I, Si] hold table rows (0 is padding), slots in schema order.

        `names`: of the values of a field, where a log gives them. `history_rows` [I]: the rows of items in the field
        HISTORY, where there is one; in `user_rows` it is empty.
        """
        sides = [field.side for field in schema.fields]
        assert sides == sorted(sides, key=("user", "item", "context").index), "fields go user, item, context"
        slots = {side: sum(f.slots for f in schema.fields if f.side == side) for side in ("user", "item", "context")}
        assert user_rows.shape[1] == slots["user"] and item_rows.shape[1] == slots["item"]
        self.schema = schema
        self.user_rows = np.ascontiguousarray(user_rows, np.int32)
        self.item_rows = np.ascontiguousarray(item_rows, np.int32)
        self.context_slots = slots["context"]
        self._names = names or {}
        self._history = slice(0) if history_rows is None else schema.slot_range(HISTORY)
        # -1, no item, finds the last one: padding
        self._history_rows = np.append(np.empty(0, np.int64) if history_rows is None else history_rows, 0)

    @property
    def history(self) -> int:
        """H, 0 where there is no history."""
        return self._history.stop - (self._history.start or 0)

    @property
    def segments(self) -> Ints:
        """[U] the value of the users' first feature; all alike where they have none."""
        if self.user_rows.shape[1] - self.history == 1:
            return np.zeros(len(self.user_rows), np.int64)
        return self.user_rows[:, 1].astype(np.int64)

    def name(self, field: str, value: int) -> str:
        """How a log writes a value of a field, its number where it has no name; below 0: not known."""
        names = self._names.get(field, ())
        return "unknown" if value < 0 else names[value] if value < len(names) else str(value)

    def encode(self, user: Ints, item: Ints, context: Rows, history: Integers | None = None) -> Rows:
        """Features [n, S] of the events (user [n], item [n], context [n, C], history [n, H] item numbers or -1)."""
        features = np.concatenate([self.user_rows[user], self.item_rows[item], context], axis=1)
        return features if history is None else self.with_history(features, history)

    def candidates(self, user: int, items: Ints, context: tuple[int, ...], history: Integers | None = None) -> Rows:
        """Features [N, S] of the candidates [N] of one query; `history` [H] as of `encode`."""
        rows = np.empty((len(items), self.schema.slots), np.int32)
        head, tail = self.user_rows.shape[1], self.schema.slots - self.context_slots
        rows[:, :head] = self.user_rows[user]
        rows[:, head:tail] = self.item_rows[items]
        rows[:, tail:] = context
        return rows if history is None else self.with_history(rows, history)

    def with_history(self, rows: Rows, history: Integers) -> Rows:
        """Rows [n, S] (or [U, Su] of users) with the items [n, H] of their history, in place; -1 is no item."""
        rows[:, self._history] = self._history_rows[history]
        return rows


def encoder_of(log: ClickLog, hash_rows: int = 0) -> Encoder:
    """Fields in schema order: user, features of the user, history, item, features of the item and of the context.

    `hash_rows` as in `ModelConfig`. DataError where two fields have one name.
    """
    users, items = id_field("user", len(log.users), hash_rows), id_field("item", len(log.items), hash_rows)
    history = [replace(items, name=HISTORY, side="user", slots=log.history)] if log.history else []
    fields = [
        *(users, *(_field(feature, "user") for feature in log.users.features), *history),
        *(items, *(_field(feature, "item") for feature in log.items.features)),
        *(_field(feature, "context") for feature in log.context_features),
    ]
    name, times = Counter(field.name for field in fields).most_common(1)[0]
    if times > 1:
        raise DataError(f"{log.name}: two fields are called {name!r}: rename the column of the log")
    schema = Schema(tuple(fields))
    features = (*log.users.features, *log.items.features, *log.context_features)
    names_of = {feature.name: feature.names for feature in features}
    if not hash_rows:
        names_of |= {"user": log.users.ids, "item": log.items.ids, HISTORY: log.items.ids}
    user_rows = np.pad(_rows(schema, "user", log.users), ((0, 0), (0, log.history)))
    history_rows = id_rows(schema, HISTORY, len(log.items)) if log.history else None
    return Encoder(schema, user_rows, _rows(schema, "item", log.items), names_of, history_rows)


def _field(feature: Feature, side: Side) -> Field:
    return Field(feature.name, side, max(1, len(feature.names)), feature.slots)


def _rows(schema: Schema, side: Identified, entities: Entities) -> Rows:
    values = {feature.name: feature.values for feature in entities.features if feature.values is not None}
    return side_rows(schema, side, len(entities), values)


def side_rows(schema: Schema, side: Identified, count: int, features: Mapping[str, Integers]) -> Rows:
    """[count, slots] table rows of all users or items; `known`: the values of each feature [count(, slots)]."""
    columns = [id_rows(schema, side, count).astype(np.int32)]
    columns += [rows_of(values, schema.first_row(name)) for name, values in features.items()]
    return np.column_stack(columns)


def rows_of(values: Integers, first: int | Rows) -> Rows:
    """Table rows of values [n, slots], -1 is empty; `first`: the first row of their field (or [slots], of several)."""
    return np.where(values < 0, 0, values + first).astype(np.int32)
