"""The synthetic world: events in time order, queries with candidates, clicks, all from one seed.

Shapes: n events, N candidates, K slate, S slots, C context slots.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from simulator.config import SyntheticConfig
from simulator.errors import SettingError
from simulator.randomness import generator
from simulator.types import Batch, Doubles, Floats, Ints, Names, Query, Rows
from simulator.world.features import Encoder, side_rows
from simulator.world.population import (
    AGE_GROUPS,
    POSITIONS,
    Audience,
    Catalog,
    TrueClickModel,
    draw_clicks,
    examination,
    logit,
    schema_of,
)
from simulator.world.retrieval import retrieve

SPAN = 30 * 86_400.0
"""Length of a run in seconds, whatever its number of events."""
BLOCK = 16_384
"""Events are drawn in blocks of this many, each from its own generator."""
KEPT_BLOCKS = 8
"""Blocks kept (1.4 MB each), enough for a query to look back at RECENT engagements without drawing them again."""
RECENT = 20_000
"""Candidates are retrieved by popularity among this many trailing engagements."""
CALIBRATION = 20_000
"""Impressions on which the click model is standardised."""
SHARES = 100_000
"""Impressions from which the shares of its variance are estimated, to about 0.005."""
QUERIES_PER_EVENT = 1 << 20
"""Query ids are at x this + number of the query."""


class SyntheticWorld:
    """A world with a known truth; satisfies `simulator.types.World`.

    Events are evenly spread over 30 days. An impression's user comes by activity, its item by popularity among those
    present, its position with probability proportional to 1 / position, for few scroll far.
    """

    name = "synthetic"
    has_truth = True
    has_pages = False
    names = Names()

    def __init__(self, config: SyntheticConfig, seed: int, hash_rows: int = 0) -> None:
        """`hash_rows` as in `ModelConfig`."""
        self.config, self.seed = config, seed
        self.events, self.users, self.items = config.events, config.users, config.items
        self.audience = Audience(config, seed, SPAN)
        self.catalog = Catalog(config, seed, SPAN)
        self.schema = schema_of(config.users, config.items, hash_rows)
        user_rows = side_rows(self.schema, "user", config.users, self.audience.shown)
        self.encoder = Encoder(self.schema, user_rows, side_rows(self.schema, "item", config.items, self.catalog.shown))
        first = [self.schema.first_row(name) for name in ("device", "hour", "position")]
        self._first_context = np.array(first, np.int32)  # [C]
        page = np.cumsum(1 / np.arange(1, POSITIONS + 1))
        self._page: Doubles = page / page[-1]
        sample = self._impressions("click model", CALIBRATION)
        self._clicks = TrueClickModel(generator(seed, "network"), *sample, config.interaction)
        self._block = lru_cache(maxsize=KEPT_BLOCKS)(self._draw_block)

    def probability(self, user: Ints, item: Ints, context: Rows, time: Doubles) -> Floats:
        """[n] true click probability at an examined position, before position bias.

        `user` [n], `item` [n] numbers, `context` [n, C] table rows (the position does not matter), `time` [n] s.
        """
        device, hour, _ = (context - self._first_context).T
        return self._clicks.probability(
            self.audience.taste(user, time), self.catalog.taste[item], self.audience.context_taste(device, hour)
        )

    def truth(self, events: Batch) -> Floats:
        """[n] true log-odds of the clicks of events, position bias included: nobody can predict them better."""
        position = events.features[:, -1] - self._first_context[-1] + 1
        examined = examination(position, self.config.position_bias)
        context = events.features[:, -len(self._first_context) :]
        return logit(self.probability(events.user, events.item, context, events.time) * examined)

    def shares(self) -> dict[str, float]:
        """Shares of the variance of the true log-odds over impressions, see ClickModel.shares."""
        return self._clicks.shares(*self._impressions("shares", SHARES))

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Events [start, stop) in time order, `size` at a time; any split gives the same events."""
        end = self.events if stop is None else stop
        assert size >= 1 and 0 <= start and end <= self.events, (size, start, end)
        for first in range(start, end, size):
            last = min(first + size, end)
            blocks = range(first // BLOCK, (last - 1) // BLOCK + 1)
            yield Batch.concatenate([self._block(b)[max(first - b * BLOCK, 0) : last - b * BLOCK] for b in blocks])

    def queries(self, count: int, candidates: int, at: int, purpose: str) -> list[Query]:
        """`count` queries by users drawn by activity, all asked at the time of event `at`, for the first position.

        Candidates are retrieved for the user's age group from the last RECENT engagements before event `at`. Ids are
        unique per `at`. SettingError where fewer than `candidates` items are present.
        """
        assert 0 <= at <= self.events and 0 <= count <= QUERIES_PER_EVENT, (at, count)
        uniform = generator(self.seed, f"queries {purpose}", at).random((count, 2))
        user = self.audience.activity.draw(uniform[:, 0])
        time = np.full(count, self._time(at))
        context = self._context(user, self.audience.device(uniform[:, 1]), time, np.ones(count, np.int64))
        retrieved = self._retrieve(candidates, at)  # [AGE_GROUPS, N]
        first, asked_at = at * QUERIES_PER_EVENT, self._time(at)
        return [self._query(first + i, int(user[i]), asked_at, context[i], retrieved) for i in range(count)]

    def name_of(self, field: str, value: int) -> str:
        """See World."""
        return self.encoder.name(field, value)

    def click(self, query: Query, items: Ints, purpose: str) -> Floats:
        """[K] 1 where the user clicks the item at that position of the slate, drawn from (seed, purpose, query id)."""
        user, context, time = _repeated(query, len(items))
        rng, position = generator(self.seed, f"clicks {purpose}", query.id), np.arange(1, len(items) + 1)
        return draw_clicks(rng, self.probability(user, items, context, time), position, self.config.position_bias)

    def feedback(self, query: Query, items: Ints, clicks: Floats) -> Batch:
        """The K impressions of a shown slate as events at the query's time, each with its position as context."""
        user, context, time = _repeated(query, len(items))
        context[:, -1] = self._position_rows(np.arange(1, len(items) + 1))
        features = self.encoder.encode(user, items, context)
        return Batch(user, items.astype(np.int64), time, features, clicks.astype(np.float32))

    def _time(self, event: int) -> float:
        """Seconds at which an event is due."""
        return event * (SPAN / self.events)

    def _draw_block(self, number: int) -> Batch:
        """Events [number * BLOCK, ...) of one block; the last block may be shorter."""
        rng, first = generator(self.seed, "events", number), number * BLOCK
        count = min(BLOCK, self.events - first)
        time: Doubles = np.arange(first, first + count) * np.float64(SPAN / self.events)
        user = self.audience.activity.draw(rng.random(count))
        device = self.audience.device(rng.random(count))
        position = 1 + self._page.searchsorted(rng.random(count), side="right")
        context = self._context(user, device, time, position)
        item = self.catalog.draw(rng, time)
        truth = self.probability(user, item, context, time)
        label = draw_clicks(rng, truth, position, self.config.position_bias)
        return Batch(user, item, time, self.encoder.encode(user, item, context), label)

    def _context(self, user: Ints, device: Ints, time: Doubles, position: Ints) -> Rows:
        """[n, C] table rows of the context slots."""
        rows = np.empty((len(user), len(self._first_context)), np.int32)
        rows[:, 0] = self._first_context[0] + device
        rows[:, 1] = self._first_context[1] + self.audience.hour(user, time)
        rows[:, 2] = self._position_rows(position)
        return rows

    def _position_rows(self, position: Ints) -> Ints:
        """[n] table rows of positions (first = 1)."""
        return np.asarray(self._first_context[2] + np.minimum(position, POSITIONS) - 1, np.int64)

    def _query(self, id: int, user: int, time: float, context: Rows, retrieved: Ints) -> Query:
        items, rows = retrieved[self.audience.age_group[user]], tuple(int(row) for row in context)
        count = len(items)
        truth = self.probability(np.full(count, user), items, np.tile(context, (count, 1)), np.full(count, time))
        return Query(id, user, time, rows, items, self.encoder.candidates(user, items, rows), truth)

    def _retrieve(self, candidates: int, at: int) -> Ints:
        """[AGE_GROUPS, N] the candidates of each age group when event `at` is due."""
        present = self.present(self._time(at))
        if len(present) < candidates:
            raise SettingError("candidates", candidates, f"at most {len(present)}, the items present at event {at}")
        user, item = self._recent_engagements(at)
        return retrieve(self.audience.age_group[user], item, present, np.arange(AGE_GROUPS), candidates)

    def present(self, time: float) -> Ints:
        """See World."""
        return self.catalog.present(time)

    def _recent_engagements(self, at: int) -> tuple[Ints, Ints]:
        """Users and items of the last RECENT engagements strictly before event `at`, fewer near the start."""
        users, items = np.empty(0, np.int64), np.empty(0, np.int64)
        block = (at - 1) // BLOCK
        while block >= 0 and len(users) < RECENT:
            events = self._block(block)[: at - block * BLOCK]
            clicked = events.label == 1
            users = np.concatenate([events.user[clicked], users])
            items = np.concatenate([events.item[clicked], items])
            block -= 1
        return users[-RECENT:], items[-RECENT:]

    def _impressions(self, purpose: str, count: int) -> tuple[Floats, Floats, Floats]:
        """Tastes of users, items and contexts of impressions of the whole run, whether their items are there or not."""
        rng = generator(self.seed, purpose)
        time = rng.uniform(0, SPAN, count)
        user = self.audience.activity.draw(rng.random(count))
        item = self.catalog.popularity.draw(rng.random(count))
        device = self.audience.device(rng.random(count))
        context = self.audience.context_taste(device, self.audience.hour(user, time))
        return self.audience.taste(user, time), self.catalog.taste[item], context


def _repeated(query: Query, count: int) -> tuple[Ints, Rows, Doubles]:
    """User [n], context [n, C] and time [n] of a query, for `count` impressions."""
    context = np.tile(np.array(query.context, np.int32), (count, 1))
    return np.full(count, query.user), context, np.full(count, query.time)
