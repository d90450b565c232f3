"""How much two answers to one query differ, as counts that add up: over queries, over windows, live and offline alike.

Shapes: N candidates, K slate length.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields

import numpy as np

from protos.recommender_pb2 import RecommendResponse
from serving.codec import scored_of, slate_of
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
    def of(response: RecommendResponse) -> Answer:
        """What a replica answered."""
        return Answer(slate_of(response).items, *scored_of(response))


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
        return np.array(astuple(self), np.float64)


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
    """The difference of two answers to one query, each with at least one item.

    Slates of two lengths are compared as far as the shorter one reaches. Pairs and prediction differences are taken
    over the candidates that both scored: all of them within one generation.
    """
    k = min(len(first.slate), len(second.slate))
    slates = first.slate[:k], second.slate[:k]
    slots = _count(swaps.slot_swaps(*slates), k)
    _, one, two = np.intersect1d(first.items, second.items, assume_unique=True, return_indices=True)
    shared, scores = first.items[one], np.stack([first.scores[one], second.scores[two]])
    pairs, n = len(shared) * (len(shared) - 1) // 2, len(shared)
    places = swaps.positions(order(scores, shared)) if pairs else None
    split = differences.split_pd(scores[0], scores[1]) if n else None
    return Difference(
        comparisons=1,
        swapped_slates=float(slots > 0),
        swapped_first=float(swaps.top1_swaps(*slates)),
        slots=k,
        swapped_slots=slots,
        missing_items=_count(swaps.set_swaps(*slates), k),
        rbo=float(swaps.rbo_distance(*slates)),
        pairs=pairs,
        swapped_pairs=_count(swaps.pair_swaps(places[0], places[1]), pairs) if places is not None else 0,
        candidates=n,
        prediction_difference=float(split.total.sum()) if split else 0,
        prediction_difference_ranking=float(split.ranking.sum()) if split else 0,
    )


def _count(share: Doubles, of: int) -> int:
    """A share of a known number, as the whole number that it came from."""
    return round(float(share) * of)
