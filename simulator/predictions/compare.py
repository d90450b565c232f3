"""What differs between the predictions of several models, as one Result.

Two models' answers to a query are aligned by item; queries of one shape are compared at once by the measures of
measures/registry.py. Sums per user go to the intervals of measures/intervals.py, as in `flicker run`: on what
`flicker run --keep-predictions` wrote the numbers are the run's own.

Where one model's slate is shorter than the other's, its empty places differ from whatever the other shows there, and
rank-biased overlap is the extrapolated form for uneven lists (Webber, Moffat, Zobel, TOIS 2010, eq. 32), its overlap
averaged over the orders of equal scores (Corsi and Urbano, SIGIR 2024, RBO^a). Only items that both models scored make
pairs.

Shapes: Q queries, N items of a query, C of them scored by both, K slate length, U units (users, or queries).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from simulator.errors import DataError
from simulator.measures.differences import pd_of_logits
from simulator.measures.intervals import Estimate, Interval, Resamples, pair_index, ratio
from simulator.measures.registry import ACCURACY, DIFFERENCES, MEASURES, QUALITIES, Answers
from simulator.measures.swaps import PERSISTENCE, positions
from simulator.predictions.parts import Block, NotGroupedError, Part, Reading, TwiceError, blocks, spilled, streamed
from simulator.predictions.read import Names, Source, mix, row_of
from simulator.result import Arm, Measures, Result, Slice
from simulator.types import Doubles, Ints, order

ITEMS = ("item", "score", "logit", "label", "event")
"""Columns of Rows that are of an item; the others are of its query."""
LAGS = (1, 2, 4, 8)
"""Refreshes between two generations of a duplicate that are compared."""
MOST_UNITS = 65_536
"""More users than this are counted in GROUPS groups: Resamples would group them anyway."""
GROUPS = 4_096
SLICE_GROUPS = 256
"""Groups of users within a value of --by."""
MOST_EVENTS = 1 << 24
"""Events held in memory, of all models and pairs together, for what is no sum over events."""
MOST = {name: each.most for held in (MEASURES, QUALITIES, ACCURACY) for name, each in held.items()}

Lists = dict[int, "Ranked"]
"""Number of items -> the queries of one model with so many."""
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Design:
    """The models of an arm; what a file calls its fleets, duplicates and generations is numbered in ascending order."""

    label: str
    generations: tuple[Ints, ...]
    """Numbers [F, R] of the models of the newest generation, and of those before it, newest first."""

    @property
    def shape(self) -> tuple[int, int]:
        """Fleets and duplicates."""
        return self.generations[0].shape  # type: ignore[return-value]

    def pairings(self) -> Iterator[tuple[str, int, int, int, int]]:
        """(cause, fleet, number of the pair, model, model): all that is compared."""
        now, (fleets, duplicates) = self.generations[0], self.shape
        r, s = pair_index(duplicates)
        lags = [(lag, self.generations[lag]) for lag in LAGS if lag < len(self.generations)]
        for f in range(fleets):
            for p, (a, b) in enumerate(zip(r, s, strict=True)):
                yield "swaps", f, p, now[f, a], now[f, b]
            for lag, past in lags:
                of = "swaps" if lag == 1 else f"lags.{lag}"
                for d in range(duplicates):
                    yield f"refresh_{of}", f, d, past[f, d], now[f, d]
                for p, (a, b) in enumerate(zip([*r, *s], [*s, *r], strict=True)):
                    yield f"both_{of}", f, p, past[f, a], now[f, b]


def designs(sources: Sequence[Source]) -> list[Design]:
    """Numbers the models of all sources and says how they stand to each other.

    Files without columns of MODEL are duplicates of one arm, `model`. An arm that several arguments hold is another arm
    each time (`relu`, `relu#2`) where they name the same models. Raises DataError where duplicates are missing.
    """
    held: dict[str, dict[int, set[tuple[Any, ...]]]] = defaultdict(lambda: defaultdict(set))
    for source in sources:
        for arm, fleet, duplicate, generation in source.models:
            key = (fleet or 0, source.argument if duplicate is None else duplicate, generation or 0)
            held[arm or "model"][source.argument].add(key)
    label: dict[tuple[str, int], str] = {}
    for arm, arguments in held.items():
        clash = sum(map(len, arguments.values())) > len(set().union(*arguments.values()))
        for copy, argument in enumerate(sorted(arguments)):
            label[arm, argument] = f"{arm}#{copy + 1}" if clash and copy else arm
    numbers: dict[tuple[Any, ...], int] = {}
    for source in sources:
        source.numbers = [
            numbers.setdefault(
                (label[arm or "model", source.argument], fleet or 0, source.argument if dup is None else dup, gen or 0),
                len(numbers),
            )
            for arm, fleet, dup, gen in source.models
        ]
    return [_design(arm, numbers) for arm in dict.fromkeys(key[0] for key in numbers)]


def _design(arm: str, numbers: dict[tuple[Any, ...], int]) -> Design:
    own = {key[1:]: number for key, number in numbers.items() if key[0] == arm}
    found = []
    for generation in sorted({key[2] for key in own}, reverse=True):
        fleets: dict[Any, list[int]] = defaultdict(list)
        for (fleet, _, g), number in sorted(own.items()):
            if g == generation:
                fleets[fleet].append(number)
        sizes = {len(models) for models in fleets.values()}
        if len(sizes) > 1:
            raise DataError(f"arm {arm}: its fleets have {min(sizes)} to {max(sizes)} duplicates: give as many of each")
        found.append(np.array(list(fleets.values())))
    same = [g for g in found if g.shape == found[0].shape]
    if len(same) < len(found):
        raise DataError(f"arm {arm}: its generations hold different duplicates: give the same ones of each")
    return Design(arm, tuple(same))


class Ranked:
    """The queries of one model that have N items, and how it ranks them; equal scores by item id."""

    def __init__(self, block: Block, k: int) -> None:
        self.block, self.k = block, min(k, block.item.shape[1])
        self.logit = block.columns.get("logit")
        best = np.argsort(-block.score, axis=-1)
        ranked = np.take_along_axis(block.score, best, axis=-1)
        self.tied = (ranked[:, 1:] == ranked[:, :-1]).any(axis=-1)
        """[Q] whether equal scores are among them."""
        if self.tied.any():
            best[self.tied] = order(block.score[self.tied], block.item[self.tied])  # type: ignore[arg-type]
        self.slates = np.take_along_axis(block.item, best[:, : self.k], axis=-1)
        self.positions = positions(best)

    def answers(self, which: Any = slice(None)) -> Answers:
        """Those to some of the queries."""
        scores = self.block.score if self.logit is None else self.logit
        block = self.block
        return Answers(self.slates[which], block.item[which], scores[which], self.positions[which])  # type: ignore[arg-type]


@dataclass(frozen=True)
class Matched:
    """Queries of one shape that two models answered, items aligned."""

    first: Answers
    second: Answers
    which: Any
    """Of the first model's block."""
    block: Block
    """The first model's, or that of uneven queries."""
    rbo: Doubles | None = None
    """[Q] RBO distance, where the slates are not equally long."""


