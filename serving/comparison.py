"""How much two answers to one query differ, as counts that add up: over queries, over windows, live and offline alike.

Shapes: Q queries, N candidates, K slate length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from protos.recommender_pb2 import PackedResponse
from serving.codec import scored_of
from simulator.measures import differences, swaps
from simulator.types import Doubles, Floats, Ints, order


@dataclass(frozen=True)
class Answer:
    """One model's answer, with the scores of all candidates where it was asked for them."""

    slate: Ints
    """[K] item numbers, best first."""
    items: Ints
    """[N] candidates, distinct, in any order; empty where scores were not asked for."""
    scores: Floats
    """[N] their log-odds."""

    @staticmethod
    def of(response: PackedResponse) -> Answer:
        """What a replica answered."""
        return Answer(np.array([place.item for place in response.slate], np.int64), *scored_of(response))


@dataclass(frozen=True)
class Difference:
    """What differs between two answers, as sums that add up over comparisons; ratios are their quotients."""

    comparisons: float = 0.0
    swapped_slates: float = 0.0
    """Comparisons in which any place differs."""
    swapped_first: float = 0.0
    """Comparisons in which the first item differs."""
    slots: float = 0.0
    """Places compared."""
    swapped_slots: float = 0.0
    """Places whose item differs."""
    missing_items: float = 0.0
    """Items of a slate that the other one lacks."""
    rbo: float = 0.0
    """Sum of the distances 1 - rank-biased overlap."""
    pairs: float = 0.0
    """Pairs of candidates that both models scored."""
    swapped_pairs: float = 0.0
    """Those in opposite order."""
    candidates: float = 0.0
    """Candidates that both models scored."""
    prediction_difference: float = 0.0
    """Sum of 2 |p1 - p2| / (p1 + p2) over them."""
    prediction_difference_ranking: float = 0.0
    """The same after both models' log-odds were moved to their common mean."""

    def sums(self) -> Doubles:
        """All of them, in the order of FIELDS."""
        return np.array([getattr(self, field) for field in FIELDS], np.float64)


FIELDS = tuple(field.name for field in fields(Difference))
MEASURES = {
    "slot": ("swapped_slots", "slots"),
    "top1": ("swapped_first", "comparisons"),
    "set": ("missing_items", "slots"),
    "pair": ("swapped_pairs", "pairs"),
    "rbo": ("rbo", "comparisons"),
}
"""Swap measure -> the two sums whose quotient it is."""


def compare(first: Answer, second: Answer) -> Difference:
    """The difference of two answers to one query; see `compare_all`."""
    return Difference(*compare_all([(first, second)])[0].tolist())


def compare_all(pairs: Sequence[tuple[Answer, Answer]]) -> Doubles:
    """The differences [P, FIELDS] of pairs of answers to one query each; every answer has at least one item.

    Slates of two lengths are compared as far as the shorter one reaches. Click probabilities and pairs of candidates
    are compared over the candidates that both scored: all of them within one generation. Pairs of answers of one shape
    are compared together: what a call of NumPy costs is then shared.
    """
    shared = [_shared(first, second) for first, second in pairs]
    groups: dict[tuple[int, int], list[int]] = {}
    for number, ((first, second), (items, *_)) in enumerate(zip(pairs, shared, strict=True)):
        groups.setdefault((min(len(first.slate), len(second.slate)), len(items)), []).append(number)
    found = np.empty((len(pairs), len(FIELDS)))
    for (k, _), group in groups.items():
        # all in one call: a call for each pair costs as much as the comparison
        slates = np.stack([pairs[number][side].slate[:k] for side in (0, 1) for number in group])
        items = np.stack([shared[number][0] for number in group])
        firsts, seconds = [shared[number][1] for number in group], [shared[number][2] for number in group]
        scores = np.stack([*firsts, *seconds]).reshape(2, *items.shape)
        found[group] = _differences(slates.reshape(2, -1, k), items, scores)
    return found


def _shared(first: Answer, second: Answer) -> tuple[Ints, Floats, Floats]:
    """The candidates [N] that both scored, with each model's scores [N]."""
    if first.items is second.items or np.array_equal(first.items, second.items):
        return first.items, first.scores, second.scores
    items, one, two = np.intersect1d(first.items, second.items, assume_unique=True, return_indices=True)
    return items, first.scores[one], second.scores[two]


def _differences(slates: Ints, items: Ints, scores: Floats) -> Doubles:
    """Of Q pairs of answers [Q, FIELDS]: slates [2, Q, K], candidates [Q, N] and scores [2, Q, N]."""
    k, (queries, n) = slates.shape[2], items.shape
    pairs, none = n * (n - 1) // 2, np.zeros(queries)
    places = swaps.positions(order(scores, items)) if pairs else None
    split = differences.split_pd(scores[0], scores[1]) if n else None
    slots = np.rint(swaps.slot_swaps(*slates) * k)  # shares of known numbers are whole again
    columns: dict[str, Doubles] = {
        "comparisons": none + 1,
        "swapped_slates": (slots > 0).astype(np.float64),
        "swapped_first": swaps.top1_swaps(*slates),
        "slots": none + k,
        "swapped_slots": slots,
        "missing_items": np.rint(swaps.set_swaps(*slates) * k),
        "rbo": swaps.rbo_distance(*slates),
        "pairs": none + pairs,
        "swapped_pairs": none if places is None else np.rint(swaps.pair_swaps(places[0], places[1]) * pairs),
        "candidates": none + n,
        "prediction_difference": split.total.sum(-1) if split else none,
        "prediction_difference_ranking": split.ranking.sum(-1) if split else none,
    }
    return np.stack([columns[field] for field in FIELDS], 1)
