"""Swaps: how much two rankings of the same query differ. Each measure is 0 for identical rankings and at most 1.

Shapes: Q queries (any leading axes), N candidates, K slate length. A *slate* holds distinct item numbers, best
first. An *order* holds candidate numbers 0..N-1, best first; *positions* is its inverse: the place of each
candidate, 0 for the best. Rankings are strict: equal scores are ordered by item number.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.types import Doubles, Integers, Ints, Reals

PERSISTENCE = 0.9
"""Chance that a reader goes on to the next position, in rank-biased overlap."""
CHUNK = 512
"""Rankings compared at a time: [N, CHUNK] bytes stay in the processor's cache."""

FEW_RANKINGS, MAX_CANDIDATES = 32, 1_024
"""Fewer rankings than this, of at most so many candidates, are faster one by one with all pairs at once."""


def positions(order: Integers) -> Integers:
    """The place [Q, N] of each candidate in `order` [Q, N], 0 for the best; 16-bit where N allows it."""
    n = order.shape[-1]
    places = np.arange(n, dtype=np.int16 if n <= np.iinfo(np.int16).max else np.int32)
    result: Integers = np.empty(order.shape, places.dtype)
    np.put_along_axis(result, order, np.broadcast_to(places, order.shape), axis=-1)
    return result


def slot_swaps(slate1: Integers, slate2: Integers) -> Doubles:
    """Share [Q] of the positions of the slates [Q, K] whose item differs."""
    return np.asarray((slate1 != slate2).mean(axis=-1))


def top1_swaps(slate1: Integers, slate2: Integers) -> Doubles:
    """1 [Q] where the first item of the slates [Q, K] differs, else 0."""
    return np.asarray(slate1[..., 0] != slate2[..., 0], np.float64)


def set_swaps(slate1: Integers, slate2: Integers) -> Doubles:
    """1 - |L1 n L2| / K [Q]: share of the items of a slate [Q, K] that the other one lacks."""
    return np.asarray((_partner(slate1, slate2) < 0).mean(axis=-1))


def rbo_distance(slate1: Integers, slate2: Integers, p: float = PERSISTENCE) -> Doubles:
    """1 - truncated, normalised rank-biased overlap [Q] of slates [Q, K].

    RBO = sum_d p^(d-1) |L1[:d] n L2[:d]| / d  /  sum_d p^(d-1), d = 1..K: 1 for equal slates, 0 for disjoint ones.
    Source: Webber, Moffat, Zobel, "A similarity measure for indefinite rankings", TOIS 2010, eq. 4, cut at depth K.
    """
    k = slate1.shape[-1]
    partner = _partner(slate1, slate2).reshape(-1, k)
    row, place = np.nonzero(partner >= 0)
    depth = np.maximum(place, partner[row, place])  # an item counts from the depth at which both slates hold it
    overlap = np.bincount(row * k + depth, minlength=partner.size).reshape(-1, k).cumsum(axis=-1)
    weight = p ** np.arange(k)
    missing = 1 - overlap / np.arange(1, k + 1)  # exactly 0 at every depth of equal slates
    distance = (weight * missing).sum(axis=-1) / weight.sum()
    return np.asarray(np.minimum(distance, 1.0).reshape(slate1.shape[:-1]))


def common_pairs(slate1: Integers, slate2: Integers) -> tuple[Doubles, Doubles]:
    """Of the pairs of items in both slates [Q, K]: how many stand in opposite order [Q], and how many there are [Q].

    None where fewer than two items are in both.
    """
    partner = _partner(slate1, slate2)
    k = slate1.shape[-1]
    shared, swapped = np.zeros(partner.shape[:-1], np.int64), np.zeros(partner.shape[:-1], np.int64)
    for distance in range(1, k):
        above, below = partner[..., :-distance], partner[..., distance:]
        both = (above >= 0) & (below >= 0)
        shared += both.sum(axis=-1)
        swapped += (both & (above > below)).sum(axis=-1)
    return swapped.astype(np.float64), shared.astype(np.float64)