def matched(first: Lists, second: Lists, k: int, counts: Counter[str]) -> Iterator[Matched]:
    """Everything that two models both answered. Counts what they did not."""
    left = {n: np.ones(len(lists.block.query), bool) for n, lists in first.items()}
    right = {n: np.ones(len(lists.block.query), bool) for n, lists in second.items()}
    for n in first.keys() & second.keys():
        a, b = first[n], second[n]
        i, j = _both(a.block.query, b.block.query)
        even = (a.block.item[i] == b.block.item[j]).all(axis=-1)
        if not even.all():
            i, j = (np.arange(len(q))[s][even] for q, s in ((a.block.query, i), (b.block.query, j)))
        left[n][i], right[n][j] = False, False
        yield Matched(a.answers(i), b.answers(j), i, a.block)
    rest = [np.concatenate([lists[n].block.query[free[n]] for n in lists] or [np.zeros(0, np.int64)])
            for lists, free in ((first, left), (second, right))]  # fmt: skip
    common = np.intersect1d(*rest, assume_unique=True)
    counts["missing"] += len(rest[0]) + len(rest[1]) - 2 * len(common)
    counts["uneven"] += len(common)
    if len(common):
        yield from _uneven(_Flat(first, common, k), _Flat(second, common, k), counts)


def _both(first: Ints, second: Ints) -> tuple[Any, Any]:
    """Where the common ones of two ascending arrays stand in each."""
    if np.array_equal(first, second):
        return slice(None), slice(None)
    _, i, j = np.intersect1d(first, second, assume_unique=True, return_indices=True)
    return i, j


