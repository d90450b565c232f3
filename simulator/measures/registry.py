"""Every measure once: of two models' answers to the same queries, and of one model against the truth.

An entry here is all that a new measure takes: results, reports, the terminal, the live counters, recording rules, the
dashboards and the answers of `Compare` go through these lists. A measure gives a numerator and a denominator per query,
so that sums over queries, windows, replicas or users divide to its value: never a mean of ratios.

Estimates stand under dotted names (`pd`, `swaps.pair`, `refresh_lags.2.top1`); at the end: as intervals and as ratios.

Shapes: Q queries, N candidates, K slate length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from simulator.measures import differences, quality, swaps
from simulator.measures.intervals import Estimate, ratio
from simulator.types import Doubles, Floats, Integers, Interval, Ints, Reals, order

Parts = tuple[Doubles, Doubles]
"""Numerator [Q] and denominator [Q], neither below 0: they are counted. 0 where a query has nothing to measure."""
SCORES_PER_PASS = 12_800
"""Scores whose predictions are compared at a time: for larger arrays the C library asks the system for fresh memory
each time, which takes five times as long as the arithmetic."""


class Answers:
    """One model's answers to Q queries, of one shape."""

    def __init__(self, slates: Ints, items: Ints, scores: Floats, positions: Integers | None = None) -> None:
        """slates [Q, K] item numbers, best first; items [Q, N] (or [N]) the candidates that both models scored,
        distinct, in one order for both; scores [Q, N] their log-odds; N may be 0. `positions` where they are known."""
        self.slates, self.items, self.scores = slates, items, scores
        self._positions = positions

    @cached_property
    def positions(self) -> Integers:
        """[Q, N] the place of each candidate, 0 for the best; equal scores are ordered by item number."""
        return swaps.positions(order(self.scores, self.items)) if self._positions is None else self._positions


@dataclass(frozen=True)
class Described:
    """A measure's names and description."""

    name: str
    """Key in results, labels and flags."""
    words: str
    """Name in tables and titles."""
    about: str
    """One sentence, for a glossary."""


Kind = TypeVar("Kind", bound=Described)


def _by_name(*measures: Kind) -> dict[str, Kind]:
    """In the order in which they are shown."""
    return {measure.name: measure for measure in measures}


@dataclass(frozen=True)
class Measure(Described):
    """How much two models' answers to the same queries differ: 0 where they are the same."""

    fn: Callable[[Answers, Answers], Parts]
    maximum: float = 1.0
    """The largest value it can have."""
    unit: str = "share"
    swap: bool = True
    """Whether it counts what changed places, rather than how far predictions lie apart."""


@dataclass(frozen=True)
class Quality(Described):
    """How well one model ranks, against what is known to be relevant."""

    fn: Callable[[Answers, Reals], Parts]
    """Answers and relevance [Q, N]."""
    binary: bool = False
    """Whether relevance has to be 0 or 1: measured on logs alone, not where the truth is a probability."""
    maximum: float = 1.0


def _ones(values: Doubles) -> Parts:
    return values, np.ones(len(values))


def _places(share: Doubles, k: int) -> Parts:
    """Shares of the places of the slates, turned back into counts."""
    return np.rint(share * k), np.full(len(share), float(k))


def _pairs(first: Answers, second: Answers) -> Parts:
    queries, n = first.scores.shape
    if n < 2:
        return np.zeros(queries), np.zeros(queries)
    pairs = n * (n - 1) // 2
    swapped = swaps.pair_swaps(first.positions, second.positions) * pairs
    return np.rint(swapped), np.full(queries, float(pairs))


