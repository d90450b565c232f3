"""From the scores of a stack to estimates per arm: who is compared with whom, and summed per user for the intervals.

Shapes: A arms, F fleets, R duplicates, M = A F R models in this order, P pairs of duplicates, U users,
Q queries, N candidates, K slate length, n events.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.errors import SettingError
from simulator.measures import quality, swaps
from simulator.measures.differences import pd_of_logits
from simulator.measures.intervals import Estimate, Resamples, pair_index, sums_by_user
from simulator.measures.registry import ACCURACY, DIFFERENCES, MEASURES, QUALITIES, Answers, Parts, compare
from simulator.types import Doubles, Field, Floats, Interval, Ints, Query, Reals, Rows, Schema, Slate, World, order

BUCKETS = 5
"""Of PD by a value: at most so many, of about equally many events each."""
CHUNK = 65_536
"""Events counted at a time."""
MAX_SLICES, MIN_SLICE = 10, 20
"""Values of a column that are shown, at most; and queries (events) that one needs for it."""
Estimates = dict[str, Estimate]
"""Measure -> estimate, e.g. `slot`, `top1`, `set`, `pair`, `rbo`."""


@dataclass(frozen=True)
class Shape:
    """How the served models are numbered."""

    arms: int
    fleets: int
    duplicates: int
    partners: int | None = None
    """With how many others of its fleet a duplicate is compared; None: with all."""

    @property
    def all(self) -> int:
        """How many there are."""
        return self.arms * self.fleets * self.duplicates

    def models(self, arm: int) -> Ints:
        """Numbers [F, R] of the models of an arm."""
        size = self.fleets * self.duplicates
        return (arm * size + np.arange(size)).reshape(self.fleets, self.duplicates)

    def arm(self, model: int) -> int:
        """Number of the arm that a model belongs to."""
        return model // (self.fleets * self.duplicates)


class Users:
    """Sums per user of values that come per event or per query."""

    def __init__(self, of: Ints, known: Ints) -> None:
        """`of` [n] the user of each event, `known` [U] all users of the measurement, ascending."""
        self.of, self.known = of, known
        self.index, self.count = np.searchsorted(known, of), len(known)

    def sums(self, values: Doubles) -> Doubles:
        """Values [..., n] -> sums [..., U]; NaN (nothing to measure) counts as 0."""
        return sums_by_user(np.nan_to_num(values), self.index, self.count)

    def weights(self, values: Doubles | None = None) -> Doubles:
        """[U] how many of the values [n] each user has; all where none are given."""
        measured = None if values is None else (~np.isnan(values)).astype(np.float64)
        return np.bincount(self.index, measured, self.count).astype(np.float64)


class Alike:
    """How every model of the stack ranks queries of equally many candidates."""

    def __init__(self, places: Ints, scores: Floats, items: Ints, k: int) -> None:
        """scores [M, Q, N] log-odds of the candidates `items` [Q, N], `places` [Q] of the queries among all."""
        self.places, self.scores, self.items = places, scores, items
        orders = order(scores, self.items)
        self.positions = swaps.positions(orders)
        """[M, Q, N] place of each candidate, 0 for the best."""
        self.top = orders[..., :k]
        """[M, Q, K] candidate indices of the slate, best first."""
        self.slates = np.take_along_axis(np.broadcast_to(self.items, scores.shape), self.top, -1)
        """[M, Q, K] item numbers of the slate, best first."""

    def answers(self, model: int) -> Answers:
        """Those of one model."""
        return Answers(self.slates[model], self.items, self.scores[model], self.positions[model])


class Rankings:
    """How every model of the stack ranks the same queries: in parts, each of equally many candidates."""

    def __init__(self, scores: Floats, queries: list[Query], k: int) -> None:
        """scores [M, Q, N] log-odds of the candidates; a query with fewer has the first ones. A slate is no longer than
        its query has candidates."""
        self._queries, self.scores, self._k = queries, scores, k
        sizes = np.array([len(query.candidates) for query in queries])
        self.parts = []
        for n in np.unique(sizes):
            places = np.flatnonzero(sizes == n)
            columns = scores if len(places) == len(queries) else scores[:, places]
            items = np.stack([queries[place].candidates for place in places])
            self.parts.append(Alike(places, columns[..., :n], items, k))

    def part(self, places: Ints) -> Rankings:
        """Those of some of the queries."""
        return Rankings(self.scores[:, places], [self._queries[place] for place in places], self._k)

    def slate(self, model: int, query: int) -> Slate:
        """What a model answers a query with."""
        part = next(part for part in self.parts if query in part.places)
        place = int(np.searchsorted(part.places, query))
        return Slate(part.slates[model, place], part.scores[model, place, part.top[model, place]])

    def flat(self, model: int | np.integer[Any]) -> Floats:
        """A model's scores of all candidates, one query after the other."""
        sizes = [len(query.candidates) for query in self._queries]
        return np.concatenate([row[:size] for row, size in zip(self.scores[model], sizes, strict=True)])

    def compared(self, model: int, other: Rankings, other_model: int) -> Doubles:
        """[measures, 2, Q] how a model's answers differ from what model `its` of another stack answers to the same."""
        pairs = zip(self.parts, other.parts, strict=True)
        return self.joined([compare(one.answers(model), two.answers(other_model)) for one, two in pairs])

    def joined(self, parts: Sequence[NDArray[Any]]) -> Doubles:
        """What was measured of the parts [..., q] for all queries [..., Q], in their order."""
        if len(parts) == 1:
            return np.asarray(parts[0])
        values = np.empty((*parts[0].shape[:-1], len(self._queries)))
        for part, part_values in zip(self.parts, parts, strict=True):
            values[..., part.places] = part_values
        return values