class _Flat:
    """Some queries [Q] of one model, of any lengths: their items one after the other, and slates with empty places."""

    def __init__(self, lists: Lists, asked: Ints, k: int) -> None:
        self.asked, self.length = asked, np.zeros(len(asked), np.int64)
        self.slates = np.zeros((len(asked), k), np.int64)
        self.groups = np.zeros((len(asked), k), np.int64)  # places of equal scores share a number
        parts: list[dict[str, Any]] = []
        self.own: dict[str, Ints] = {}  # [Q] what is the same for all items of a query: its user, values of --by
        for n, ranked in lists.items():
            at = np.searchsorted(asked, ranked.block.query)
            mine = np.flatnonzero(asked[np.minimum(at, len(asked) - 1)] == ranked.block.query)
            at, width = at[mine], ranked.k
            self.length[at] = width
            self.slates[at, :width] = ranked.slates[mine]
            best = -np.sort(-ranked.block.score[mine], axis=-1)[:, :width]
            self.groups[at, 1:width] = (best[:, 1:] != best[:, :-1]).cumsum(axis=-1)
            for name, column in ranked.block.columns.items():
                if name not in ITEMS:
                    self.own.setdefault(name, np.zeros(len(asked), np.int64))[at] = column[mine, 0]
            parts.append({"at": np.repeat(at, n)} | {c: v[mine].ravel() for c, v in ranked.block.columns.items()})
        self.rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def padded(self, which: Ints, width: int, sign: int) -> Ints:
        """Slates [Q, width]; what stands in empty places is nowhere else: numbers of one parity below every id."""
        slates, place = self.slates[which, :width], np.arange(width)
        empty = np.iinfo(np.int64).min + 2 * place + sign
        return np.where(place < self.length[which, None], slates, empty)


def _uneven(a: _Flat, b: _Flat, counts: Counter[str]) -> Iterator[Matched]:
    at = np.concatenate([a.rows["at"], b.rows["at"]])
    item = np.concatenate([a.rows["item"], b.rows["item"]])
    by = np.lexsort((np.arange(len(at)) >= len(a.rows["at"]), item, at))
    same = np.flatnonzero((at[by][1:] == at[by][:-1]) & (item[by][1:] == item[by][:-1]))
    i, j = by[same], by[same + 1] - len(a.rows["at"])
    counts["lone"] += len(at) - 2 * len(same)
    count = np.bincount(a.rows["at"][i], minlength=len(a.asked))
    begin = np.concatenate([[0], count.cumsum()[:-1]])
    shapes = np.stack([a.length, b.length, count], axis=1)
    for one, other, n in np.unique(shapes, axis=0).tolist():
        which = np.flatnonzero((shapes == (one, other, n)).all(axis=1))
        place = begin[which][:, None] + np.arange(n)
        width = max(one, other)
        answers = [_answers(flat, rows[place], flat.padded(which, width, sign))
                   for flat, rows, sign in ((a, i, 0), (b, j, 1))]  # fmt: skip
        columns = {name: column[i[place]] for name, column in a.rows.items() if name not in ("at", *a.own)}
        columns |= {name: column[which, None] for name, column in a.own.items()}
        block = Block(a.asked[which], columns)
        rbo = None if one == other else uneven_rbo(a, b, which)
        yield Matched(answers[0], answers[1], slice(None), block, rbo)


def _answers(flat: _Flat, rows: Ints, slates: Ints) -> Answers:
    item, score = flat.rows["item"][rows], flat.rows["score"][rows]
    places = positions(order(score, item)) if rows.shape[1] else np.zeros(rows.shape, np.int16)
    return Answers(slates, item, flat.rows.get("logit", flat.rows["score"])[rows], places)


