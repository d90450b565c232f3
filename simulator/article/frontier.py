"""The least instability at a log loss that a family of settings reaches, against that of another (docs/protocol.md).

A family is what one would choose among: an activation under a norm, over its strength and its learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simulator.article.table import Values, exponential, over_units
from simulator.measures.intervals import Interval

LEVELS = 5
"""Log losses at which two families are compared."""
WITHIN = 1.01
"""Of ReLU's least log loss: beyond it nobody would look at what else a setting does."""

Family = Mapping[str, Mapping[int, Values]]
"""Spec -> unit -> values."""
Point = tuple[float, float, str]
"""Mean log loss, mean of what is to be small, spec."""
Mixture = tuple[tuple[str, float], ...]
"""Settings of an envelope with their weights at one log loss."""


def points(family: Family, up: str, units: Sequence[int], across: str = "log_loss") -> list[Point]:
    """Each setting by its means over units: geometric of `up`, so that mixtures are those of its logarithm."""
    found = []
    for spec, by_unit in family.items():
        own = [by_unit[unit] for unit in units if unit in by_unit]
        if len(own) == len(units) and all(up in one and across in one and one[up] > 0 for one in own):
            level = math.exp(np.mean([math.log(one[up]) for one in own]))
            found.append((float(np.mean([one[across] for one in own])), level, spec))
    return found


def envelope(found: Sequence[Point]) -> list[Point]:
    """The lower left envelope, ascending in log loss: each has less of what is to be small than all before it, and
    none lies above the line between its neighbours."""
    kept: list[Point] = []
    for x, y, spec in sorted(found):
        if kept and y >= kept[-1][1]:
            continue
        while len(kept) > 1 and _above(kept[-2], kept[-1], (x, y, spec)):
            kept.pop()
        kept.append((x, y, spec))
    return kept


def _above(left: Point, middle: Point, right: Point) -> bool:
    """Whether the middle one lies on or above the line from left to right, on the log scale of what is to be small."""
    if right[0] == left[0]:
        return True
    share = (middle[0] - left[0]) / (right[0] - left[0])
    line = (1 - share) * math.log(left[1]) + share * math.log(right[1])
    return math.log(middle[1]) >= line


def at(edge: Sequence[Point], loss: float) -> Mixture:
    """The settings on an envelope at a log loss that it reaches."""
    reached = [point for point in edge if point[0] <= loss]
    assert reached, "the envelope begins at a larger log loss"
    last, beyond = reached[-1], edge[len(reached) :]
    if not beyond:
        return ((last[2], 1.0),)
    share = (loss - last[0]) / (beyond[0][0] - last[0])
    return ((last[2], 1 - share), (beyond[0][2], share))


@dataclass(frozen=True)
class Matched:
    """One family against another at equal log losses."""

    ratio: Interval
    """Geometric mean over the common range of the ratio of `up`."""
    settings: dict[str, float]
    """Of the first family: setting -> its share of the comparison."""
    others: dict[str, Interval]
    """Ratios of other measures at the same settings."""


def matched(own: Family, other: Family, relu: Family, up: str = "pd", besides: Sequence[str] = ()) -> Matched | None:
    """`own` to `other` where both are within 1 % of ReLU's least log loss; None where they never both are.

    The envelopes are those of the other units; the ratio is taken in the unit that was left out.
    """
    units = sorted(set.intersection(*(set(one) for family in (own, other) for one in family.values())))
    if len(units) < 2:
        return None
    logs: dict[str, list[float]] = {name: [] for name in (up, *besides)}
    settings: dict[str, float] = {}
    for unit in units:
        rest = [one for one in units if one != unit]
        edges = [envelope(points(family, up, rest)) for family in (own, other)]
        least = min((loss for loss, *_ in points(relu, up, rest)), default=math.nan)
        if not all(edges) or not (low := max(edge[0][0] for edge in edges)) <= (high := WITHIN * least):
            return None
        mixtures = [[at(edge, loss) for edge in edges] for loss in np.linspace(low, high, LEVELS)]
        for spec, weight in (part for mine, _ in mixtures for part in mine):
            settings[spec] = settings.get(spec, 0.0) + weight / (LEVELS * len(units))
        for name, found in logs.items():
            found.append(
                float(np.mean([_log(own, mine, name, unit) - _log(other, its, name, unit) for mine, its in mixtures]))
            )
    ratios = {name: exponential(over_units(found)) for name, found in logs.items() if np.isfinite(found).all()}
    return Matched(ratios[up], settings, {name: ratios[name] for name in besides if name in ratios})


def _log(family: Family, mixture: Mixture, measure: str, unit: int) -> float:
    """Logarithm of a measure of a mixture in a unit; NaN where it has none, or is 0."""
    values = [(family[spec][unit].get(measure, 0.0), weight) for spec, weight in mixture if weight]
    return sum(weight * math.log(value) for value, weight in values) if min(values)[0] > 0 else math.nan