class Comparison:
    """Compares the models of each arm on one set of queries and one set of events."""

    def __init__(self, shape: Shape, queries: list[Query], event_users: Ints, *, repetitions: int, seed: int) -> None:
        asked = np.array([query.user for query in queries])
        known = np.unique(np.concatenate([asked, event_users]))
        self.shape = shape
        self.asking, self.shown = Users(asked, known), Users(event_users, known)
        self.resamples = Resamples(shape.fleets, shape.duplicates, len(known), repetitions, seed)
        self.pairs = pair_index(shape.duplicates, shape.partners, seed)

    def without_noise(self, arms: int) -> Comparison:
        """The same of `arms` models, one of each, that nothing would change but other users."""
        alone = copy(self)
        alone.shape, alone.resamples = Shape(arms, 1, 1), self.resamples.without_noise()
        return alone

    def duplicate_swaps(self, arm: int, now: Rankings) -> Estimates:
        """Cause `duplicate`: two duplicates of a fleet at one generation."""
        sums = self._over_pairs(arm, self.pairs, lambda a, b: now.compared(a, now, b))
        return _named(sums, self._of_pairs)

    def refresh_swaps(self, arm: int, before: Rankings, after: Rankings) -> Estimates:
        """Cause `refresh`: a duplicate against itself some generations later."""
        sums = self._over_models(arm, lambda m: before.compared(m, after, m))
        return _named(sums, self.resamples.models)

    def both_swaps(self, arm: int, before: Rankings, after: Rankings) -> Estimates:
        """Cause `both`: a duplicate against another one, some generations later."""
        r, s = self.pairs
        ordered = np.concatenate([r, s]), np.concatenate([s, r])
        totals = self._over_pairs(arm, ordered, lambda a, b: before.compared(a, after, b))
        return _named(totals, lambda sums, weights: self.resamples.pairs(sums, weights, ordered))

    def differences(self, arm: int, logits: Floats) -> Estimates:
        """DIFFERENCES of log-odds [M, n] given to the events."""

        def parts(a: int, b: int) -> Doubles:
            return np.stack([each.fn(logits[a], logits[b]) for each in DIFFERENCES.values()])

        sums = self._over_pairs(arm, self.pairs, parts, self.shown)
        return {
            name: self._of_pairs(values, self.shown.weights()) for name, values in zip(DIFFERENCES, sums, strict=True)
        }

    def pd_among(self, arm: int, logits: Floats, inside: NDArray[np.bool_]) -> Estimate:
        """Relative PD, of log-odds [M, n], over the events that are `inside` [n]."""
        users = Users(self.shown.of[inside], self.shown.known)
        part = logits[:, inside]
        values = self._over_pairs(arm, self.pairs, lambda a, b: pd_of_logits(part[a], part[b])[None], users)
        return self._of_pairs(values[0], users.weights())

    def accuracy(self, arm: int, logits: Floats, labels: Floats) -> Estimates:
        """ACCURACY of log-odds [M, n] against labels [n]; what is one number for all events does not cover users."""
        models, estimates = self.shape.models(arm), Estimates()
        for name, each in ACCURACY.items():
            measured = partial(_of_model, each.fn, logits, labels)
            if each.aggregate:
                estimates[name] = self.resamples.aggregates(np.vectorize(measured, otypes=[float])(models))
            else:
                sums = self._over_models(arm, measured, self.shown)
                estimates[name] = self.resamples.models(sums, self.shown.weights())
        return estimates

    def ranking_quality(self, arm: int, now: Rankings, queries: list[Query], truth: bool) -> Estimates:
        """QUALITIES of the rankings; `truth`: relevance is a probability, and not what a log recorded."""
        relevance, estimates = _relevance(now, queries), Estimates()
        for name, each in QUALITIES.items():
            if truth and each.binary:
                continue

            def measured(m: int, fn: Callable[[Answers, Reals], Parts] = each.fn) -> Doubles:
                pairs = zip(now.parts, relevance, strict=True)
                return now.joined([np.stack(fn(part.answers(m), relevant)) for part, relevant in pairs])

            sums, weights = self._over_models(arm, measured)
            if weights.any():
                estimates[name] = self.resamples.models(sums, weights.mean(axis=1))
        return estimates

    def regret(self, arm: int, now: Rankings, queries: list[Query], bias: float) -> Estimate:
        """Regret, where the truth is known; `bias`: exponent of the position bias."""
        relevance = _relevance(now, queries)

        def measured(m: int) -> Doubles:
            pairs = [(part.top[m], relevant) for part, relevant in zip(now.parts, relevance, strict=True)]
            return now.joined([quality.regret(np.take_along_axis(r, top, -1), r, bias)[None] for top, r in pairs])

        lost = self._over_models(arm, measured)
        return self.resamples.models(lost[0], self.asking.weights())

    def personalisation(self, arm: int, rankings: Rankings, strangers: Rankings) -> Estimate:
        """PERSONALISATION: pair swaps of the queries' rankings with those that the same models give to other users."""
        pair = MEASURES["pair"].fn

        def measured(m: int) -> Doubles:
            pairs = zip(rankings.parts, strangers.parts, strict=True)
            return rankings.joined([np.stack(pair(one.answers(m), other.answers(m))) for one, other in pairs])

        sums, weights = self._over_models(arm, measured)
        return self.resamples.models(sums, weights.mean(axis=1))

    def churn(self, arm: int, before: Rankings, after: Rankings, queries: list[Query]) -> Estimates:
        """Pair swaps of cause `refresh`, split in useful ones (towards the truth) and useless ones."""
        relevance = _relevance(after, queries)

        def split(m: int) -> Doubles:
            pairs = zip(before.parts, after.parts, relevance, strict=True)
            return after.joined([swaps.useful_swaps(a.positions[m], b.positions[m], truth) for a, b, truth in pairs])

        useful, useless = self._over_models(arm, split)
        weights = self.asking.weights()
        return {
            "useful_swaps": self.resamples.models(useful, weights),
            "useless_swaps": self.resamples.models(useless, weights),
        }

    def progressive(self, arm: int, losses: Doubles) -> Estimate:
        """Mean log loss [M] of the events scored before they were learned; users are not resampled."""
        return self.resamples.aggregates(losses[self.shape.models(arm)])

    def _of_pairs(self, sums: Doubles, weights: Doubles) -> Estimate:
        """From sums [F, P, U] of the pairs that are compared."""
        return self.resamples.pairs(sums, weights, self.pairs)

    def _over_pairs(
        self, arm: int, pairs: tuple[Ints, Ints], measure: Callable[[int, int], Doubles], users: Users | None = None
    ) -> Doubles:
        """Sums [..., F, P, U] of `measure(model, model) -> [..., n]` for pairs of each fleet."""
        rows, index = self.shape.models(arm), list(zip(*pairs, strict=True))
        measured = (measure(int(row[r]), int(row[s])) for row in rows for r, s in index)
        return _sums(users or self.asking, (len(rows), len(index)), measured)

    def _over_models(self, arm: int, measure: Callable[[int], Doubles], users: Users | None = None) -> Doubles:
        """Sums [..., F, R, U] of `measure(model) -> [..., n]`."""
        rows = self.shape.models(arm)
        return _sums(users or self.asking, rows.shape, (measure(int(m)) for m in rows.flat))


