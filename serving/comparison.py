"""How much two answers to one query differ, as counts that add up: over queries, over windows, live and offline alike.

Shapes: Q queries, N candidates, K slate length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

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


def added(counter: str, words: str) -> Any:
    """A field of Difference, with the name and the words of the counter that adds it up."""
    return field(default=0.0, metadata={"counter": counter, "words": words})


@dataclass(frozen=True)
class Difference:
    """What differs between two answers, as sums that add up over comparisons; ratios are their quotients."""

    comparisons: float = added("flicker_compared", "Pairs of answers compared")
    swapped_slates: float = added("flicker_swapped_slates", "Compared slates in which any place differs")
    swapped_first: float = added("flicker_swapped_first_items", "Compared slates whose first item differs")
    slots: float = added("flicker_compared_slots", "Places of slates compared")
    swapped_slots: float = added("flicker_swapped_slots", "Compared places whose item differs")
    missing_items: float = added("flicker_missing_items", "Items of a compared slate that the other one lacks")
    rbo: float = added("flicker_summed_rbo_distance", "Sum over comparisons of 1 - rank-biased overlap")
    pairs: float = added("flicker_compared_pairs", "Pairs of candidates that both models scored")
    swapped_pairs: float = added("flicker_swapped_pairs", "Those that stand in opposite order")
    candidates: float = added("flicker_compared_candidates", "Candidates that both models scored")
    prediction_difference: float = added(
        "flicker_summed_prediction_difference", "Sum over them of 2 |p1 - p2| / (p1 + p2)"
    )
    prediction_difference_ranking: float = added(
        "flicker_summed_prediction_difference_ranking",
        "The same after both models' log-odds were moved to their common mean",
    )

    def sums(self) -> Doubles:
        """All of them, in the order of FIELDS."""
        return np.array([getattr(self, name) for name in FIELDS], np.float64)


SUMS = {sum.name: (sum.metadata["counter"], sum.metadata["words"]) for sum in fields(Difference)}
"""Field of Difference -> the counter that adds it up, and what it says."""
FIELDS = tuple(SUMS)
MEASURES = {
    "slot": ("swapped_slots", "slots"),
    "top1": ("swapped_first", "comparisons"),
    "set": ("missing_items", "slots"),
    "pair": ("swapped_pairs", "pairs"),
    "rbo": ("rbo", "comparisons"),
}
"""Swap measure -> the two sums whose quotient it is."""
TOGETHER = 12_800
"""Candidates whose scores are worked on at once. Fewer take more calls of NumPy, each of which gives other threads a
turn; for larger arrays the C library asks the system for fresh memory each time."""


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
    for (k, n), group in groups.items():
        places, size = [], max(1, TOGETHER // max(1, n))
        for start in range(0, len(group), size):
            part = group[start : start + size]
            slates = np.stack([pairs[number][side].slate[:k] for side in (0, 1) for number in part])
            items = np.stack([shared[number][0] for number in part])
            scores = np.stack([*(shared[each][1] for each in part), *(shared[each][2] for each in part)])
            scores = scores.reshape(2, len(part), n)
            found[part] = _differences(slates.reshape(2, -1, k), scores)
            places += [swaps.positions(order(scores, items))] if n > 1 else []
        if places:
            found[group, FIELDS.index("pairs")] = count = n * (n - 1) // 2
            swapped = swaps.pair_swaps(*np.concatenate(places, 1)) * count
            found[group, FIELDS.index("swapped_pairs")] = np.rint(swapped)
    return found


def _shared(first: Answer, second: Answer) -> tuple[Ints, Floats, Floats]:
    """The candidates [N] that both scored, with each model's scores [N]."""
    if first.items is second.items or np.array_equal(first.items, second.items):
        return first.items, first.scores, second.scores
    items, one, two = np.intersect1d(first.items, second.items, assume_unique=True, return_indices=True)
    return items, first.scores[one], second.scores[two]


def _differences(slates: Ints, scores: Floats) -> Doubles:
    """Of Q pairs of answers [Q, FIELDS], all but pairs of candidates: slates [2, Q, K], scores [2, Q, N]."""
    k, (queries, n) = slates.shape[2], scores.shape[1:]
    none = np.zeros(queries)
    pd = differences.split_pd(*scores) if n else differences.PdSplit(none[:, None], none[:, None])
    slots = np.rint(swaps.slot_swaps(*slates) * k)  # shares of known numbers are whole again
    columns: dict[str, Doubles] = {
        "comparisons": none + 1,
        "swapped_slates": (slots > 0).astype(np.float64),
        "swapped_first": swaps.top1_swaps(*slates),
        "slots": none + k,
        "swapped_slots": slots,
        "missing_items": np.rint(swaps.set_swaps(*slates) * k),
        "rbo": swaps.rbo_distance(*slates),
        "pairs": none,
        "swapped_pairs": none,
        "candidates": none + n,
        "prediction_difference": pd.total.sum(-1),
        "prediction_difference_ranking": pd.ranking.sum(-1),
    }
    return np.stack([columns[name] for name in FIELDS], 1)