def uneven_rbo(a: _Flat, b: _Flat, which: Ints, p: float = PERSISTENCE) -> Doubles:
    """1 - extrapolated rank-biased overlap [Q] of slates of lengths s < l: with X_d the overlap at depth d,

        RBO = (1 - p) / p (sum_{d <= l} X_d / d p^d + sum_{s < d <= l} X_s (d - s) / (s d) p^d)
              + ((X_l - X_s) / l + X_s / s) p^l.

    X_d is its mean over the orders of equal scores: an item of a group on ranks t to e is among the first d with chance
    (d - t + 1) / (e - t + 1), cut to [0, 1].
    """
    s, l = sorted((int(a.length[which[0]]), int(b.length[which[0]])))  # noqa: E741  as in the article
    depth = np.arange(1, l + 1)
    inside = []
    for flat in (a, b):
        n = int(flat.length[which[0]])
        group = flat.groups[which, :n]
        top = (group[:, :, None] > group[:, None, :]).sum(-1)  # [Q, n] ranks above the group
        size = (group[:, :, None] == group[:, None, :]).sum(-1)
        inside.append(np.clip((depth - top[..., None]) / size[..., None], 0, 1))  # [Q, n, l]
    n, m = int(a.length[which[0]]), int(b.length[which[0]])
    shared = a.slates[which, :n, None] == b.slates[which, None, :m]
    overlap = np.einsum("qnm,qnd,qmd->qd", shared.astype(np.float64), *inside)
    weight = p**depth
    last, short = overlap[:, -1], overlap[:, s - 1]
    found = (overlap / depth * weight).sum(-1)
    found += (short[:, None] * np.maximum(depth - s, 0) / (s * depth) * weight).sum(-1)
    return np.asarray(np.clip(1 - (1 - p) / p * found - ((last - short) / l + short / s) * p**l, 0, 1))


class UserSums:
    """Sums per user of values that come by query or event; many users are counted in groups."""

    def __init__(self, groups: int = 0) -> None:
        self.groups = groups
        self.users = np.zeros(0, np.int64)
        self._order = np.zeros(0, np.int64)
        self._held: dict[Key, Doubles] = {}

    def add(self, key: Key, values: Doubles, user: Ints) -> None:
        """Add values [rows, n] of users [n]."""
        if self.groups:
            user = (mix(user.view(np.uint64)) % np.uint64(self.groups)).view(np.int64)
        mine, inverse = np.unique(user, return_inverse=True)
        place = mine if self.groups else self._places(mine)
        if place is None:
            return self.add(key, values, user)
        width = self.groups or len(self.users)
        held = self._held.get(key)
        if held is None or held.shape[1] < width:
            grown = np.zeros((len(values), self.groups or max(2 * width, 64)))
            if held is not None:
                grown[:, : held.shape[1]] = held
            held = self._held[key] = grown
        held[:, place] += np.stack([np.bincount(inverse, row, len(mine)) for row in values])

    def _places(self, users: Ints) -> Ints | None:
        """Columns of users [u], distinct and ascending; None after too many made groups of all."""
        at = np.searchsorted(self.users, users, sorter=self._order)
        found = np.zeros(len(users), bool)
        inner = at < len(self.users)
        found[inner] = self.users[self._order[at[inner]]] == users[inner]
        if not found.all():
            if len(self.users) + int((~found).sum()) > MOST_UNITS:
                self._fold()
                return None
            self.users = np.concatenate([self.users, users[~found]])
            self._order = np.argsort(self.users)
            at = np.searchsorted(self.users, users, sorter=self._order)
        return np.asarray(self._order[at])

    def _fold(self) -> None:
        group = (mix(self.users.view(np.uint64)) % np.uint64(GROUPS)).astype(np.int64)
        for key, held in self._held.items():
            rows = [np.bincount(group, row[: len(group)], GROUPS) for row in held[:, : len(group)]]
            self._held[key] = np.stack(rows)
        self.groups = GROUPS

    @property
    def count(self) -> int:
        """Units so far."""
        return self.groups or len(self.users)

    def keys(self) -> list[Key]:
        """All keys that something was added to."""
        return list(self._held)

    def of(self, key: Key, rows: int) -> Doubles:
        """Sums [rows, U], users ascending; 0 where nothing was added."""
        held = self._held.get(key, np.zeros((rows, 0)))
        held = np.pad(held, [(0, 0), (0, max(self.count - held.shape[1], 0))])[:, : self.count]
        return held if self.groups else held[:, self._order]


