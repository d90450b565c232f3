"""The replay world: a real click log, learned from in time order.

A log of engagements becomes events by sampled negatives: engagement r is event r x (1 + M), its M negatives follow
directly, with the engagement's user, time and context. A log with labels is used as it is. Users and items are numbered
by first appearance; their features are static, the first value seen counts. The first pass over the log fixes how large
the tables are; no feature's value comes from the future.

Each negative comes with probability 1/2 from the items of the trailing `recent` engagements (popular items come up
more often), else uniformly from the items seen so far. Both ranges end with the engagement itself, so nothing of the
future is used. Accidental positives, items that the user did or will engage with, are not rejected: doing so would
need the future, and among thousands of items they are rare.

Shapes: n events, rows or engagements, M negatives per engagement, Q queries, N candidates, K slate, B blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulator.config import ReplayConfig
from simulator.errors import DataError, SettingError
from simulator.randomness import generator
from simulator.types import Batch, Floats, Ints, Names, Query, Schema
from simulator.world.log import Block, Index, Log, trail
from simulator.world.movielens import open_movielens
from simulator.world.retrieval import Popularity, segments_of
from simulator.world.tabular import open_mapped


def negatives(items: Ints, trail: Ints, known: int, recent: int, count: int, seed: int, block: int) -> Ints:
    """Items [n, M] not engaged with, for the engaged `items` [n] of one block of the log.

    `trail`: items of the last `recent` engagements before the block (fewer near the start). `known`: distinct items
    before the block. The draws depend on (seed, block) alone, and row i on the rows before it alone.
    """
    draws = generator(seed, "negatives", block).random((len(items), count, 3))
    history = np.concatenate([trail, items])
    now = len(trail) + np.arange(len(items))[:, None]
    oldest = np.maximum(0, now - recent + 1)
    popular = history[oldest + (draws[:, :, 0] * (now - oldest + 1)).astype(np.int64)]
    seen = np.maximum(known, np.maximum.accumulate(items) + 1)[:, None]
    uniform = (draws[:, :, 1] * seen).astype(np.int64)
    items_drawn: Ints = np.where(draws[:, :, 2] < 0.5, popular, uniform)
    return items_drawn


@dataclass(frozen=True)
class Asking:
    """Engagements taken as queries, and what came of them."""

    row: Ints
    """[Q] row of the log."""
    query: Block
    """[Q] the engagements at those rows."""
    later: Block
    """[n] what the users who ask engage with, from the first row of the range to the end of the last horizon."""

    def answers(self, number: int, horizon: float) -> Ints:
        """Distinct items that the user of a query engages with in [time, time + horizon] seconds, in log order."""
        user, time = self.query.user[number], self.query.time[number]
        within = (self.later.user == user) & (self.later.time >= time) & (self.later.time <= time + horizon)
        return np.array(list(dict.fromkeys(self.later.item[within].tolist())), np.int64)


def ask(log: Log, index: Index, rows: range, horizon: float, choose: Callable[[int], Ints]) -> Asking:
    """Queries by some engagements of a range of rows; `choose` gets their number and names places among them."""
    ahead = _engagements(log, index, rows.start)
    numbers, parts = [np.empty(0, np.int64)], []
    for number, part, end in ahead:
        numbers.append(number)
        parts.append(part)
        if end >= rows.stop:
            break
    row = np.concatenate(numbers)
    chosen = choose(int(np.searchsorted(row, rows.stop)))
    query = Block.concatenate(parts)[chosen]
    users, until = np.unique(query.user), query.time.max() + horizon
    later = [part[np.flatnonzero(np.isin(part.user, users))] for part in parts]
    for _, part, _ in ahead:
        if len(part) and part.time[0] > until:
            break
        later.append(part[np.flatnonzero(np.isin(part.user, users))])
    return Asking(row[chosen], query, Block.concatenate(later))


def _engagements(log: Log, index: Index, row: int) -> Iterator[tuple[Ints, Block, int]]:
    """Block by block the engagements from a row on: their rows, themselves, and the first row of the next block."""
    first = index.block_of(row)
    read = int(index.rows[first])
    for block in log.blocks(first):
        numbers = read + np.flatnonzero(block.label)
        numbers = numbers[numbers >= row]
        part = block[numbers - read]
        read += len(block)
        yield numbers, part, read


QUERY_EVENTS = 50_000
"""Queries are asked by users of this many events from `at` on: near enough to `at`, and all of a held-out tail."""


def open_log(config: ReplayConfig, hash_rows: int = 0) -> Log:
    """The log at the configured path; DataError where there is none or it is damaged."""
    path = Path(config.path)
    if path.is_dir():
        return open_movielens(path, config, hash_rows)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give a folder with ratings.dat or a mapping file *.toml")
    if path.suffix != ".toml":
        raise DataError(f"{path}: not a mapping file; give a *.toml that names the log's columns, or a folder")
    return open_mapped(path, config, hash_rows)


class ReplayWorld:
    """A World (see simulator/types.py) made of a log; it is read once when built, then again for each pass."""

    def __init__(self, config: ReplayConfig, seed: int, hash_rows: int = 0) -> None:
        """Reads the log through; DataError naming file and line where it is damaged; `hash_rows` as in ModelConfig."""
        self._config, self._seed = config, seed
        self._log = open_log(config, hash_rows)
        self._index = self._log.index
        self.encoder = self._log.encoder
        self._per_row = 1 if self._log.labelled else 1 + config.negatives

    @property
    def name(self) -> str:
        """Name of the log's folder or mapping file."""
        return self._log.name

    @property
    def schema(self) -> Schema:
        """Fields, table rows and slots."""
        return self.encoder.schema

    @property
    def events(self) -> int:
        """Number of events, sampled negatives included."""
        return int(self._index.rows[-1]) * self._per_row

    @property
    def users(self) -> int:
        """Number of users in the whole log."""
        return len(self.encoder.user_rows)

    @property
    def items(self) -> int:
        """Number of items in the whole log."""
        return len(self.encoder.item_rows)

    @property
    def has_truth(self) -> bool:
        """A log records engagements, not probabilities."""
        return False

    @property
    def skipped_rows(self) -> int:
        """Damaged rows that were left out (`bad_rows = skip`)."""
        return self._log.skipped_rows

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Events [start, stop) in time order, `size` at a time (the last one may be shorter)."""
        assert size >= 1 and start >= 0
        stop = self.events if stop is None else min(stop, self.events)
        waiting: list[Batch] = []
        for part in self._parts(start, stop):
            waiting.append(part)
            if sum(map(len, waiting)) >= size:
                whole = Batch.concatenate(waiting)
                full = len(whole) // size * size
                yield from (whole[first : first + size] for first in range(0, full, size))
                waiting = [whole[full:]]
        if sum(map(len, waiting)):
            yield Batch.concatenate(waiting)

    def _parts(self, start: int, stop: int) -> Iterator[Batch]:
        """Events [start, stop) block by block; blocks are made whole, so that any range gives the same events."""
        if start >= stop:
            return
        rows, recent = self._index.rows, self._config.recent
        first = self._index.block_of(start // self._per_row)
        before = trail(self._log, self._index, int(rows[first]), recent).item
        for number, block in enumerate(self._log.blocks(first), start=first):
            event = int(rows[number]) * self._per_row
            if event >= stop:
                return
            yield self._expanded(block, number, before)[max(0, start - event) : stop - event]
            if not self._log.labelled:
                before = np.concatenate([before, block.item])[-recent:]

    def _expanded(self, block: Block, number: int, before: Ints) -> Batch:
        """A block's events: its rows, and behind each its negatives where the log has no labels."""
        if self._log.labelled:
            features = self.encoder.encode(block.user, block.item, block.context)
            return Batch(block.user, block.item, block.time, features, block.label)
        count, config = self._per_row, self._config
        known = int(self._index.items[number])
        sampled = negatives(block.item, before, known, config.recent, config.negatives, self._seed, number)
        item = np.column_stack([block.item, sampled]).ravel()
        user, time = np.repeat(block.user, count), np.repeat(block.time, count)
        label = np.zeros((len(block), count), np.float32)
        label[:, 0] = 1
        features = self.encoder.encode(user, item, np.repeat(block.context, count, axis=0))
        return Batch(user, item, time, features, label.ravel())

    def queries(self, count: int, candidates: int, at: int, purpose: str) -> list[Query]:
        """`count` distinct engagements of the next QUERY_EVENTS events (or up to the end), in log order, as queries.

        User, time and context are the engagement's, `id` its event number. Relevant is what the user engages with
        from event `at` on in [time, time + horizon]. Candidates: most popular in the trailing `recent` engagements
        before `at` among users of the segment (equal first user feature; everybody where there is none), filled up
        from all users, then from older items; ties by item number. What retrieval misses is not ranked: a query without
        a relevant candidate has no ranking loss. One pass over the range and the horizon behind it. SettingError for
        too many candidates or too many queries.
        """
        row = -(-at // self._per_row)
        window = trail(self._log, self._index, row, self._config.recent)
        if window.items < candidates:
            hint = f"at most {window.items}, the items known before event {at} of the log; ask fewer or later"
            raise SettingError("candidates", candidates, hint)
        stop = min(at + QUERY_EVENTS, self.events)
        asking = ask(
            self._log,
            self._index,
            range(row, -(-stop // self._per_row)),
            self._config.horizon,
            lambda available: self._drawn(count, available, at, stop, purpose),
        )
        segments = segments_of(self.encoder.user_rows)
        popular = Popularity(window, segments, candidates)
        found = []
        for number in range(count):
            answers = asking.answers(number, self._config.horizon)
            user = int(asking.query.user[number])
            items = popular.candidates(int(segments[user]))
            context = tuple(asking.query.context[number].tolist())
            features = self.encoder.candidates(user, items, context)
            relevance = np.isin(items, answers).astype(np.float32)
            event, time = int(asking.row[number]) * self._per_row, float(asking.query.time[number])
            found.append(Query(event, user, time, context, items, features, relevance))
        return found

    def _drawn(self, count: int, available: int, at: int, stop: int, purpose: str) -> Ints:
        """Places [count] of the drawn engagements among those available, in log order."""
        if count > available:
            hint = f"at most {available}, the engagements in events {at} to {stop} of the log; ask fewer"
            raise SettingError("queries", count, hint)
        draws = generator(self._seed, f"queries {purpose}", at)
        return np.sort(draws.choice(available, count, replace=False))

    @property
    def names(self) -> Names:
        """See World."""
        return self._log.names

    def name_of(self, field: str, value: int) -> str:
        """See World."""
        return self.encoder.name(field, value)

    def click(self, query: Query, items: Ints, purpose: str) -> Floats:
        """[K] 1 where the log says that the user engaged with the item within the horizon, else 0."""
        return np.isin(items, query.candidates[query.relevance > 0]).astype(np.float32)

    def feedback(self, query: Query, items: Ints, clicks: Floats) -> Batch | None:
        """Nothing: the log supplies all events."""
        return None