def _candidates(distance: Callable[[Reals, Reals], Doubles]) -> Callable[[Answers, Answers], Parts]:
    def parts(first: Answers, second: Answers) -> Parts:
        queries, n = first.scores.shape
        total = np.zeros(queries)
        for start in range(0, queries if n else 0, size := max(1, SCORES_PER_PASS // max(1, n))):
            block = slice(start, start + size)
            total[block] = distance(first.scores[block], second.scores[block]).sum(-1)
        return total, np.full(queries, float(n))

    return parts


MEASURES = _by_name(
    Measure(
        "slot",
        "slot swaps",
        "Share of the positions of the slate that hold another item.",
        lambda a, b: _places(swaps.slot_swaps(a.slates, b.slates), a.slates.shape[1]),
    ),
    Measure(
        "top1",
        "top-1 swaps",
        "Share of queries whose first item is another one.",
        lambda a, b: _ones(swaps.top1_swaps(a.slates, b.slates)),
    ),
    Measure(
        "set",
        "set swaps",
        "Share of the slate's items that are not in the other slate, whatever their order.",
        lambda a, b: _places(swaps.set_swaps(a.slates, b.slates), a.slates.shape[1]),
    ),
    Measure(
        "pair",
        "pair swaps",
        "Share of the pairs of candidates that two models put in opposite order: (1 - Kendall's tau) / 2.",
        _pairs,
    ),
    Measure(
        "rbo",
        "RBO distance",
        "Difference of two slates in which the first positions weigh most: 1 - rank-biased overlap, p = 0.9.",
        lambda a, b: _ones(swaps.rbo_distance(a.slates, b.slates)),
    ),
    Measure(
        "slate",
        "changed slates",
        "Share of queries whose slate differs at any position.",
        lambda a, b: _ones((swaps.slot_swaps(a.slates, b.slates) > 0).astype(np.float64)),
    ),
    Measure(
        "slate_pair",
        "pair swaps within slates",
        "Share of the pairs of items that both slates hold and that stand in opposite order.",
        lambda a, b: swaps.common_pairs(a.slates, b.slates),
    ),
    Measure(
        "pd_candidates",
        "PD of candidates",
        "Relative prediction difference 2 |p1 - p2| / (p1 + p2), mean over the candidates of queries, from 0 to 2.",
        _candidates(differences.pd_of_logits),
        maximum=2.0,
        unit="relative difference",
        swap=False,
    ),
    Measure(
        "pd_candidates_ranking",
        "PD of candidates, ranking part",
        "The same after both models' log-odds were moved to their common mean: the part that can change a ranking.",
        _candidates(differences.ranking_pd),
        maximum=2.0,
        unit="relative difference",
        swap=False,
    ),
)
"""Name -> measure, in the order in which they are shown. A new one is an entry here."""


def measured(predicted: bool) -> list[str]:
    """Names of the MEASURES that scores allow; `predicted`: they are log-odds of predictions."""
    return [name for name, measure in MEASURES.items() if measure.swap or predicted]


def compare(first: Answers, second: Answers, names: Iterable[str] = MEASURES) -> Doubles:
    """[measures, 2, Q] numerator and denominator of these measures for each query; of all, in their order."""
    return np.stack([np.stack(MEASURES[name].fn(first, second)) for name in names])


def _where_known(values: Doubles) -> Parts:
    """NaN: a query with nothing to measure."""
    is_known = ~np.isnan(values)
    return np.where(is_known, values, 0.0), is_known.astype(np.float64)


QUALITIES = _by_name(
    Quality(
        "ranking_loss",
        "ranking loss",
        "Log loss over pairs of an engagement and a non-engagement of one query. Lower is better.",
        lambda answers, relevance: _where_known(quality.ranking_loss(answers.scores, relevance)),
        maximum=np.inf,
    ),
    Quality(
        "ndcg",
        "NDCG",
        "Normalised discounted cumulative gain of the slate: 1 where it is the best possible. Higher is better.",
        lambda answers, relevance: _where_known(quality.ndcg(answers.positions, relevance, answers.slates.shape[1])),
    ),
    Quality(
        "recall",
        "recall",
        "Share of the candidates that the user engaged with next that are in the slate. Higher is better.",
        lambda answers, relevance: _where_known(quality.recall(answers.positions, relevance, answers.slates.shape[1])),
        binary=True,
    ),
    Quality(
        "mrr",
        "MRR",
        "Mean of 1 / the place of the first candidate that the user engaged with next. Higher is better.",
        lambda answers, relevance: _where_known(quality.reciprocal_rank(answers.positions, relevance)),
        binary=True,
    ),
)
"""Name -> quality of a ranking, in the order in which they are shown."""


@dataclass(frozen=True)
class Difference(Described):
    """How far two models' predictions of the same events lie apart."""

    fn: Callable[[Reals, Reals], Doubles]
    """Log-odds [n] and [n] -> a value per event [n]; the measure is their mean."""
    signed: bool = False
    """Whether it can be below 0."""


DIFFERENCES = _by_name(
    Difference(
        "pd",
        "PD",
        "Relative prediction difference of two models: mean of 2 |p1 - p2| / (p1 + p2) over events, from 0 to 2.",
        differences.pd_of_logits,
    ),
    Difference(
        "pd_ranking",
        "PD, ranking part",
        "PD after both models' log-odds were moved to their common mean: the part that can change a ranking.",
        differences.ranking_pd,
    ),
    Difference(
        "pd_shift",
        "PD, common shift",
        "What is left of PD: both models agree on the order, but not on the level.",
        lambda a, b: differences.pd_of_logits(a, b) - differences.ranking_pd(a, b),
        signed=True,
    ),
)
"""Name -> difference of predictions."""


@dataclass(frozen=True)
class Accuracy(Described):
    """How good one model's predictions of events are."""

    fn: Callable[[Reals, Reals], Any]
    """Log-odds [n] and labels [n] -> a value per event [n], or, where `aggregate`, one number."""
    aggregate: bool = False
    maximum: float = np.inf


ACCURACY = _by_name(
    Accuracy(
        "log_loss",
        "log loss",
        "Mean of -ln(probability of what happened), in nats, on held-out events. Lower is better.",
        quality.log_loss,
    ),
    Accuracy(
        "auc",
        "AUC",
        "Chance that an engagement is scored above a non-engagement: 0.5 is guessing. Higher is better.",
        quality.auc,
        aggregate=True,
        maximum=1.0,
    ),
    Accuracy(
        "calibration",
        "calibration",
        "Mean predicted probability / share of engagements: 1 is right on average.",
        quality.calibration,
        aggregate=True,
    ),
)
"""Name -> accuracy of predictions."""


def described() -> dict[str, Described]:
    """All of them by name."""
    return {**MEASURES, **DIFFERENCES, **ACCURACY, **QUALITIES}


PERSONALISATION = "personalisation"
"""Pair swaps between the rankings that one model gives to two random users for the same candidates in the same context:
a cure that merely ranks everybody alike is seen."""
GAP = "gap_closed"
"""How much of the way from the log loss of the best baseline to that of the oracle an arm goes."""
MAXIMA = {name: measure.maximum for group in (MEASURES, QUALITIES, ACCURACY) for name, measure in group.items()}
MAXIMA |= dict.fromkeys(("regret", "useful_swaps", "useless_swaps", PERSONALISATION), 1.0)
"""The largest value of each measure, under any cause."""
RATIOS_TO_ANY = {name: name for name in ("pd", "log_loss", "auc", *QUALITIES, PERSONALISATION)}
RATIOS_TO_ANY["pair"] = "swaps.pair"
"""Short name of a ratio to every other arm -> the measure."""
RATIOS = RATIOS_TO_ANY | {name: f"swaps.{name}" for name in MEASURES}
RATIOS |= {f"{cause}_{name}": f"{cause}_swaps.{name}" for cause in ("refresh", "both") for name in MEASURES}
RATIOS["pd_ranking"] = "pd_ranking"
"""The same of ratios to the first arm."""


def intervals(estimates: Mapping[str, Estimate]) -> dict[str, Interval]:
    """Their intervals, within the range of each measure."""
    return {name: estimate.interval(*_range(name)) for name, estimate in estimates.items()}


def _range(name: str) -> tuple[float, float]:
    """The smallest and the largest value of a measure."""
    signed = name == GAP or (name in DIFFERENCES and DIFFERENCES[name].signed)
    return -math.inf if signed else 0.0, MAXIMA.get(name.rpartition(".")[2], math.inf)


def within(value: Interval, name: str) -> Interval:
    """With limits within the range of a measure; of a ratio (no name) not below 0."""
    minimum, maximum = _range(name)
    return Interval(value.mean, max(value.low, minimum), min(value.high, maximum))


def ratios(
    estimates: Mapping[str, Estimate], base: Mapping[str, Estimate], names: Mapping[str, str]
) -> dict[str, Interval]:
    """Of an arm to another, under short names; without those of 0, and of AUC where a log holds engagements only."""
    defined = {
        short: ratio(estimates[name], base[name])
        for short, name in names.items()
        if name in estimates and name in base and not math.isnan(base[name].mean)
    }
    return {name: value for name, value in defined.items() if value}