class Tally:
    """Everything that is summed up while parts go by."""

    def __init__(self, arms: Sequence[Design], k: int, optional: Sequence[str], by: Sequence[str]) -> None:
        self.arms, self.k, self.by = arms, k, by
        self.predicted, self.labelled, self.roles = (name in optional for name in ("logit", "label", "event"))
        self.measures = {name: each for name, each in MEASURES.items() if each.swap or self.predicted}
        self.pairings = [(arm, *pairing) for arm in arms for pairing in arm.pairings()]
        self.sums, self.slices = UserSums(), UserSums(SLICE_GROUPS)
        self.counts: Counter[str] = Counter()
        self.graded = self.outside = False
        self._events: dict[Key, list[tuple[Doubles, Doubles, Ints]]] = defaultdict(list)
        self._held = 0
        self.truncated = False

    def add(self, part: Part) -> None:
        """Count what one part holds. Raises TwiceError."""
        ranked: dict[int, Lists] = {}
        events: dict[int, Lists] = {}
        for model, rows in part.items():
            self.counts["rows"] += len(rows["query"])
            inside = rows.get("event")
            if inside is None or not inside.any():
                ranked[model], events[model] = self._lists(rows, model), {}
            else:
                halves = [{name: column[half] for name, column in rows.items()} for half in (~inside, inside)]
                ranked[model], events[model] = (self._lists(half, model) for half in halves)
        for arm, cause, fleet, pair, one, other in self.pairings:
            key = (arm.label, cause, fleet, pair)
            counts = self.counts if cause == "swaps" or arm.shape[1] == 1 else Counter()
            for met in matched(ranked.get(one, {}), ranked.get(other, {}), self.k, counts):
                self._compare(key, met, counts)
            if cause == "swaps" and self.predicted:
                for met in matched(events.get(one, {}), events.get(other, {}), self.k, Counter()):
                    self._differ(key, met, np.ones(met.first.scores.shape, bool))
        for arm in self.arms:
            for (fleet, duplicate), model in np.ndenumerate(arm.generations[0]):
                key = (arm.label, fleet, duplicate)
                for lists in ranked.get(model, {}).values():
                    self.counts["tied"] += int(lists.tied.sum())
                    if self.labelled:
                        self._rate(key, lists)
                for lists in events.get(model, {}).values():
                    self._judge(key, lists.block)

    def _lists(self, rows: Any, model: int) -> Lists:
        try:
            return {n: Ranked(block, self.k) for n, block in blocks(rows).items()}
        except TwiceError as twice:
            raise TwiceError(twice.query, twice.item, model) from None

    def _compare(self, key: Key, met: Matched, counts: Counter[str]) -> None:
        """Measures of the queries of one shape."""
        if not len(met.first.slates):
            return
        values = np.stack([np.stack(each.fn(met.first, met.second)) for each in self.measures.values()])
        if met.rbo is not None:
            values[list(self.measures).index("rbo"), 0] = met.rbo
        counts["queries"] += len(met.first.slates)
        counts["pairs"] += met.first.items.size
        self._add(key, values.reshape(-1, values.shape[-1]), met.block, met.which)
        if key[1] == "swaps" and self.labelled and self.predicted and not self.roles and met.first.items.size:
            self._differ(key, met, ~np.isnan(met.block.columns["label"][met.which]))

    def _add(self, key: Key, values: Doubles, block: Block, which: Any) -> None:
        """Sums per user, and per value of the columns of --by."""
        self.sums.add(key, values, self._users(block, which)[:, 0])
        for name in self.by:
            code = block.columns[name][which][:, 0]
            for value in np.unique(code).tolist():
                mask = code == value
                self.slices.add((name, value, *key), values[:, mask], self._users(block, which)[mask, 0])

    def _users(self, block: Block, which: Any) -> Ints:
        """[Q, N], or [Q, 1], whose they are."""
        return np.asarray(block.columns["user"][which] if "user" in block.columns else block.query[which][:, None])

    def _differ(self, key: Key, met: Matched, known: Any) -> None:
        """Prediction difference of events, or of rows with a label: `known` [Q, N]."""
        key = (key[0], "pd", *key[2:])
        first, second = np.asarray(met.first.scores)[known], np.asarray(met.second.scores)[known]
        users = np.broadcast_to(self._users(met.block, met.which), known.shape)[known]
        values = pd_of_logits(first, second)
        self.sums.add(key, np.stack([values, np.ones(len(values))]), users)
        self._keep(key, first, second, users)

    def _rate(self, key: Key, lists: Ranked) -> None:
        """QUALITIES of the rankings of one model, where a query has labels; what has none is not relevant."""
        label = lists.block.columns["label"]
        which = np.flatnonzero(~np.isnan(label).all(axis=-1))
        if not len(which):
            return
        relevance, answers = np.nan_to_num(label[which]), lists.answers(which)
        self.graded |= bool(((relevance != 0) & (relevance != 1)).any())
        self.outside |= bool((relevance > 1).any())
        users = self._users(lists.block, which)[:, 0]
        for name, each in QUALITIES.items():
            if name == "ranking_loss" and (not self.predicted or self.outside):
                continue
            self.sums.add((*key, name), np.stack(each.fn(answers, relevance)), users)
        if not self.roles and self.predicted:
            self._judge(key, lists.block)

    def _judge(self, key: Key, block: Block) -> None:
        """Accuracy of the predictions of one model."""
        label, logit = block.columns.get("label"), block.columns.get("logit")
        if label is None or logit is None:
            return
        known = ~np.isnan(label)
        users = np.broadcast_to(self._users(block, slice(None)), label.shape)[known]
        y, x = label[known], logit[known]
        self.outside |= bool((y > 1).any())
        for name, each in ACCURACY.items():
            if not each.whole:
                self.sums.add((*key, name), np.stack([each.fn(x, y), np.ones(len(y))]), users)
        self._keep((*key, "events"), x, y, users)

    def _keep(self, key: Key, first: Doubles, second: Doubles, users: Ints) -> None:
        """Hold values for what is no sum over events, as long as there is room."""
        self._held += len(first)
        if self._held > MOST_EVENTS:
            self.truncated = True
        else:
            self._events[key].append((first, second, users))

    @cached_property
    def resamples(self) -> dict[tuple[int, int], Resamples]:
        """By the shape of an arm."""
        return {arm.shape: Resamples(*arm.shape, max(self.sums.count, 1)) for arm in self.arms}

    def estimates(self, arm: Design) -> dict[str, Estimate]:
        """Everything that was measured of an arm, under dotted names."""
        draws, found = self.resamples[arm.shape], _estimates(self.sums, self.resamples[arm.shape], arm, self.measures)
        fleets, duplicates = arm.shape
        if self._events and duplicates > 1 and self.predicted:
            found |= self._differences(arm, draws)
        for name in (*QUALITIES, *(n for n, each in ACCURACY.items() if not each.whole)):
            binary = name in QUALITIES and QUALITIES[name].binary
            if (binary and self.graded) or (self.outside and name in ("log_loss", "ranking_loss")):
                continue
            cells = np.stack([
                [self.sums.of((arm.label, f, d, name), 2) for d in range(duplicates)] for f in range(fleets)
            ])  # fmt: skip
            if cells[:, :, 1].any():
                found[name] = draws.models(cells[:, :, 0], cells[:, :, 1].mean(axis=1))
        for name, each in ACCURACY.items():
            if each.whole and not self.outside and all(self._events.get((arm.label, f, d, "events"))
                                                       for f in range(fleets) for d in range(duplicates)):  # fmt: skip
                values = [[float(each.fn(*self._all((arm.label, f, d, "events"))[:2])) for d in range(duplicates)]
                          for f in range(fleets)]  # fmt: skip
                if np.isfinite(values).all():
                    found[name] = draws.whole(np.array(values))
        return found

    def _all(self, key: Key) -> tuple[Doubles, Doubles, Ints]:
        first, second, users = (np.concatenate(column) for column in zip(*self._events[key], strict=True))
        return first, second, users

    def _differences(self, arm: Design, draws: Resamples) -> dict[str, Estimate]:
        """DIFFERENCES; those that are no sums over events from what is held in memory."""
        fleets, pairs = arm.shape[0], len(pair_index(arm.shape[1])[0])
        cells = [[(arm.label, "pd", f, p) for p in range(pairs)] for f in range(fleets)]
        sums = np.stack([[self.sums.of(key, 2) for key in row] for row in cells])
        if not sums[:, :, 1].any():
            return {}
        weight = sums[:, :, 1].mean(axis=1)
        found = {"pd": draws.pairs(sums[:, :, 0], weight)}
        if self.truncated:
            return found
        for name, each in DIFFERENCES.items():
            for key in (key for row in cells for key in row if name != "pd"):
                if key in self._events:
                    first, second, users = self._all(key)
                    self.sums.add((*key, name), each.fn(first, second)[None], users)
            values = np.stack([[self.sums.of((*key, name), 1)[0] for key in row] for row in cells])
            found |= {name: draws.pairs(values, weight)} if name != "pd" else {}
        return found

    def by_value(self, arm: Design, words: dict[str, dict[int, str]]) -> dict[str, list[Slice]]:
        """Swap measures by the values of the columns of --by, the most frequent first."""
        draws, found = Resamples(*arm.shape, SLICE_GROUPS), {}
        for name in self.by:
            held = sorted({key[1] for key in self.slices.keys() if key[0] == name})
            slices = []
            for value in held:
                estimates = _estimates(self.slices, draws, arm, self.measures, (name, value))
                queries = sum(self.slices.of((name, value, arm.label, cause, f, p), 2)[1].sum()
                              for _, cause, f, p, _, _ in self.pairings if cause in ("swaps", "refresh_swaps"))  # fmt: skip
                measures = {n: _interval(n, e) for n, e in estimates.items()}
                slices.append((float(queries), Slice(words[name][value], 0.0, measures)))
            total = sum(queries for queries, _ in slices) or 1.0
            slices.sort(key=lambda one: (-one[0], one[1].value))
            found[name] = [Slice(each.value, queries / total, each.measures) for queries, each in slices]
        return found