def _partner(slate1: Integers, slate2: Integers) -> Ints:
    """For each place of slate1 [Q, K] the place of its item in slate2, -1 where it is missing."""
    k = slate1.shape[-1]
    both = np.concatenate([slate1, slate2], axis=-1)
    by_item = np.argsort(both, axis=-1, kind="stable")  # a shared item: its place in slate1, then K + that in slate2
    item = np.take_along_axis(both, by_item, axis=-1)
    is_shared = item[..., 1:] == item[..., :-1]
    partner = np.full(both.shape, -1, np.int64)
    np.put_along_axis(partner, by_item[..., :-1], np.where(is_shared, by_item[..., 1:] - k, -1), axis=-1)
    return partner[..., :k]


def pair_swaps(positions1: Integers, positions2: Integers) -> Doubles:
    """Share [Q] of the N (N-1) / 2 pairs of candidates that stand in opposite order; positions [Q, N], N >= 2.

    It is (1 - Kendall's tau) / 2 of two strict rankings.
    """
    n = positions1.shape[-1]
    first, second = positions1.reshape(-1, n), positions2.reshape(-1, n)
    swapped = np.empty(len(first), np.int64)
    for start in range(0, len(first), CHUNK):
        part = slice(start, start + CHUNK)
        place = _sorted_by(first[part], second[part])
        if place.shape[1] < FEW_RANKINGS and n <= MAX_CANDIDATES:
            swapped[part] = [np.count_nonzero((row[:, None] > row) & _above(n)) for row in place.T]
            continue
        count = np.zeros(place.shape, place.dtype)  # per candidate at most N - 1, which the type holds
        for distance in range(1, n):
            count[:-distance] += (place[:-distance] > place[distance:]).view(np.uint8)
        swapped[part] = count.sum(axis=0, dtype=np.int64)
    return np.asarray((swapped / _pairs(n)).reshape(positions1.shape[:-1]))


def useful_swaps(positions1: Integers, positions2: Integers, relevance: Reals) -> Doubles:
    """The pair swaps from model 1 to model 2, split by the true relevance [Q, N]: shares of all pairs [2, Q].

    Useful are those by which the more relevant item gets above, useless all others; together they are `pair_swaps`.
    positions1 and positions2 [Q, N], N >= 2. The direction matters: for cause `refresh`, model 1 is the old generation
    and model 2 the new one. Between two duplicates it is arbitrary, and each direction is as likely as the other.
    """
    n = positions1.shape[-1]
    first, second = positions1.reshape(-1, n), positions2.reshape(-1, n)
    truth = np.broadcast_to(relevance, positions1.shape).reshape(-1, n)
    counts = np.zeros((2, len(first)))
    for start in range(0, len(first), CHUNK):
        part = slice(start, start + CHUNK)
        place, worth = _sorted_by(first[part], second[part]), _scattered(first[part], truth[part])
        for distance in range(1, n):
            swapped = place[:-distance] > place[distance:]
            useful = swapped & (worth[distance:] > worth[:-distance])
            counts[:, part] += np.count_nonzero(useful, axis=0), np.count_nonzero(swapped & ~useful, axis=0)
    return np.asarray((counts / _pairs(n)).reshape(2, *positions1.shape[:-1]))


@functools.lru_cache(16)
def _above(n: int) -> NDArray[np.bool_]:
    """[N, N] whether the first candidate of a pair stands above the second."""
    return np.triu(np.ones((n, n), bool), 1)


def _sorted_by(positions1: Integers, positions2: Integers) -> Integers:
    """Model 2's places [N, Q] in model 1's order, in the smallest type that holds N - 1."""
    return _scattered(positions1, positions2.astype(np.min_scalar_type(positions1.shape[-1] - 1)))


def _scattered(positions: Integers, values: NDArray[Any]) -> NDArray[Any]:
    """Values [Q, N] in the order of `positions` [Q, N], as [N, Q]: neighbours in memory are different queries."""
    result = np.empty(values.shape, values.dtype)
    np.put_along_axis(result, positions.astype(np.intp), values, axis=-1)
    return np.ascontiguousarray(result.T)


def _pairs(n: int) -> float:
    assert n >= 2, "a pair takes two candidates"
    return n * (n - 1) / 2
