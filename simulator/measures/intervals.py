"""95 % intervals by a bootstrap over fleets, duplicates and users, never over pairs.

Shapes: F fleets, R duplicates, P pairs of duplicates, U users, G user groups, C clusters, B repetitions.

**What is resampled.** Pairs share duplicates, and all models answer the same users: values are crossed, not
independent. The independent units are *clusters* and users. With F >= 2 the clusters are the fleets, each carried
whole: the spread between fleets already contains that between their duplicates (Davison and Hinkley, "Bootstrap
Methods", 1997, section 3.8). With F = 1 they are the duplicates, and the interval is **conditional on that fleet's
initialisation**: it covers other duplicates and users, but no other initialisation.

**Pairs of duplicates (F = 1).** A duplicate drawn twice makes a pair with itself, which has no value. So what is
resampled is each duplicate's jackknife pseudo-value, 2 (R-1)/(R-2) (h_r - h) + h, with h_r the mean over the pairs
that contain r and h over all pairs: unbiased for the spread of a mean over pairs where duplicates' effects add up,
too wide rather than too narrow where they do not. With R = 2 there is one pair: the interval covers users only. Of a
sample of pairs in which each duplicate is in m, the squared width is too large by 1 part in m: h_r then says something
of m others too.

**Crossed levels.** Resampling clusters and users together counts their interaction (and noise) three times (Owen,
"The pigeonhole bootstrap", 2007). So each repetition is split into what the clusters drawn, the users drawn, and
both beyond their sum moved: variances V_c, V_u and V_cu. V_c and V_u both contain V_cu: the total is V_c + V_u - V_cu.

**Few clusters.** Percentiles of n resampled units are too narrow by sqrt((n-1)/n) and miss the tails (Hesterberg,
"What teachers should know about the bootstrap", 2015). So each variance is multiplied by n/(n-1), and the limits are

    mean -+ sqrt(t_c^2 V_c + t_u^2 (V_u - V_cu)),   t = Student's 97.5 % quantile with n - 1 degrees of freedom:

half-widths of independent parts added in squares (Graybill and Wang 1980; Zou and Donner 2008). Welch-Satterthwaite
degrees of freedom are narrower, but covered only 88 to 91 % with two fleets. t is 12.7 for two fleets, 4.3 for
three, 2.8 for five: more fleets are the way to a narrow interval.
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.randomness import generator
from simulator.types import Doubles, Interval, Ints

GRID = 20_001
"""Points of the numerical integral of Student's t: the error is below 2e-5 of the quantile."""
USER_GROUPS = 4096
"""More users than this are resampled in so many groups (user number modulo it): adds 1 % noise to the width."""


@dataclass(frozen=True)
class Estimate:
    """A mean and how each level of resampling moves it. Estimates of one `Resamples` are paired, draw by draw."""

    mean: float
    moves: Doubles
    """[3, B] what the clusters drawn, the users drawn, and both beyond their sum added to the mean."""
    clusters: int
    """Independent fleets or duplicates; 1 means that they are not resampled."""
    users: int
    """Users (groups) with weight; 1 means that they are not resampled."""

    def interval(self, minimum: float = 0.0, maximum: float = math.inf) -> Interval:
        """Mean and limits; the measure cannot lie outside [minimum, maximum]."""
        half = self.half_width()
        return Interval(self.mean, max(self.mean - half, minimum), min(self.mean + half, maximum))

    def given_models(self) -> Estimate:
        """The same, conditional on the given models: only users are resampled."""
        zeros = np.zeros_like(self.moves[1])
        return Estimate(self.mean, np.stack([zeros, self.moves[1], zeros]), 1, self.users)

    def half_width(self) -> float:
        """Half the width of the 95 % interval."""
        c, u = (n / (n - 1) if n > 1 else 0.0 for n in (self.clusters, self.users))
        by_cluster, by_user, both = np.var(self.moves, axis=1) * (c, u, c * u)
        square = _t(self.clusters) ** 2 * by_cluster + _t(self.users) ** 2 * max(by_user - both, 0.0)
        return math.sqrt(max(square, _t(self.users) ** 2 * by_user))


def _t(units: int) -> float:
    """Student's 97.5 % quantile for a variance estimated from this number of units."""
    return student_quantile(0.975, max(units - 1, 1))


