"""Accuracy: log loss, AUC, calibration; ranking loss, NDCG, recall, reciprocal rank and regret.

Shapes: n examples, Q queries, N candidates, K slate length.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.types import Doubles, Integers, Reals

CHUNK_PAIRS = 250_000
"""Pairs of candidates compared at a time by the ranking loss: 1 MB of float32 per temporary."""


def log_loss(logits: Reals, labels: Reals) -> Doubles:
    """-y ln p - (1 - y) ln(1 - p) per example [n], in nats, from log-odds [n]; labels [n] are 0, 1 or between."""
    x, y = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    return np.asarray(np.maximum(x, 0) - x * y + np.log1p(np.exp(-np.abs(x))))


def auc(scores: Reals, labels: Reals) -> float:
    """Area under the ROC curve: chance that a positive scores above a negative, ties counting half.

    scores [n], labels [n] 0 or 1. NaN where one of the classes is missing. Mann-Whitney U from ranks, O(n log n).
    """
    positive = np.asarray(labels) > 0.5
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if positives == 0 or negatives == 0:
        return float("nan")
    _, group, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = count.cumsum() - (count - 1) / 2  # mean rank (first = 1) of a group of equal scores
    u = rank[group][positive].sum() - positives * (positives + 1) / 2
    return float(u / (positives * negatives))


def calibration(logits: Reals, labels: Reals) -> float:
    """Mean prediction / mean label of log-odds [n] and labels [n]: 1 is right on average, above 1 too optimistic. NaN
    without a positive label."""
    x, y = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    clicks = float(y.mean())
    return float(np.exp(-np.logaddexp(0, -x)).mean()) / clicks if clicks > 0 else float("nan")


def ranking_loss(scores: Reals, relevance: Reals) -> Doubles:
    """Pairwise log loss per query [Q] of scores [Q, N] in log-odds, in nats.

    The weighted mean of ln(1 + exp(-(s_i - s_j))) over ordered pairs i != j with weights rel_i (1 - rel_j): for 0/1
    relevance [Q, N] the mean over pairs of a positive and a negative; for true click probabilities its expectation
    over independent clicks, up to a factor. NaN where all weights are 0. Terms are float32, sums float64.
    """
    s, rel = np.asarray(scores, np.float32), np.asarray(relevance, np.float64)
    query, i = np.nonzero(rel > 0)  # only these have weight as the better one: few on a replayed log
    n = s.shape[-1]
    total, mass = np.zeros(len(s)), np.zeros(len(s))
    step = max(1, CHUNK_PAIRS // n)
    for start in range(0, len(query), step):
        q, better = query[start : start + step], i[start : start + step]
        worse = 1 - rel[q]
        worse[np.arange(len(q)), better] = 0
        loss = _softplus(s[q] - s[q, better][:, None])
        weight = rel[q, better]
        total += np.bincount(q, weights=weight * np.einsum("en,en->e", worse, loss), minlength=len(s))
        mass += np.bincount(q, weights=weight * worse.sum(axis=-1), minlength=len(s))
    return np.asarray(np.divide(total, mass, out=np.full(len(s), np.nan), where=mass > 0))


def _softplus(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """ln(1 + exp(x)), without overflow."""
    return np.asarray(np.maximum(x, 0) + np.log(1 + np.exp(-np.abs(x))))


def regret(slate_relevance: Reals, relevance: Reals, position_bias: float) -> Doubles:
    """Share [Q] of the expected clicks of the best possible slate that a slate loses, in [0, 1].

    `slate_relevance` [Q, K] is the relevance of the shown items, best first, `relevance` [Q, N] that of all
    candidates. The item at position p (first = 1) is examined with probability p ** -position_bias. 0 where nothing
    is relevant: no slate could lose anything.
    """
    slate, candidates = np.asarray(slate_relevance, np.float64), np.asarray(relevance, np.float64)
    k = slate.shape[-1]
    examined = np.arange(1, k + 1) ** -float(position_bias)
    ideal = (np.sort(candidates, axis=-1)[..., ::-1][..., :k] * examined).sum(axis=-1)
    loss = ideal - (slate * examined).sum(axis=-1)
    return np.asarray(np.clip(np.divide(loss, ideal, out=np.zeros_like(ideal), where=ideal > 0), 0, 1))


def ndcg(positions: Integers, relevance: Reals, k: int) -> Doubles:
    """Normalised discounted cumulative gain at k [Q], in [0, 1]; positions [Q, N] (0 the best), relevance [Q, N].

    DCG = sum of relevance / log2(place + 1) over the first k places (first = 1), divided by that of the best order.
    NaN where nothing is relevant. Source: Jarvelin and Kekalainen, TOIS 2002, with linear gains.
    """
    rel = np.asarray(relevance, np.float64)
    discount = 1 / np.log2(np.arange(2, k + 2))
    gain = np.where(positions < k, rel * discount[np.minimum(positions, k - 1)], 0.0).sum(-1)
    ideal = (np.sort(rel, axis=-1)[..., ::-1][..., :k] * discount[: rel.shape[-1]]).sum(-1)
    return np.asarray(np.divide(gain, ideal, out=np.full(ideal.shape, np.nan), where=ideal > 0))


def recall(positions: Integers, relevance: Reals, k: int) -> Doubles:
    """Share [Q] of the relevant (1, not 0) candidates that are among the first k; NaN where none is relevant."""
    relevant = np.asarray(relevance) > 0
    count = relevant.sum(-1)
    hits = (relevant & (positions < k)).sum(-1)
    return np.asarray(np.divide(hits, count, out=np.full(count.shape, np.nan), where=count > 0))


def reciprocal_rank(positions: Integers, relevance: Reals) -> Doubles:
    """1 / the place (first = 1) of the best relevant (1, not 0) candidate [Q]; NaN where none is relevant."""
    relevant = np.asarray(relevance) > 0
    n = positions.shape[-1]
    first = np.where(relevant, positions, n).min(-1)
    return np.asarray(np.where(first < n, 1 / (first + 1.0), np.nan))
