"""Pareto frontiers of instability against log loss, of one family of settings against another's (docs/protocol.md).

A family is what one would choose among: an activation under a norm, over its strength and its learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simulator.article.table import Values, exponential, over_units
from simulator.measures.intervals import Interval

LOSS_LEVELS = 5
"""Log losses at which two families are compared."""
MAX_LOSS_RATIO = 1.01
"""Ratio to ReLU's least log loss: settings beyond it are not considered."""

Family = Mapping[str, Mapping[int, Values]]
"""Spec -> unit -> values."""
Point = tuple[float, float, str]
"""Mean log loss, mean of the measure to minimise, spec."""
Mixture = tuple[tuple[str, float], ...]
"""Settings of an envelope with their weights at one log loss."""


def points(family: Family, up: str, units: Sequence[int], across: str = "log_loss") -> list[Point]:
    """Each setting by its means over units: geometric of `up`, so that mixtures are those of its logarithm."""
    means = []
    for spec, by_unit in family.items():
        values = [by_unit[unit] for unit in units if unit in by_unit]
        if len(values) == len(units) and all(up in value and across in value and value[up] > 0 for value in values):
            level = math.exp(np.mean([math.log(value[up]) for value in values]))
            means.append((float(np.mean([value[across] for value in values])), level, spec))
    return means


def envelope(settings: Sequence[Point]) -> list[Point]:
    """The lower left envelope, ascending in log loss: each has less of what is to be small than all before it, and
    none lies above the line between its neighbours."""
    frontier: list[Point] = []
    for x, y, spec in sorted(settings):
        if frontier and y >= frontier[-1][1]:
            continue
        while len(frontier) > 1 and _above(frontier[-2], frontier[-1], (x, y, spec)):
            frontier.pop()
        frontier.append((x, y, spec))
    return frontier


def _above(left: Point, middle: Point, right: Point) -> bool:
    """Whether the middle one lies on or above the line from left to right, on the log scale of what is to be small."""
    if right[0] == left[0]:
        return True
    share = (middle[0] - left[0]) / (right[0] - left[0])
    line = (1 - share) * math.log(left[1]) + share * math.log(right[1])
    return math.log(middle[1]) >= line


def at(frontier: Sequence[Point], loss: float) -> Mixture:
    """The settings on an envelope at a log loss that it reaches."""
    reached = [point for point in frontier if point[0] <= loss]
    assert reached, "the envelope begins at a larger log loss"
    last, beyond = reached[-1], frontier[len(reached) :]
    if not beyond:
        return ((last[2], 1.0),)
    share = (loss - last[0]) / (beyond[0][0] - last[0])
    return ((last[2], 1 - share), (beyond[0][2], share))


@dataclass(frozen=True)
class MatchedRatio:
    """One family against another at equal log losses."""

    ratio: Interval
    """Geometric mean over the common range of the ratio of `up`."""
    settings: dict[str, float]
    """Of the first family: setting -> its share of the comparison."""
    other_ratios: dict[str, Interval]
    """Ratios of other measures at the same settings."""


def matched(
    first: Family, second: Family, relu: Family, up: str = "pd", besides: Sequence[str] = ()
) -> MatchedRatio | None:
    """`first` to `second` where both are within 1 % of ReLU's least log loss; None where they never both are.

    The envelopes are those of the other units; the ratio is taken in the unit that was left out.
    """
    units = sorted(set.intersection(*(set(one) for family in (first, second) for one in family.values())))
    if len(units) < 2:
        return None
    logs: dict[str, list[float]] = {name: [] for name in (up, *besides)}
    settings: dict[str, float] = {}
    for unit in units:
        other_units = [one for one in units if one != unit]
        edges = [envelope(points(family, up, other_units)) for family in (first, second)]
        minimum = min((loss for loss, *_ in points(relu, up, other_units)), default=math.nan)
        if not all(edges) or not (low := max(edge[0][0] for edge in edges)) <= (high := MAX_LOSS_RATIO * minimum):
            return None
        mixtures = [[at(edge, loss) for edge in edges] for loss in np.linspace(low, high, LOSS_LEVELS)]
        for spec, weight in (part for mixture, _ in mixtures for part in mixture):
            settings[spec] = settings.get(spec, 0.0) + weight / (LOSS_LEVELS * len(units))
        for name, differences in logs.items():
            at_levels = [_log(first, mine, name, unit) - _log(second, other, name, unit) for mine, other in mixtures]
            differences.append(float(np.mean(at_levels)))
    ratios = {name: exponential(over_units(logs_)) for name, logs_ in logs.items() if np.isfinite(logs_).all()}
    return MatchedRatio(ratios[up], settings, {name: ratios[name] for name in besides if name in ratios})


def _log(family: Family, mixture: Mixture, measure: str, unit: int) -> float:
    """Logarithm of a measure of a mixture in a unit; NaN where it has none, or is 0."""
    values = [(family[spec][unit].get(measure, 0.0), weight) for spec, weight in mixture if weight]
    return sum(weight * math.log(value) for value, weight in values) if min(values)[0] > 0 else math.nan
