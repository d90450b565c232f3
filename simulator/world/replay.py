"""The replay world: a real click log, learned from in time order.

A log of engagements becomes events by sampled negatives: engagement r is event r x (1 + M), its M negatives follow
directly, with the engagement's user, time and context. A log with labels is used as it is. What describes a user or an
item is static; nothing else of a feature comes from the future: a user's history ends before the event's time.

Each negative comes with probability 1/2 from the items of the trailing `recent` engagements (popular items come up
more often), which end with the engagement itself, else uniformly from all items of the catalogue, seen or not: else an
item's first event would always be an engagement. Accidental positives, items that the user did or will engage with, are
not rejected: doing so would need the future, and among thousands of items they are rare.

Shapes: n events or rows, M negatives per engagement, H items of a history, Q queries, N candidates, K slate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from simulator.config import ReplayConfig
from simulator.errors import SettingError
from simulator.randomness import generator
from simulator.types import Batch, Doubles, Floats, Ints, Names, Query, Rows
from simulator.world.clicklog import ClickLog
from simulator.world.features import encoder_of, rows_of
from simulator.world.retrieval import retrieve

BLOCK = 8_192
"""Rows whose negatives are drawn at once, each block from its own generator."""
QUERY_WINDOW = 50_000
"""Queries are asked by users of this many events from `at` on: near enough to `at`, and all of a held-out tail."""
COVERAGE = (200, 500, 1_000)
"""Numbers of candidates for which a result holds how often an answer is among them."""
PAGE_ROWS = 10_000
"""Rows behind which a page does not go on."""


class ReplayWorld:
    """A World (see simulator/types.py) made of a log."""

    has_truth = False
    """A log records engagements, not probabilities."""

    def __init__(self, config: ReplayConfig, log: ClickLog, seed: int, hash_rows: int = 0) -> None:
        """`hash_rows` as in ModelConfig. DataError where two fields have one name."""
        self._config, self._log, self._seed = config, log, seed
        self.encoder = encoder_of(log, hash_rows)
        self.name, self.schema, self.skipped_rows = log.name, self.encoder.schema, log.skipped_rows
        self.users, self.items = len(log.users), len(log.items)
        context = {feature.name: feature.names for feature in log.context_features}
        self.names = Names(log.users.ids, log.items.ids, log.items.titles or (), context)
        # of a page without labels, such as a basket, nothing is known that was passed over
        self.has_pages, self.has_weights = log.labelled and log.slate is not None, log.weight is not None
        self._per_row = 1 if log.labelled else 1 + config.negatives
        self.events = len(log) * self._per_row
        """Sampled negatives included."""
        slots = [field.name for field in log.context_features for _ in range(field.slots)]
        self._first_context = np.array(list(map(self.schema.first_row, slots)), np.int32)
        self._position_slots = [place for place, name in enumerate(slots) if name == log.position]
        self._draws = lru_cache(maxsize=2)(self._draw)

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Events [start, stop) in time order, `size` at a time (the last one may be shorter)."""
        assert size >= 1 and start >= 0
        stop = self.events if stop is None else min(stop, self.events)
        for first in range(start, stop, size):
            last, row = min(first + size, stop), first // self._per_row
            yield self._events(row, self._row(last))[first - row * self._per_row : last - row * self._per_row]

    def _row(self, event: int) -> int:
        """The first row that does not begin before an event."""
        return -(-event // self._per_row)

    def _events(self, first: int, stop: int) -> Batch:
        """The events of rows [first, stop)."""
        log, part = self._log, slice(first, stop)
        columns: list[np.ndarray] = [log.user[part].astype(np.int64), np.array(log.time[part])]
        columns += [self._context(part), log.label[part].astype(np.float32)]
        columns += [self._history(np.arange(first, stop), len(log))]
        columns += [] if log.weight is None else [np.array(log.weight[part], np.float32)]
        item = log.item[part].astype(np.int64)
        if not log.labelled:
            item = np.column_stack([item, self._negatives(first, stop)]).ravel()
            columns = [np.repeat(column, self._per_row, axis=0) for column in columns]
            columns[3][np.arange(len(item)) % self._per_row > 0] = 0
        user, time, context, label, history, *weight = columns
        return Batch(user, item, time, self.encoder.encode(user, item, context, history), label, *weight)

    def _context(self, rows: slice | Ints) -> Rows:
        """[n, C] table rows of the context slots."""
        return rows_of(self._log.context[rows], self._first_context)

    def _negatives(self, first: int, stop: int) -> Ints:
        """Items [n, M] not engaged with, for the engagements of rows [first, stop)."""
        parts = [
            self._draws(block)[max(0, first - block * BLOCK) : stop - block * BLOCK]
            for block in range(first // BLOCK, -(-stop // BLOCK))
        ]
        draws, rows = np.concatenate(parts), np.arange(first, stop)[:, None]
        oldest = np.maximum(0, rows - self._config.recent + 1)
        popular = self._log.item[oldest + (draws[:, :, 0] * (rows - oldest + 1)).astype(np.int64)]
        uniform = (draws[:, :, 1] * self.items).astype(np.int64)
        return np.where(draws[:, :, 2] < 0.5, popular, uniform)

    def _draw(self, block: int) -> Doubles:
        return generator(self._seed, "negatives", block).random((BLOCK, self._config.negatives, 3))

    def _history(self, rows: Ints, limit: int) -> Ints:
        """[n, H] the last items that the user of each row [n] engaged with, latest first, -1 where there are no more:
        before the row's time, before row number `before`, and not on the row's page."""
        log, items_of_users = self._log, np.full((len(rows), self._log.history), -1)
        if log.previous is None or not log.history:
            return items_of_users
        time, active = log.time[rows], np.arange(len(rows))
        place: Ints = log.previous[rows].astype(np.int64)
        for slot in range(log.history):
            while True:
                active = active[place[active] >= 0]
                candidate = place[active]
                skip = (candidate >= limit) | (log.time[candidate] >= time[active])
                if log.slate is not None:
                    skip |= log.slate[candidate] == log.slate[rows[active]]
                if not skip.any():
                    break
                place[active[skip]] = log.previous[candidate[skip]]
            items_of_users[active, slot] = log.item[candidate]
            place[active] = log.previous[candidate]
        return items_of_users

    def queries(self, count: int, candidates: int, at: int, purpose: str) -> list[Query]:
        """`count` queries (fewer where there are fewer) of the next QUERY_EVENTS events (or up to the end), in log
        order; where the log has positions, for the first one.

        Where the log names pages, queries are pages that users saw from `at` on: candidates are the page's items, those
        that were engaged with are relevant. Else they are engagements: user, time and context are the engagement's,
        candidates are retrieved for the user's segment from the last `recent` engagements before `at` (all items, where
        those are fewer), and relevant is what the user engages with from `at` on in [time, time + horizon]. What
        retrieval misses is not ranked: a query without a relevant candidate has no ranking loss.

        `id` is the number of the first event, the history that as of `at`. SettingError where nobody is left to ask.
        """
        first, stop = self._row(at), self._row(min(at + QUERY_WINDOW, self.events))
        pages = self._pages(first, stop) if self.has_pages else None
        rows = first + np.flatnonzero(self._log.label[first:stop]) if pages is None else np.array([p[0] for p in pages])
        if not len(rows):
            fault = "nobody asks" if pages is None else "no page of two items or more begins"
            raise SettingError("queries", count, f"{fault} behind event {at} of {self.events} of the log")
        draws = generator(self._seed, f"queries {purpose}", at)
        chosen = np.sort(draws.choice(len(rows), min(count, len(rows)), replace=False))
        rows = rows[chosen].astype(np.int64)
        if pages is not None:
            parts = [self._page_answers(pages[number]) for number in chosen]
            return self._queries_of(rows, first, [part[0] for part in parts], [part[1] for part in parts])
        return self._queries_of(rows, first, self._retrieved(rows, first, candidates), self._answers(rows, first))

    def _queries_of(self, rows: Ints, first: int, candidates: Sequence[Ints], answers: Sequence[Ints]) -> list[Query]:
        """Queries as they were asked in rows [Q], by what was known before row `first`."""
        log, context, history = self._log, self._context(rows), self._history(rows, first)
        context[:, self._position_slots] = self._first_context[self._position_slots]
        queries = []
        for number, row in enumerate(rows.tolist()):
            items, user, rows_of_context = candidates[number], int(log.user[row]), tuple(context[number].tolist())
            features = self.encoder.candidates(user, items, rows_of_context, history[number])
            relevance = np.isin(items, answers[number]).astype(np.float32)
            identity = row * self._per_row, user, float(log.time[row]), rows_of_context
            queries.append(Query(*identity, items, features, relevance, answers[number]))
        return queries

    def _retrieved(self, rows: Ints, first: int, count: int) -> list[Ints]:
        """For each row [Q] the candidates of its user before row `first`."""
        user, item = self.engagements(first)
        segments = self.encoder.segments
        distinct, place = np.unique(segments[self._log.user[rows]], return_inverse=True)
        return list(retrieve(segments[user], item, self.present(0), distinct, count)[place])

    def coverage(self, queries: list[Query], at: int) -> dict[str, float]:
        """Number of candidates -> share of queries, asked from event `at` on, that have an answer among so many; for
        COVERAGE that the catalogue is larger than. Nothing where queries are pages."""
        sizes = [size for size in COVERAGE if size < self.items and not self.has_pages]
        if not sizes:
            return {}
        rows = np.array([query.id // self._per_row for query in queries])
        retrieved = self._retrieved(rows, self._row(at), max(sizes))
        hits = [np.isin(items, query.answers) for query, items in zip(queries, retrieved, strict=True)]
        return {str(size): float(np.mean([hit[:size].any() for hit in hits])) for size in sizes}

    def engagements(self, stop: int) -> tuple[Ints, Ints]:
        """Users and items of the last `recent` engagements strictly before a row, fewer near the start."""
        recent, span = self._config.recent, self._config.recent
        while span < stop and np.count_nonzero(self._log.label[stop - span : stop]) < recent:
            span *= 2
        start = max(0, stop - span)
        rows = start + np.flatnonzero(self._log.label[start:stop])[-recent:]
        return self._log.user[rows].astype(np.int64), self._log.item[rows].astype(np.int64)

    def _answers(self, rows: Ints, first: int) -> list[Ints]:
        """For each row [Q] the distinct items that its user engages with from row `first` on within the horizon, in log
        order."""
        log, horizon = self._log, self._config.horizon
        is_asking = np.zeros(self.users, bool)
        is_asking[log.user[rows]] = True
        stop = int(np.searchsorted(log.time, log.time[rows].max() + horizon, side="right"))
        later = first + np.flatnonzero(is_asking[log.user[first:stop]] & (log.label[first:stop] > 0))
        later = later[np.argsort(log.user[later], kind="stable")]
        user, time, item = log.user[later], log.time[later], log.item[later]
        answers = []
        for user_of_row, time_of_row in zip(log.user[rows], log.time[rows], strict=True):
            start, end = np.searchsorted(user, user_of_row), np.searchsorted(user, user_of_row, side="right")
            begin = start + np.searchsorted(time[start:end], time_of_row)
            end = start + np.searchsorted(time[start:end], time_of_row + horizon, side="right")
            answers.append(np.array(list(dict.fromkeys(item[begin:end].tolist())), np.int64))
        return answers

    def _pages(self, first: int, stop: int) -> list[Ints]:
        """The rows of each page of two items or more that begins in rows [first, stop), in log order."""
        assert self._log.slate is not None
        begin = max(0, first - PAGE_ROWS)
        page = self._log.slate[begin : stop + PAGE_ROWS]
        order = np.argsort(page, kind="stable")
        pages = np.split(begin + order, 1 + np.flatnonzero(np.diff(page[order])))
        chosen = [rows for rows in pages if first <= rows[0] < stop and len(np.unique(self._log.item[rows])) > 1]
        return sorted(chosen, key=lambda rows: int(rows[0]))

    def _page_answers(self, rows: Ints) -> tuple[Ints, Ints]:
        """Distinct items of a page, by position where the log has it, else in log order; and those engaged with."""
        if self._position_slots:
            rows = rows[np.argsort(self._log.context[rows, self._position_slots[0]], kind="stable")]
        item, engaged = self._log.item[rows].astype(np.int64), self._log.label[rows] > 0
        return np.array(list(dict.fromkeys(item.tolist()))), np.unique(item[engaged])

    def present(self, time: float) -> Ints:
        """See World: all items, for a log does not hold when one came or left."""
        return np.arange(self.items)

    def name_of(self, field: str, value: int) -> str:
        """See World."""
        return self.encoder.name(field, value)

    def click(self, query: Query, items: Ints, purpose: str) -> Floats:
        """[K] 1 where the log says that the user engaged with the item within the horizon (or on the page), else 0."""
        return np.isin(items, query.answers).astype(np.float32)

    def feedback(self, query: Query, items: Ints, clicks: Floats) -> Batch | None:
        """Nothing: the log supplies all events."""
        return None