def _sums(users: Users, shape: tuple[int, ...], measured: Iterable[Doubles]) -> Doubles:
    """Sums [..., *shape, U] of values [..., n] in that order: they may be gigabytes, and are never held twice."""
    totals = np.empty(0)
    for number, values in enumerate(measured):
        sums = users.sums(values)
        if not number:
            totals = np.empty((*sums.shape[:-1], math.prod(shape), users.count))
        totals[..., number, :] = sums
    return totals.reshape(*totals.shape[:-2], *shape, users.count)


def _of_model(fn: Callable[[Any, Any], Any], of: Any, truth: Any, model: int) -> Any:
    """A function of what is known of one model, and the truth; parts are stacked."""
    return np.asarray(fn(of[model], truth))


def _relevance(rankings: Rankings, queries: list[Query]) -> list[Floats]:
    """[q, N] of the queries of each part."""
    return [np.stack([queries[place].relevance for place in part.places]) for part in rankings.parts]


def prefixed(cause: str, swaps: Estimates) -> Estimates:
    """By their names in results: `swaps.pair`."""
    return {f"{cause}.{name}": estimate for name, estimate in swaps.items()}


def _named(by_measure: Doubles, estimate: Callable[[Doubles, Doubles], Estimate]) -> Estimates:
    """Of sums [MEASURES, 2, F, P, U] of pairs of models; without what no query has anything to measure of."""
    return {
        name: estimate(sums, weights.mean(axis=1))
        for name, (sums, weights) in zip(MEASURES, by_measure, strict=True)
        if weights.any()
    }


