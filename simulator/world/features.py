"""From numbers to table rows: one Encoder per world, the same for events, candidates and serving.

Shapes: n events, U users, I items, S slots = Su user slots + Si item slots + C context slots, in that order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from simulator.types import Ints, Rows, Schema


class Encoder:
    """Joins what is known of a user, an item and a context into the row numbers that the click model looks up."""

    def __init__(
        self, schema: Schema, user_rows: Rows, item_rows: Rows, names: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """`user_rows` [U, Su] and `item_rows` [I, Si] hold table rows (0 is padding), slots in schema order.

        `names`: of the values of a field, where a log gives them.
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

    def name(self, field: str, value: int) -> str:
        """How a log writes a value of a field, its number where it has no name; below 0: not known."""
        names = self._names.get(field, ())
        return "unknown" if value < 0 else names[value] if value < len(names) else str(value)

    def encode(self, user: Ints, item: Ints, context: Rows) -> Rows:
        """Features [n, S] of the events (user [n], item [n], context [n, C])."""
        return np.concatenate([self.user_rows[user], self.item_rows[item], context], axis=1)

    def candidates(self, user: int, items: Ints, context: tuple[int, ...]) -> Rows:
        """Features [N, S] of the candidates [N] of one query."""
        rows = np.empty((len(items), self.schema.slots), np.int32)
        head, tail = self.user_rows.shape[1], self.schema.slots - self.context_slots
        rows[:, :head] = self.user_rows[user]
        rows[:, head:tail] = self.item_rows[items]
        rows[:, tail:] = context
        return rows
