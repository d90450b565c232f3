"""What intervals allow to be said: margins within which two numbers count as alike, and how two arms are compared.

*Beyond doubt* means that a whole 95 % interval lies on one side. An interval that is too wide to tell never makes a
claim hold: that nothing is worse, or that two things are the same, needs one that ends within a margin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from simulator.decide import independent_difference
from simulator.figures.sweep import relative
from simulator.measures.intervals import Interval
from simulator.report.result import Arm

Verdict = Literal["holds", "partly", "not", "not measured"]
NO_WORSE = 1.005
"""A loss is no worse where the interval of its ratio ends below this: half a percent is less than SmeLU's best setting
gains on either world of docs/results.md."""
NO_MORE = 1.1
"""PD is no more where the interval of its ratio ends up to this: a tenth more, which beside something that halves PD is
a twentieth of ReLU's."""
SAME = {"pd": 0.05, "log_loss": 0.002}
"""Two ratios to ReLU are alike where the interval of their difference lies within this, both ways: a tenth of a halved
PD, and less than half of what counts as a worse loss."""


@dataclass(frozen=True)
class Finding:
    """What the numbers say to one claim."""

    verdict: Verdict
    say: str


def no_worse(ratio: Interval) -> bool:
    """Whether a loss is no worse by more than the margin, beyond doubt."""
    return ratio.high < NO_WORSE


def log_interval(value: Interval) -> Interval:
    """Of the logarithm of a ratio."""
    floor = 1e-12
    return Interval(*(math.log(max(part, floor)) for part in (value.mean, value.low, value.high)))


def between(arm: Arm, other: Arm, measure: str) -> Interval:
    """Ratio of two arms: paired where they are of one run, else of two independent ratios to ReLU."""
    if ratio := arm.ratio(other, measure):
        return ratio
    if ratio := other.ratio(arm, measure):
        return Interval(1 / ratio.mean, 1 / ratio.high, 1 / ratio.low)
    gap = independent_difference(log_interval(relative(arm, measure)), log_interval(relative(other, measure)))
    return Interval(*(math.exp(part) for part in (gap.mean, gap.low, gap.high)))


def apart(one: Interval, other: Interval) -> bool:
    """Whether two intervals have nothing in common."""
    return one.high < other.low or other.high < one.low