def _estimates(
    sums: UserSums, draws: Resamples, arm: Design, measures: Any, prefix: Key = ()
) -> dict[str, Estimate]:
    """The measures of MEASURES by cause."""
    found: dict[str, Estimate] = {}
    causes: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for cause, fleet, pair, _, _ in arm.pairings():
        causes[cause].append((fleet, pair))
    r, s = pair_index(arm.shape[1])
    ordered = np.concatenate([r, s]), np.concatenate([s, r])
    for cause, cells in causes.items():
        rows = np.stack([sums.of((*prefix, arm.label, cause, *cell), 2 * len(measures)) for cell in cells])
        rows = rows.reshape(arm.shape[0], -1, len(measures), 2, sums.count)  # [F, P, measures, 2, U]
        estimate: Callable[[Doubles, Doubles], Estimate] = draws.pairs
        if cause.startswith("refresh"):
            estimate = draws.models
        elif cause.startswith("both"):
            estimate = lambda values, weight: draws.pairs(values, weight, ordered)  # noqa: E731
        for number, name in enumerate(measures):
            values, weights = rows[:, :, number, 0], rows[:, :, number, 1]
            if weights.any():
                found[f"{cause}.{name}"] = estimate(values, weights.mean(axis=1))
    return found


def _interval(name: str, estimate: Estimate) -> Interval:
    plain = name.rpartition(".")[2]
    signed = plain in DIFFERENCES and DIFFERENCES[plain].signed
    return estimate.interval(-math.inf if signed else 0.0, MOST.get(plain, math.inf))