def ratio(a: Estimate, b: Estimate) -> Interval | None:
    """a / b of two paired estimates of a measure that is never negative; limits on the log scale.

    Both are moved by the same fleets, duplicates and users, so what they share cancels. None where b is 0 (there is
    no ratio); 0 where only a is 0, without an upper limit unless b is shown to be more: 0 of few is not 0 of all.
    """
    assert a.mean >= 0 and b.mean >= 0, "ratios are for measures that are never negative"
    if b.mean == 0:
        return None
    if a.mean == 0:
        return Interval(0.0, 0.0, 0.0 if b.interval().low > 0 and max(b.users, b.clusters) > 1 else math.inf)
    half = _paired(0.0, a.moves / a.mean - b.moves / b.mean, a, b).half_width()
    factor = math.exp(min(half, 300.0))  # a float however wide
    return Interval(a.mean / b.mean, a.mean / b.mean / factor, a.mean / b.mean * factor)


def difference(a: Estimate, b: Estimate) -> Interval:
    """a - b of two paired estimates."""
    return _paired(a.mean - b.mean, a.moves - b.moves, a, b).interval(minimum=-math.inf)


def gap_closed(estimate: Estimate, start: Estimate, end: Estimate) -> Estimate:
    """Share of the gap from `start` to `end` that it closes, (start - estimate) / (start - end), all three paired: to
    first order in what moves them; start and end differ."""
    gap = start.mean - end.mean
    share = (start.mean - estimate.mean) / gap
    moves = (start.moves - estimate.moves - share * (start.moves - end.moves)) / gap
    return replace(_paired(share, moves, estimate, start), users=min(estimate.users, start.users, end.users))


def _paired(mean: float, moves: Doubles, a: Estimate, b: Estimate) -> Estimate:
    clusters = max(a.clusters, b.clusters)  # what the clusters drawn do not move has one
    assert {a.clusters, b.clusters} <= {1, clusters}, "estimates of one kind, from one Resamples"
    return Estimate(mean, moves, clusters, min(a.users, b.users))


def sums_by_user(values: NDArray[np.floating[Any]], user: Ints, users: int) -> Doubles:
    """Values of examples or queries [..., n] of user numbers [n] as sums per user [..., U]."""
    rows = values.reshape(-1, len(user))
    sums = np.stack([np.bincount(user, weights=row, minlength=users).astype(np.float64) for row in rows])
    return sums.reshape(*values.shape[:-1], users)


