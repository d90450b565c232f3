"""The types that join world, recommender and measures: Field, Schema, Batch, Query, Slate.

Shapes: n events, N candidates, K slate length, S slots (columns of table rows per event), C context slots.

A *row* is a row of the one embedding table that all fields share: every field owns a contiguous range of rows,
and row 0 is padding (its vector is zero and never learns). A single-valued field fills one slot of an event, a
multi-valued field fills `slots` of them, padded with row 0; its vectors are averaged.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from simulator.errors import SettingError

Ints = NDArray[np.int64]
Rows = NDArray[np.int32]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.integer[Any]]
Reals = NDArray[np.floating[Any]]

Side = Literal["user", "item", "context"]
Kind = Literal["category"]
"""The kind of a field's values."""
PolicyName = Literal["random", "round_robin", "sticky", "least_loaded"]
"""How a router chooses who answers a query; see serving/router/router.py."""

FIRST_ID = 2
"""Id of a field's first value, behind those of padding and of what is unknown; see Field.size."""


@dataclass(frozen=True)
class Field:
    """One input of the click model; it owns `vocabulary` rows of the embedding table."""

    name: str
    side: Side
    """The side that it describes. User and context are fixed within a query; item differs between its candidates."""
    vocabulary: int
    """Number of distinct values, at least 1."""
    slots: int = 1
    """Values per event: 1, or the most that a multi-valued field can hold."""
    kind: Kind = "category"

    @property
    def size(self) -> int:
        """Ids of the field by itself, as a module of your own sees them: 0 is padding (no value), 1 unknown, then come
        the values. So many rows an embedding of it needs."""
        return FIRST_ID + self.vocabulary

    def __post_init__(self) -> None:
        if self.vocabulary < 1:
            raise SettingError(f"field {self.name}: vocabulary", self.vocabulary, "at least 1 value")
        if self.slots < 1:
            raise SettingError(f"field {self.name}: slots", self.slots, "at least 1 slot")


@dataclass(frozen=True)
class Schema:
    """All fields in slot order. Slots of a field are adjacent; rows of a field are adjacent, after padding row 0."""

    fields: tuple[Field, ...]

    @property
    def rows(self) -> int:
        """Rows of the embedding table, padding included."""
        return 1 + sum(field.vocabulary for field in self.fields)

    @property
    def slots(self) -> int:
        """Columns of `Batch.features`."""
        return sum(field.slots for field in self.fields)

    def first_row(self, name: str) -> int:
        """First table row of a field: value v of the field is row `first_row(name) + v`."""
        return 1 + sum(field.vocabulary for field in self._before(name))

    def slot_range(self, name: str) -> slice:
        """Columns of a field in `Batch.features`."""
        before = self._before(name)
        slot = sum(field.slots for field in before)
        return slice(slot, slot + self.fields[len(before)].slots)

    def _before(self, name: str) -> tuple[Field, ...]:
        names = [field.name for field in self.fields]
        if name not in names:
            raise SettingError("field", name, f"one of {', '.join(names)}")
        return self.fields[: names.index(name)]


class Columns:
    """Methods of a dataclass of arrays [n, ...], the first of which has one value per row."""

    def __len__(self) -> int:
        return len(self._columns()[0])

    def __getitem__(self, part: slice | Ints) -> Self:
        """The rows of a slice, as views, or the rows at these places."""
        return type(self)(*(None if column is None else column[part] for column in self._columns()))

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Several as one, in the given order; where only some lack a column, it is 1 there."""
        columns = zip(*(part._columns() for part in parts), strict=True)
        return cls(*(_joined(column, list(map(len, parts))) for column in columns))

    def _columns(self) -> tuple[Any, ...]:
        return tuple(vars(self).values())


def _joined(column: Sequence[NDArray[Any] | None], sizes: Sequence[int]) -> NDArray[Any] | None:
    if all(part is None for part in column):
        return None
    filled = (np.ones(size, np.float32) if part is None else part for part, size in zip(column, sizes, strict=True))
    return np.concatenate(list(filled))


@dataclass(frozen=True)
class Batch(Columns):
    """Events in time order: a user was shown an item in a context and did (1) or did not (0) engage."""

    user: Ints
    """[n] user number, 0-based."""
    item: Ints
    """[n] item number, 0-based."""
    time: Doubles
    """[n] seconds since the world's epoch (unix epoch on a replayed log), never decreasing."""
    features: Rows
    """[n, S] rows of the embedding table; 0 is padding."""
    label: Floats
    """[n] 1 for an engagement, else 0."""
    weight: Floats | None = None
    """[n] scales an event's gradient, 0 or more; None: 1 everywhere, which costs nothing. Measures do not know it."""