def compare(
    sources: Sequence[Source],
    names: Names,
    *,
    k: int = 10,
    reading: Callable[[tuple[str, ...]], Reading],
    restart: Callable[[], None] = lambda: None,
) -> Result:
    """The Result of comparing all models that the sources hold, with slates of `k`.

    `reading` makes a Reading of the optional columns that are there; `restart` is called where it begins again, because
    files turned out not to be grouped by query. Raises DataError.
    """
    arms = designs(sources)
    if not any(list(arm.pairings()) for arm in arms):
        raise DataError(f"{sources[0].name}: one model alone: give the predictions of a second one to compare it with")
    has = {name: all(name in s.columns for s in sources) for name in (names.user, names.label)}
    optional = tuple(
        name
        for name, there in (
            ("user", has[names.user]),
            ("label", any(names.label in s.columns for s in sources)),
            ("logit", all(s.log_odds or names.probability in s.columns for s in sources)),
            ("event", any(names.role in s.columns for s in sources)),
        )
        if there
    )
    for way in (streamed, spilled):
        plan = reading(optional)
        tally = Tally(arms, k, optional, names.by)
        try:
            for part in way(plan):
                tally.add(part)
            break
        except NotGroupedError:
            restart()
        except TwiceError as twice:
            raise _twice(twice, sources, names) from None
    _refuse_strangers(tally, sources, names)
    estimates = {arm.label: tally.estimates(arm) for arm in arms}
    return Result(
        kind="compare",
        world={"name": "predictions", "users": tally.sums.count if "user" in optional else None},
        arms=[_arm(arm, arms, estimates, tally, plan.values) for arm in arms],
        notes=_notes(tally, arms, sources, optional),
    )


