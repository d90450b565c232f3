"""Which of two curves in the PD-against-accuracy-loss plane lies lower, and where that is beyond doubt.

A curve is what an activation gives from sharp to smooth. Both axes are ratios to ReLU, each with an interval paired
with ReLU's; two arms of different runs are compared as independent, which makes doubt larger than it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from simulator.decide import independent_difference
from simulator.figures.sweep import relative
from simulator.report.result import Arm, Interval
from simulator.report.words import label, number

STEPS = 50
"""Points of a curve between two settings."""


@dataclass(frozen=True)
class Against:
    """SmeLU against one setting of another activation."""

    spec: str
    loss: float
    """Change of log loss against ReLU, as a share."""
    pd: float
    """PD as a ratio to ReLU's."""
    lowest: float | None
    """Lowest PD of SmeLU's curve at no more loss; None where its curve does not get that far."""
    clear: bool
    """Whether a measured SmeLU setting has no more loss and clearly less PD."""
    worse: bool
    """Whether every SmeLU setting of no more loss has clearly more PD, or there is none."""


def log_interval(value: Interval) -> Interval:
    """Of the logarithm of a ratio."""
    floor = 1e-12
    return Interval(*(math.log(max(part, floor)) for part in (value.mean, value.low, value.high)))


def lowest(curve: list[Arm], loss: float) -> float | None:
    """The least PD, as a ratio to ReLU's, of a curve joined by lines, at a log loss ratio up to `loss`."""
    places = [(relative(arm, "log_loss").mean, relative(arm, "pd").mean) for arm in curve]
    reached = [y for x, y in places if x <= loss]
    for (x1, y1), (x2, y2) in zip(places, places[1:], strict=False):
        for step in range(1, STEPS):
            share = step / STEPS
            if x1 + share * (x2 - x1) <= loss:
                reached.append(y1 + share * (y2 - y1))
    return min(reached, default=None)


def against(curve: list[Arm], other: Arm) -> Against:
    """Every SmeLU setting against one other arm."""
    loss, pd = relative(other, "log_loss").mean, relative(other, "pd")
    fair = [arm for arm in curve if relative(arm, "log_loss").mean <= loss]
    gaps = [independent_difference(log_interval(relative(arm, "pd")), log_interval(pd)) for arm in fair]
    return Against(
        other.spec,
        loss - 1,
        pd.mean,
        lowest(curve, loss),
        clear=any(gap.high < 0 for gap in gaps),
        worse=all(gap.low > 0 for gap in gaps),
    )


def sentence(name: str, found: list[Against]) -> str:
    """`SmeLU lies below GELU at 0.4 % less loss, by 0.05`; or plainly that it does not. `by` is in ReLU's PD."""
    below = [one for one in found if one.lowest is not None and one.lowest <= one.pd]
    family = label(name)
    if not below:
        gaps = [one.lowest - one.pd for one in found if one.lowest is not None]
        by = f"it is above by at least {number(min(gaps), 2)}" if gaps else "it does not reach so low a loss"
        return f"SmeLU does not lie below {family} anywhere: {by}"
    gaps = [one.pd - one.lowest for one in below if one.lowest is not None]
    losses = sorted(100 * one.loss for one in below)
    clear = sum(one.clear for one in below)
    where = _between([signed(value) for value in (losses[0], losses[-1])]) + " % log loss"
    by = _between([number(min(gaps), 2), number(max(gaps), 2)], " to ", "")
    doubt = "" if clear == len(below) else f" ({clear or 'none'} of {len(below)} beyond doubt)"
    return f"SmeLU lies below {family} {where}, by {by} of ReLU's PD{doubt}"


def signed(value: float) -> str:
    """A change with its sign, two places."""
    return f"{value:+.2f}".replace("-", "−")


def _between(ends: list[str], joint: str = " and ", before: str = "between ") -> str:
    if ends[0] == ends[1]:
        return f"at {ends[0]}" if before else ends[0]
    return f"{before}{joint.join(ends)}"