@dataclass(frozen=True)
class Query:
    """A user with a context asks for results; `candidates` are to be ranked."""

    id: int
    user: int
    time: float
    """Seconds, as in `Batch.time`."""
    context: tuple[int, ...]
    """Table rows of the context slots [C], in slot order."""
    candidates: Ints
    """[N] distinct item numbers."""
    features: Rows
    """[N, S] the rows of each candidate for this user and context."""
    relevance: Floats
    """[N] the truth to rank towards: on a synthetic world the true click probability at the first position, on a
    replayed log 1 for the items that the user engaged with inside the horizon, else 0."""
    answers: Ints = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))
    """Distinct items that the user engaged with inside the horizon, candidates or not; none on a synthetic world."""


@dataclass(frozen=True)
class Slate:
    """The ordered answer to a query: equal scores are ordered by item number."""

    items: Ints
    """[K] best first."""
    scores: Floats
    """[K] log-odds of an engagement, never increasing."""


def order(scores: Floats, items: Ints) -> Ints:
    """Candidate indices [..., N] best first, equal scores by item number; scores [..., N], items broadcast to them."""
    best: Ints = np.argsort(-scores, axis=-1)  # a tenth of the time of a sort by two keys, where there are no equals
    ranked = np.take_along_axis(scores, best, axis=-1)
    if (ranked[..., 1:] < ranked[..., :-1]).all():
        return best
    return np.lexsort((np.broadcast_to(items, scores.shape), -scores), axis=-1)


def slate(scores: Floats, items: Ints, k: int, ranked: Ints | None = None) -> Slate:
    """The top k of one query's candidates (scores [N], items [N]); `ranked` is their order [N], where it is known."""
    best = (order(scores, items) if ranked is None else ranked)[:k]
    return Slate(items[best], scores[best])


@dataclass(frozen=True)
class Names:
    """A log's ids and titles by the world's numbers; empty on a made-up world, where the numbers are the names."""

    users: Sequence[str] = ()
    """Ids by user number."""
    items: Sequence[str] = ()
    """Ids by item number."""
    titles: Sequence[str] = ()
    """What people read of an item, by item number; an empty one is not known."""
    context: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    """Of each context field how its values are written."""

    def user(self, number: int) -> str:
        """Id of a user."""
        return self.users[number] if number < len(self.users) else str(number)

    def item(self, number: int) -> str:
        """Id of an item."""
        return self.items[number] if number < len(self.items) else str(number)

    def title(self, number: int) -> str:
        """Of an item; its id where there is none, `item 17` on a made-up world."""
        title = self.titles[number] if number < len(self.titles) else ""
        return title or (self.item(number) if self.items else f"item {number}")


class World(Protocol):
    """Users, items and how users respond. Both worlds look like this; every draw follows from the seed."""

    @property
    def name(self) -> str:
        """Name of the world in results: `synthetic`, or that of the log."""

    @property
    def schema(self) -> Schema:
        """Fields, table rows and slots."""

    @property
    def events(self) -> int:
        """Number of events from start to end."""

    @property
    def users(self) -> int:
        """Number of users from start to end; where table rows are shared, more than the field has."""

    @property
    def items(self) -> int:
        """Number of items from start to end; where table rows are shared, more than the field has."""

    @property
    def names(self) -> Names:
        """The log's ids of users and items; empty on a made-up world."""

    def name_of(self, field: str, value: int) -> str:
        """How a value of a field is written: as the log has it, else its number; `unknown` below 0."""

    @property
    def has_truth(self) -> bool:
        """Whether `Query.relevance` is a true probability (synthetic) or what a log recorded."""

    @property
    def has_pages(self) -> bool:
        """Whether queries are pages that users saw, of different lengths: nothing is retrieved for them."""

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Events [start, stop) in time order, `size` at a time (the last one may be shorter).

        The events do not depend on `size` or `start`: any split of the range gives the same events.
        """

    def queries(self, count: int, candidates: int, at: int, purpose: str) -> list[Query]:
        """`count` queries asked when event number `at` is due (on a log: by users of the events from `at` on, fewer
        where there are fewer).

        Candidates are retrieved (world/retrieval.py) from the engagements strictly before `at`, or are the page that a
        user saw. `purpose` names the random stream, so that e.g. the final measurement does not share draws with the
        run. Raises SettingError where a synthetic world has fewer than `candidates` items by then; a log of fewer
        gives them all.
        """

    def present(self, time: float) -> Ints:
        """Numbers of the items that can be shown at a time (seconds), ascending."""

    def click(self, query: Query, items: Ints, purpose: str) -> Floats:
        """[K] 1 where the user engages with the item shown at that position of the slate `items` [K], else 0.

        Synthetic: true probability times position bias, drawn from (seed, purpose, query id). Replay: what the log
        says.
        """

    def feedback(self, query: Query, items: Ints, clicks: Floats) -> Batch | None:
        """Feedback on a shown slate: its K impressions as events; None where the log supplies all events."""


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; low = high, or a limit at infinity, means that there is none."""

    mean: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether the uncertainty of the mean is known."""
        return self.low < self.high < math.inf

    def as_dict(self) -> dict[str, float]:
        """As in result.json: {"mean", "low", "high"}."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


def exact(value: float) -> Interval:
    """A number without uncertainty."""
    return Interval(value, value, value)
