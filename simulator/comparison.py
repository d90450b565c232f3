"""From the scores of a stack to estimates per arm: who is compared with whom, and summed per user for the intervals.

Shapes: A arms, F fleets, R duplicates, M = A F R models in this order, P pairs of duplicates, U users,
Q queries, N candidates, K slate length, n events.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.measures import differences, quality, swaps
from simulator.measures.intervals import Estimate, Resamples, pair_index, sums_by_user
from simulator.types import Doubles, Floats, Ints, Query, World, order

BUCKETS = 5
"""Of PD by a value: at most so many, of about equally many events each."""
CHUNK = 65_536
"""Events counted at a time."""
Estimates = dict[str, Estimate]
"""Measure -> estimate, e.g. `slot`, `top1`, `set`, `pair`, `rbo`."""


@dataclass(frozen=True)
class Shape:
    """How the served models are numbered."""

    arms: int
    fleets: int
    duplicates: int

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


class Rankings:
    """How every model of the stack ranks the same queries."""

    def __init__(self, scores: Floats, queries: list[Query], k: int) -> None:
        """scores [M, Q, N] log-odds of the candidates."""
        self.scores = scores
        items = np.stack([query.candidates for query in queries])
        orders = order(scores, items)
        self.positions = swaps.positions(orders)
        """[M, Q, N] place of each candidate, 0 for the best."""
        self.top = orders[..., :k]
        """[M, Q, K] candidate indices of the slate, best first."""
        self.slates = np.take_along_axis(np.broadcast_to(items, scores.shape), self.top, -1)
        """[M, Q, K] item numbers of the slate, best first."""

    def swaps(self, model: int, other: Rankings, model2: int) -> Doubles:
        """Swap measures [5, Q] between a model here and one there, in the order of MEASURES."""
        first, second = self.slates[model], other.slates[model2]
        return np.stack(
            [
                swaps.slot_swaps(first, second),
                swaps.top1_swaps(first, second),
                swaps.set_swaps(first, second),
                swaps.pair_swaps(self.positions[model], other.positions[model2]),
                swaps.rbo_distance(first, second),
            ]
        )


MEASURES = ("slot", "top1", "set", "pair", "rbo")


class Comparison:
    """Compares the models of each arm on one set of queries and one set of events."""

    def __init__(self, shape: Shape, queries: list[Query], event_users: Ints, *, repetitions: int, seed: int) -> None:
        asked = np.array([query.user for query in queries])
        known = np.unique(np.concatenate([asked, event_users]))
        self.shape = shape
        self.asking, self.shown = Users(asked, known), Users(event_users, known)
        self.resamples = Resamples(shape.fleets, shape.duplicates, len(known), repetitions, seed)
        self.pairs = pair_index(shape.duplicates)

    def without_noise(self, arms: int) -> Comparison:
        """The same of `arms` models, one of each, that nothing would change but other users."""
        alone = copy(self)
        alone.shape, alone.resamples = Shape(arms, 1, 1), self.resamples.without_noise()
        return alone

    def duplicate_swaps(self, arm: int, now: Rankings) -> Estimates:
        """Cause `duplicate`: two duplicates of a fleet at one generation."""
        values = self._over_pairs(arm, self.pairs, lambda a, b: now.swaps(a, now, b))
        return self._named(lambda v: self.resamples.pairs(v, self.asking.weights()), values)

    def refresh_swaps(self, arm: int, before: Rankings, after: Rankings) -> Estimates:
        """Cause `refresh`: a duplicate against itself one generation later."""
        values = self._over_models(arm, lambda m: before.swaps(m, after, m))
        return self._named(lambda v: self.resamples.models(v, self.asking.weights()), values)

    def both_swaps(self, arm: int, before: Rankings, after: Rankings) -> Estimates:
        """Cause `both`: a duplicate against another one, one generation later."""
        r, s = self.pairs
        ordered = np.concatenate([r, s]), np.concatenate([s, r])
        values = self._over_pairs(arm, ordered, lambda a, b: before.swaps(a, after, b))
        return self._named(lambda v: self.resamples.pairs(v, self.asking.weights(), ordered), values)

    def differences(self, arm: int, logits: Floats) -> Estimates:
        """Relative PD, `pd`, and its ranking part and common shift, of log-odds [M, n] given to the events."""

        def parts(a: int, b: int) -> Doubles:
            split = differences.split_pd(logits[a], logits[b])
            return np.stack([split.total, split.ranking])

        total, ranking = self._over_pairs(arm, self.pairs, parts, self.shown)
        values = {"pd": total, "pd_ranking": ranking, "pd_shift": total - ranking}
        return {name: self.resamples.pairs(value, self.shown.weights()) for name, value in values.items()}

    def pd_among(self, arm: int, logits: Floats, inside: NDArray[np.bool_]) -> Estimate:
        """Relative PD, of log-odds [M, n], over the events that are `inside` [n]."""
        users = Users(self.shown.of[inside], self.shown.known)
        part = logits[:, inside]
        values = self._over_pairs(
            arm, self.pairs, lambda a, b: differences.split_pd(part[a], part[b]).total[None], users
        )
        return self.resamples.pairs(values[0], users.weights())

    def accuracy(self, arm: int, logits: Floats, labels: Floats) -> Estimates:
        """Log loss, AUC and calibration (mean prediction / mean label) of log-odds [M, n] against labels [n]."""
        losses = self._over_models(arm, lambda m: quality.log_loss(logits[m], labels)[None], self.shown)[0]
        models = self.shape.models(arm)
        each = np.vectorize(lambda m: quality.auc(logits[m], labels), otypes=[float])
        ratios = np.vectorize(lambda m: quality.calibration(logits[m], labels).ratio, otypes=[float])
        return {
            "log_loss": self.resamples.models(losses, self.shown.weights()),
            "auc": self.resamples.whole(each(models)),
            "calibration": self.resamples.whole(ratios(models)),
        }

    def ranking_quality(self, arm: int, now: Rankings, queries: list[Query], bias: float | None) -> Estimates:
        """Per-query ranking loss and, where the truth is known (`bias`: exponent of the position bias), regret."""
        relevance = np.stack([query.relevance for query in queries])
        loss = np.stack([quality.ranking_loss(now.scores[m], relevance) for m in self.shape.models(arm).flat])
        by_model = loss.reshape(self.shape.fleets, self.shape.duplicates, -1)
        found: Estimates = {}
        if not np.isnan(loss).all():
            found["ranking_loss"] = self.resamples.models(self.asking.sums(by_model), self.asking.weights(loss[0]))
        if bias is not None:
            regret = self._over_models(
                arm, lambda m: quality.regret(np.take_along_axis(relevance, now.top[m], -1), relevance, bias)[None]
            )[0]
            found["regret"] = self.resamples.models(regret, self.asking.weights())
        return found

    def churn(self, arm: int, before: Rankings, after: Rankings, queries: list[Query]) -> Estimates:
        """Pair swaps of cause `refresh`, split in useful ones (towards the truth) and useless ones."""
        relevance = np.stack([query.relevance for query in queries])

        def split(m: int) -> Doubles:
            parts = swaps.useful_swaps(before.positions[m], after.positions[m], relevance)
            return np.stack([parts.useful, parts.useless])

        useful, useless = self._over_models(arm, split)
        weights = self.asking.weights()
        return {
            "useful_swaps": self.resamples.models(useful, weights),
            "useless_swaps": self.resamples.models(useless, weights),
        }

    def progressive(self, arm: int, losses: Doubles) -> Estimate:
        """Mean log loss [M] of the events scored before they were learned; users are not resampled."""
        return self.resamples.whole(losses[self.shape.models(arm)])

    def _over_pairs(
        self, arm: int, pairs: tuple[Ints, Ints], measure: Callable[[int, int], Doubles], users: Users | None = None
    ) -> Doubles:
        """Values [measures, F, P, U] of `measure(model, model) -> [measures, n]` for pairs of each fleet."""
        users = users or self.asking
        fleets = [
            np.stack([users.sums(measure(int(row[r]), int(row[s]))) for r, s in zip(*pairs, strict=True)], axis=1)
            for row in self.shape.models(arm)
        ]
        return np.stack(fleets, axis=1)

    def _over_models(self, arm: int, measure: Callable[[int], Doubles], users: Users | None = None) -> Doubles:
        """Values [measures, F, R, U] of `measure(model) -> [measures, n]`."""
        users = users or self.asking
        fleets = [np.stack([users.sums(measure(int(m))) for m in row], axis=1) for row in self.shape.models(arm)]
        return np.stack(fleets, axis=1)

    def _named(self, estimate: Callable[[Doubles], Estimate], values: Doubles) -> Estimates:
        return {name: estimate(value) for name, value in zip(MEASURES, values, strict=True)}


def learned_counts(world: World, learned: int) -> Ints:
    """[items] in how many of the first `learned` events each item was shown."""
    counts = np.zeros(world.items, np.int64)
    for batch in world.batches(CHUNK, 0, learned):
        counts += np.bincount(batch.item, minlength=world.items)
    return counts


def mean_score(comparison: Comparison, arm: int, logits: Floats) -> Doubles:
    """[n] probability of an engagement: the mean of all the arm's models."""
    own = logits[comparison.shape.models(arm).ravel()].astype(np.float64)
    return np.asarray((0.5 + 0.5 * np.tanh(own / 2)).mean(axis=0))


def pd_by(comparison: Comparison, arm: int, logits: Floats, values: Doubles) -> list[dict[str, Any]]:
    """PD in buckets of events by a value [n]: its limits (the last one belongs to it), share of events, PD [interval].

    `logits` [M, n]. Equal values share a bucket, so there may be fewer than BUCKETS; none is empty.
    """
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BUCKETS + 1)))
    bucket = np.searchsorted(edges[1:-1], values, side="right")
    found = []
    for number in np.unique(bucket):
        inside = bucket == number
        estimate = comparison.pd_among(arm, logits, inside)
        found.append(
            {
                "low": float(values[inside].min()),
                "high": float(values[inside].max()),
                "share": float(inside.mean()),
                "pd": estimate.interval().as_dict(),
            }
        )
    return found
