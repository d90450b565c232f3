"""Two models' answers to the same queries, aligned by item and gathered by shape.

Where one model's slate is shorter than the other's, its empty places differ from whatever the other shows there, and
rank-biased overlap is the extrapolated form for uneven lists (Webber, Moffat, Zobel, TOIS 2010, eq. 32), its overlap
averaged over the orders of equal scores (Corsi and Urbano, SIGIR 2024, RBO^a). Only items that both models scored make
pairs.

Shapes: Q queries, N items of a query, C of them scored by both, K slate length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.measures.registry import Answers
from simulator.measures.swaps import PERSISTENCE, positions
from simulator.predictions.parts import Block
from simulator.predictions.read import Rows
from simulator.types import Doubles, Ints, order

Lists = dict[int, "Ranked"]
"""Number of items -> the queries of one model with so many."""


class Ranked:
    """The queries of one model that have N items, and how it ranks them; equal scores by item id."""

    def __init__(self, block: Block, k: int) -> None:
        item, score = block.columns["item"], block.columns["score"]
        self.block, self.k = block, min(k, item.shape[1])
        best = np.argsort(-score, axis=-1)
        ranked = np.take_along_axis(score, best, axis=-1)
        self.tied = (ranked[:, 1:] == ranked[:, :-1]).any(axis=-1)
        """[Q] whether equal scores are among them."""
        if self.tied.any():
            best[self.tied] = order(score[self.tied], item[self.tied])
        self.slates = np.take_along_axis(item, best[:, : self.k], axis=-1)
        self.positions = positions(best)

    def answers(self, which: Any = slice(None)) -> Answers:
        """The answers to some of the queries."""
        columns = self.block.columns
        scores = columns.get("logit", columns["score"])
        return Answers(self.slates[which], columns["item"][which], scores[which], self.positions[which])


@dataclass(frozen=True)
class AlignedAnswers:
    """Queries of one shape that two models answered, items aligned."""

    first: Answers
    second: Answers
    per_query: Rows
    """[Q] user and values of --by, from the first model."""
    label: Doubles | None
    """[Q, N], of the first model."""
    rbo: Doubles | None = None
    """[Q] RBO distance, where the slates are not equally long."""


def matched(first: Lists, second: Lists, k: int, counts: Counter[str]) -> Iterator[AlignedAnswers]:
    """Everything that two models both answered. Counts what they did not."""
    left = {n: np.ones(len(lists.block.query), bool) for n, lists in first.items()}
    right = {n: np.ones(len(lists.block.query), bool) for n, lists in second.items()}
    for n in first.keys() & second.keys():
        a, b = first[n], second[n]
        i, j = _both(a.block.query, b.block.query)
        equal = (a.block.columns["item"][i] == b.block.columns["item"][j]).all(axis=-1)
        if not equal.all():
            i, j = (np.arange(len(q))[s][equal] for q, s in ((a.block.query, i), (b.block.query, j)))
        left[n][i], right[n][j] = False, False
        label = a.block.columns.get("label")
        per_query = {name: column[i] for name, column in a.block.per_query.items()}
        yield AlignedAnswers(a.answers(i), b.answers(j), per_query, None if label is None else label[i])
    unmatched = [np.concatenate([lists[n].block.query[free[n]] for n in lists] or [np.zeros(0, np.int64)])
            for lists, free in ((first, left), (second, right))]  # fmt: skip
    shared = np.intersect1d(unmatched[0], unmatched[1], assume_unique=True)
    counts["missing"] += len(unmatched[0]) + len(unmatched[1]) - 2 * len(shared)
    counts["uneven"] += len(shared)
    if len(shared):
        yield from _uneven(_Flat(first, shared, k), _Flat(second, shared, k), counts)


def _both(first: Ints, second: Ints) -> tuple[Any, Any]:
    """Indices of the common values of two ascending arrays in each of them."""
    if np.array_equal(first, second):
        return slice(None), slice(None)
    _, i, j = np.intersect1d(first, second, assume_unique=True, return_indices=True)
    return i, j


class _Flat:
    """Some queries [Q] of one model, of any lengths: their items one after the other, and slates with empty places."""

    def __init__(self, lists: Lists, queries: Ints, k: int) -> None:
        self.queries, self.length = queries, np.zeros(len(queries), np.int64)
        self.slates = np.zeros((len(queries), k), np.int64)
        self.groups = np.zeros((len(queries), k), np.int64)  # places of equal scores share a number
        parts: list[Rows] = []
        self.per_query: Rows = {}
        for n, ranked in lists.items():
            places = np.searchsorted(queries, ranked.block.query)
            present = np.flatnonzero(queries[np.minimum(places, len(queries) - 1)] == ranked.block.query)
            places, width = places[present], ranked.k
            self.length[places] = width
            self.slates[places, :width] = ranked.slates[present]
            sorted_scores = -np.sort(-ranked.block.columns["score"][present], axis=-1)[:, :width]
            self.groups[places, 1:width] = (sorted_scores[:, 1:] != sorted_scores[:, :-1]).cumsum(axis=-1)
            for name, column in ranked.block.per_query.items():
                self.per_query.setdefault(name, np.zeros(len(queries), np.int64))[places] = column[present]
            parts.append(
                {"at": np.repeat(places, n)} | {c: v[present].ravel() for c, v in ranked.block.columns.items()}
            )
        self.rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def padded(self, which: Ints, width: int, sign: int) -> Ints:
        """Slates [Q, width]; what stands in empty places is nowhere else: numbers of one parity below every id."""
        slates, place = self.slates[which, :width], np.arange(width)
        empty = np.iinfo(np.int64).min + 2 * place + sign
        return np.where(place < self.length[which, None], slates, empty)


def _uneven(a: _Flat, b: _Flat, counts: Counter[str]) -> Iterator[AlignedAnswers]:
    query = np.concatenate([a.rows["at"], b.rows["at"]])
    item = np.concatenate([a.rows["item"], b.rows["item"]])
    by_item = np.lexsort((np.arange(len(query)) >= len(a.rows["at"]), item, query))
    pairs = np.flatnonzero((query[by_item][1:] == query[by_item][:-1]) & (item[by_item][1:] == item[by_item][:-1]))
    i, j = by_item[pairs], by_item[pairs + 1] - len(a.rows["at"])
    counts["lone"] += len(query) - 2 * len(pairs)
    count = np.bincount(a.rows["at"][i], minlength=len(a.queries))
    starts = np.concatenate([[0], count.cumsum()[:-1]])
    shapes = np.stack([a.length, b.length, count], axis=1)
    for length1, length2, n in np.unique(shapes, axis=0).tolist():
        which = np.flatnonzero((shapes == (length1, length2, n)).all(axis=1))
        place = starts[which][:, None] + np.arange(n)
        width = max(length1, length2)
        answers = [_answers(flat, rows[place], flat.padded(which, width, sign))
                   for flat, rows, sign in ((a, i, 0), (b, j, 1))]  # fmt: skip
        per_query = {name: column[which] for name, column in a.per_query.items()}
        label = a.rows["label"][i[place]] if "label" in a.rows else None
        rbo = None if length1 == length2 else uneven_rbo(a, b, which)
        yield AlignedAnswers(answers[0], answers[1], per_query, label, rbo)


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
    membership = []
    for flat in (a, b):
        n = int(flat.length[which[0]])
        group = flat.groups[which, :n]
        top = (group[:, :, None] > group[:, None, :]).sum(-1)  # [Q, n] ranks above the group
        size = (group[:, :, None] == group[:, None, :]).sum(-1)
        membership.append(np.clip((depth - top[..., None]) / size[..., None], 0, 1))  # [Q, n, l]
    n, m = int(a.length[which[0]]), int(b.length[which[0]])
    shared = a.slates[which, :n, None] == b.slates[which, None, :m]
    overlap = np.einsum("qnm,qnd,qmd->qd", shared.astype(np.float64), *membership)
    weight = p**depth
    last, short = overlap[:, -1], overlap[:, s - 1]
    total = (overlap / depth * weight).sum(-1)
    total += (short[:, None] * np.maximum(depth - s, 0) / (s * depth) * weight).sum(-1)
    return np.asarray(np.clip(1 - (1 - p) / p * total - ((last - short) / l + short / s) * p**l, 0, 1))
