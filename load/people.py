"""The simulated users' queries, made in pools ahead of time, and their clicks.

Users come as often as in the world (by Zipf's law on the synthetic one, as the log says on a real one), with the
context that the world gives them. On a real log queries follow its order, from the engagements behind a position on.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from simulator.types import Ints, Query, Schema, World

POOL = 500
"""Queries made at once: 20 to 160 ms of work, best done by another thread than the one that sends them."""


@dataclass(frozen=True)
class PlannedQuery:
    """A query as a user will ask it."""

    id: int
    """The query's number on the wire, even; the same query asked again has the next number."""
    query: Query
    """The world's query."""
    context: tuple[int, ...]
    """One value per context field, from 0."""
    candidates: tuple[int, ...]
    """The page that the user saw, where the log names pages; else none: those of the generation that answers."""
    arm: str
    """The arm that is to answer; empty: the router picks one."""
    purpose: str
    """The random stream of its clicks."""


class People:
    """The users that one process plays."""

    def __init__(self, world: World, arms: tuple[str, ...] = (), worker: int = 0) -> None:
        """`worker` numbers the processes that ask at the same time: each has its own queries."""
        self._world, self._arms, self._worker = world, arms, worker
        self._waiting: deque[PlannedQuery] = deque()
        self._pools = self._planned = 0

    def __len__(self) -> int:
        """Queries that are ready to be asked."""
        return len(self._waiting)

    def next(self) -> PlannedQuery:
        """The next query. There must be one (see `refill`)."""
        return self._waiting.popleft()

    def refill(self, position: int | None = None) -> None:
        """Make POOL more queries (fewer near the end of a short log), asked when event `position` is due.

        Without a position the world goes on by one event per query. At the end of the world the last tenth is asked
        again and again. Raises SettingError for a log with nobody in it to ask.
        """
        event = self._planned if position is None else position
        event = max(1, min(event, self._world.events * 9 // 10))  # time 0 would mean `now` on the wire
        purpose = f"load {self._worker} {self._pools}"
        # what a user clicks does not depend on the candidates, which the generation that answers brings: one will do
        queries = sorted(self._world.queries(POOL, 1, event, purpose), key=lambda query: query.id)
        planned = [self._plan(number, query, purpose) for number, query in enumerate(queries, start=self._planned)]
        self._pools, self._planned = self._pools + 1, self._planned + len(queries)
        self._waiting += planned

    def clicks(self, planned: PlannedQuery, items: Ints) -> list[bool]:
        """[K] whether the user clicks the item at each position of the slate `items` [K], as the world says."""
        return [bool(click) for click in self._world.click(planned.query, items, planned.purpose)]

    def _plan(self, number: int, query: Query, purpose: str) -> PlannedQuery:
        arm = self._arms[number % len(self._arms)] if self._arms else ""
        id = (self._worker << 40) + 2 * (number + 1)
        page = tuple(query.candidates.tolist()) if self._world.has_pages else ()
        return PlannedQuery(id, query, context_values(self._world.schema, query.context), page, arm, purpose)


def context_values(schema: Schema, rows: tuple[int, ...]) -> tuple[int, ...]:
    """One value per context field, 0 to its vocabulary - 1, from the table rows of the context slots.

    Of a field with several slots the first counts, and where it is empty (padding), value 0: the wire has one each.
    """
    fields = [field for field in schema.fields if field.side == "context"]
    first_slots = np.cumsum([0, *(field.slots for field in fields)])
    slots = zip(fields, first_slots, strict=False)
    return tuple(max(0, rows[slot] - schema.first_row(field.name)) for field, slot in slots)