def _arm(
    arm: Design, arms: Sequence[Design], estimates: dict[str, dict[str, Estimate]], tally: Tally, words: Any
) -> Arm:
    own = estimates[arm.label]
    ratios = {
        other.label: _ratios(own, estimates[other.label]) if other.shape == arm.shape else {} for other in arms
    }
    measures = {name: _interval(name, estimate) for name, estimate in own.items()}
    against = {label: found for label, found in ratios.items() if label != arm.label}
    return Arm(arm.label, measures, ratios[arms[0].label], {}, None, {}, against, {}, tally.by_value(arm, words))


def _ratios(own: dict[str, Estimate], its: dict[str, Estimate]) -> Measures:
    """Under the short names that results use: `pair`, `refresh_pair`, `pd`."""
    found = {}
    for name, estimate in own.items():
        cause, _, plain = name.partition(".")
        short = {"swaps": plain, "refresh_swaps": f"refresh_{plain}", "": name}.get(cause if plain else "")
        if short and name in its and min(estimate.mean, its[name].mean) >= 0:
            if (value := ratio(estimate, its[name])) is not None and len(estimate.moves) == len(its[name].moves):
                found[short] = value
    return found


def _twice(twice: TwiceError, sources: Sequence[Source], names: Names) -> DataError:
    places, written = [], ""
    for source in (source for source in sources if twice.model in source.numbers):
        rows, ids = row_of(source, names, twice.query, twice.item)
        places += [f"{source.name}: row {row:,}" for row in rows]
        written = ids or written
    return DataError(f"{' and '.join(places[:2])}: {written} twice for one model: keep one row of an item and query")


def _refuse_strangers(tally: Tally, sources: Sequence[Source], names: Names) -> None:
    """DataError where nothing could be compared."""
    if tally.counts["pairs"] or any(key[1] == "pd" for key in tally.sums.keys()):
        return
    first, last = sources[0].name, sources[-1].name
    if not tally.counts["rows"]:
        raise DataError(f"{first}: no rows: give predictions")
    if tally.counts["queries"]:
        raise DataError(f"{first}, {last}: no item in common ({names.item}): give scores of the same candidates")
    raise DataError(f"{first}, {last}: no query in common ({names.query}): give predictions for the same queries")


def _notes(tally: Tally, arms: Sequence[Design], sources: Sequence[Source], optional: Sequence[str]) -> list[str]:
    """What a reader should know before quoting a number."""
    counts, many = tally.counts, len(list(arms[0].pairings())) > 1 or len(arms) > 1
    per = ", summed over all pairs of models" if many else ""
    covers = tally.resamples[arms[0].shape].covers
    units = "" if "user" in optional else " (no column of users: each query is its own)"
    queries = f"{counts['queries']:,} answers compared{per}" if many else f"{counts['queries']:,} queries in common"
    notes = [
        f"{counts['rows']:,} rows of {len(sources)} files; {queries}; slates of {tally.k}. "
        f"95 % intervals over {covers}{units}."
    ]
    if counts["missing"]:
        notes.append(f"{counts['missing']:,} queries that only one of two models answered are left out{per}.")
    if counts["uneven"]:
        notes.append(
            f"{counts['uneven']:,} queries have other items in one list than in the other ({counts['lone']:,} items): "
            f"pair swaps are over the items that both scored{per}."
        )
    if counts["tied"]:
        notes.append(f"{counts['tied']:,} rankings hold equal scores: these stand in the order of their item ids.")
    if not tally.predicted:
        notes.append("No prediction difference: not every file has a column of probabilities, or scores in log-odds.")
    if tally.truncated:
        notes.append(
            f"AUC and calibration are those of the first {MOST_EVENTS:,} predictions that fitted into memory; PD is not "
            "split in its parts."
        )
    if tally.outside:
        notes.append("Labels above 1 are grades: log loss, ranking loss, AUC and calibration take 0 to 1, and are left out.")
    renamed = [arm.label for arm in arms if "#" in arm.label]
    if renamed:
        notes.append(f"{', '.join(renamed)}: the same models again, in a later argument.")
    return notes
