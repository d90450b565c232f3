"""How much two answers to one query differ: the registry's measures, live as offline, of many pairs at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from protos.recommender_pb2 import PackedResponse
from serving.codec import scored_of
from simulator.measures.registry import MEASURES, Answers, compare
from simulator.types import Doubles, Floats, Ints

TOGETHER = 102_400
"""Candidates whose scores are worked on at once: a bound on memory. Fewer take more calls of NumPy."""


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


def compare_pairs(pairs: Sequence[tuple[Answer, Answer]]) -> Doubles:
    """[P, measures, 2] as `registry.compare`, of pairs of answers to one query each; every slate has at least one item.

    Slates of two lengths are compared as far as the shorter one reaches; candidates are those that both scored: all of
    them within one generation. Pairs of one shape are compared together: what a call of NumPy costs is then shared.
    """
    shared = [_shared(first, second) for first, second in pairs]
    groups: dict[tuple[int, int], list[int]] = {}
    for number, ((first, second), (items, *_)) in enumerate(zip(pairs, shared, strict=True)):
        groups.setdefault((min(len(first.slate), len(second.slate)), len(items)), []).append(number)
    differences = np.empty((len(pairs), len(MEASURES), 2))
    for (k, n), group in groups.items():
        size = max(1, TOGETHER // max(1, n))
        for part in (group[start : start + size] for start in range(0, len(group), size)):
            items = np.stack([shared[number][0] for number in part])
            one, two = (
                Answers(
                    np.stack([pairs[number][side].slate[:k] for number in part]),
                    items,
                    np.stack([shared[number][1 + side] for number in part]),
                )
                for side in (0, 1)
            )
            differences[part] = np.moveaxis(compare(one, two), -1, 0)
    return differences


def _shared(first: Answer, second: Answer) -> tuple[Ints, Floats, Floats]:
    """The candidates [N] that both scored, with each model's scores [N]."""
    if first.items is second.items or np.array_equal(first.items, second.items):
        return first.items, first.scores, second.scores
    items, one, two = np.intersect1d(first.items, second.items, assume_unique=True, return_indices=True)
    return items, first.scores[one], second.scores[two]