@dataclass(frozen=True)
class ColumnSlice:
    """The queries and events of one value of a column."""

    value: str
    """As the log writes it; `others` for what is rare."""
    share: float
    """Of all queries; of a column that describes items, of all events."""
    asked: Ints
    """Places of its queries; none for a column that describes items."""
    shown: Ints
    """Places of its events."""


def column_of(schema: Schema, column: str) -> Field:
    """The field that is this column of the log. Raises SettingError where there is none with one value each."""
    columns = {field.name: field for field in schema.fields if field.slots == 1}
    if column not in columns:
        raise SettingError("by", column, f"one of {', '.join(columns)}: columns of the log with one value each")
    return columns[column]


def slices(world: World, column: str, queries: list[Query], events: Rows) -> list[ColumnSlice]:
    """The commonest values of a column of the log, most frequent first, and what is left.

    `events` [n, S] rows of the held-out events. A value with fewer than MIN_SLICE queries (events) counts as left.
    """
    schema = world.schema
    of_items = column_of(schema, column).side == "item"
    slot, first = schema.slot_range(column).start, schema.first_row(column)
    shown = events[:, slot]
    asked = np.array([query.features[0, slot] for query in queries]) if not of_items else np.empty(0, np.int64)
    counted = shown if of_items else asked
    rows, counts = np.unique(counted, return_counts=True)
    common = rows[np.lexsort((rows, -counts))][:MAX_SLICES]
    common = common[np.isin(common, rows[counts >= MIN_SLICE])]
    parts = []
    for row in [*common.tolist(), None]:
        in_asked, in_shown = ((~np.isin(c, common) if row is None else c == row) for c in (asked, shown))
        inside = in_shown if of_items else in_asked
        if inside.sum() >= 2:
            value = "others" if row is None else world.name_of(column, row - first)
            parts.append(ColumnSlice(value, float(inside.mean()), np.flatnonzero(in_asked), np.flatnonzero(in_shown)))
    return parts


def learned_counts(world: World, learned: int) -> Ints:
    """[items] in how many of the first `learned` events each item was shown."""
    counts = np.zeros(world.items, np.int64)
    for batch in world.batches(CHUNK, 0, learned):
        counts += np.bincount(batch.item, minlength=world.items)
    return counts


def mean_score(comparison: Comparison, arm: int, logits: Floats) -> Doubles:
    """[n] probability of an engagement: the mean of all the arm's models."""
    scores = logits[comparison.shape.models(arm).ravel()].astype(np.float64)
    return np.asarray((0.5 + 0.5 * np.tanh(scores / 2)).mean(axis=0))


def pd_by(
    comparison: Comparison, arm: int, logits: Floats, values: Doubles
) -> Iterator[tuple[float, float, float, Interval]]:
    """PD in buckets of events by a value [n]: its limits (the last one belongs to it), share of events, PD.

    `logits` [M, n]. Equal values share a bucket, so there may be fewer than BUCKETS; none is empty.
    """
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BUCKETS + 1)))
    bucket = np.searchsorted(edges[1:-1], values, side="right")
    for number in np.unique(bucket):
        inside = bucket == number
        low, high = float(values[inside].min()), float(values[inside].max())
        yield low, high, float(inside.mean()), comparison.pd_among(arm, logits, inside).interval()