def pair_index(duplicates: int, partners: int | None = None, seed: int = 0) -> tuple[Ints, Ints]:
    """The unordered pairs of R duplicates (first [P], second [P]), first < second: the order of values by pair.

    Where each has more than `partners` (an even number) others, a sample in which each is in exactly so many pairs:
    with its neighbours on a ring, in an order drawn from the seed.
    """
    first, second = np.triu_indices(duplicates, 1)
    if partners is not None and duplicates > partners + 1:
        ring = generator(seed, "pairs of duplicates").permutation(duplicates)
        ends = np.stack(
            [np.stack([ring, np.roll(ring, -step)]) for step in range(1, partners // 2 + 1)]
        )  # [steps, 2, R]
        second, first = ends.max(axis=1).ravel(), ends.min(axis=1).ravel()
        order = np.lexsort((second, first))
        first, second = first[order], second[order]
    return first.astype(np.int64), second.astype(np.int64)


class Resamples:
    """One set of draws for all measures of a run: matched arms (same fleets, same events) are resampled together.

    Values are sums per user, with `weight` the number of examples (or queries) of each user: the mean is
    sum of values / sum of weights. Users without weight count for nothing. Sums must be finite: an example without
    a value adds 0 to both. Memory: at most 32 MB of draws at 1,000 repetitions.
    """

    def __init__(self, fleets: int, duplicates: int, users: int, repetitions: int = 1000, seed: int = 0) -> None:
        assert fleets >= 1 and duplicates >= 1 and users >= 1 and repetitions >= 2
        self.fleets, self.duplicates, self.users = fleets, duplicates, users
        self.groups = min(users, USER_GROUPS)
        clusters = fleets if fleets > 1 else duplicates
        draw = generator(seed, "bootstrap")
        self._clusters = _multiplicities(draw, repetitions, clusters)  # [B, C]
        self._users = _multiplicities(draw, repetitions, self.groups)  # [B, G]

    def without_noise(self) -> Resamples:
        """The same draws of users, for one model that no fleet or duplicate changes: paired with the estimates here."""
        single = copy(self)
        single.fleets = single.duplicates = 1
        return single

    @property
    def covers(self) -> str:
        """What an interval of pairs covers, to print beside it."""
        if self.fleets > 1:
            return "fleets, their duplicates, and users"
        if self.duplicates > 2:
            return "duplicates and users, given this one fleet's initialisation"
        return "users only: one pair of duplicates of one fleet says nothing about others"

    def pairs(self, values: Doubles, weight: Doubles, index: tuple[Ints, Ints] | None = None) -> Estimate:
        """Values of pairs of duplicates [F, P, U], weight [U] or [F, U].

        `index` (first [P], second [P]) gives the duplicates of each pair: `pair_index(R)` by default. It may hold
        both (r, s) and (s, r), for a measure that is not symmetric (cause `both`).
        """
        first, second = pair_index(self.duplicates) if index is None else index
        assert values.shape == (self.fleets, len(first), self.users), values.shape
        sums, weights = self._grouped(values), self._weights(weight)  # [F, P, G], [F, G]
        mean = sums.mean(axis=1)
        if self.fleets > 1 or self.duplicates == 2:
            return self._estimate(mean, weights)
        r = self.duplicates
        per_duplicate = np.stack([sums[0, (first == d) | (second == d)].mean(axis=0) for d in range(r)])  # h_r [R, G]
        return self._estimate(2 * (r - 1) / (r - 2) * (per_duplicate - mean) + mean, np.repeat(weights, r, axis=0))

    def models(self, values: Doubles, weight: Doubles) -> Estimate:
        """Values of single models [F, R, U], weight as in `pairs`: log loss, or a duplicate against its own refresh."""
        assert values.shape == (self.fleets, self.duplicates, self.users), values.shape
        sums, weights = self._grouped(values), self._weights(weight)
        if self.fleets > 1:
            return self._estimate(sums.mean(axis=1), weights)
        return self._estimate(sums[0], np.repeat(weights, self.duplicates, axis=0))

    def aggregates(self, values: Doubles) -> Estimate:
        """Values [F, R] that are no mean over users, such as AUC: fleets or duplicates are resampled, users are not."""
        assert values.shape == (self.fleets, self.duplicates), values.shape
        units = values.mean(axis=1) if self.fleets > 1 else values[0]
        return self._estimate(units[:, None], np.ones((len(units), 1)))

    def _estimate(self, sums: Doubles, weights: Doubles) -> Estimate:
        """Resample clusters and users of sums and weights [C, G] apart and together."""
        clusters, groups = sums.shape
        c = self._clusters if clusters > 1 else np.ones((len(self._clusters), 1))
        u = self._users if groups > 1 else np.ones((len(self._users), 1))
        assert weights.sum() > 0, "no user has any weight"
        mean = sums.sum() / weights.sum()
        sums_drawn, weights_drawn = u @ sums.T, u @ weights.T  # [B, C]
        by_cluster = _share(c @ sums.sum(axis=1), c @ weights.sum(axis=1), mean)
        by_user = _share(sums_drawn.sum(axis=1), weights_drawn.sum(axis=1), mean)
        both = _share((c * sums_drawn).sum(axis=1), (c * weights_drawn).sum(axis=1), mean)
        moves = np.stack([by_cluster, by_user, both - by_cluster - by_user])
        return Estimate(float(mean), moves, clusters, int(np.count_nonzero(weights.sum(axis=0))))

    def _weights(self, weight: Doubles) -> Doubles:
        """Weights per fleet and user group [F, G]."""
        return self._grouped(np.broadcast_to(np.asarray(weight, np.float64), (self.fleets, self.users)))

    def _grouped(self, values: Doubles) -> Doubles:
        """Sums over the users of a group: [..., U] -> [..., G]."""
        missing = -self.users % self.groups
        padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)]) if missing else values
        return np.asarray(padded.reshape(*values.shape[:-1], -1, self.groups).sum(axis=-2, dtype=np.float64))


def _multiplicities(draw: np.random.Generator, repetitions: int, units: int) -> Doubles:
    """How often each of n units is drawn in each repetition [B, n]: n draws with replacement."""
    drawn = (draw.integers(units, size=units) for _ in range(repetitions))
    return np.stack([np.bincount(numbers, minlength=units).astype(np.float64) for numbers in drawn])


def _share(sums: Doubles, weights: Doubles, mean: float) -> Doubles:
    """How far sums / weights [B] lie from the mean; 0 where a repetition drew no weight."""
    return np.where(weights > 0, sums / np.where(weights > 0, weights, 1) - mean, 0.0)


@lru_cache(maxsize=1024)
def student_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t, without SciPy, with `freedom` >= 1 degrees of freedom, for probability in [0.5, 0.999].

    With t = sqrt(freedom) tan(a) the density is proportional to cos(a)^(freedom - 1) on |a| < pi/2. Above 10,000
    degrees of freedom the quantile is the normal one to four digits, and 10,000 are used.
    """
    assert 0.5 <= probability <= 0.999 and freedom >= 1
    freedom = min(freedom, 10_000.0)
    angle = np.linspace(0, math.pi / 2, GRID)
    density = np.cos(angle) ** (freedom - 1)
    area = np.concatenate([[0], (density[1:] + density[:-1]).cumsum()])
    return math.sqrt(freedom) * math.tan(float(np.interp((2 * probability - 1) * area[-1], area, angle)))
