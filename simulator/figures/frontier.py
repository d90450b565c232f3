"""Which of two curves in the PD-against-accuracy-loss plane lies lower, and where that is beyond doubt.

A curve is what an activation gives from sharp to smooth, ReLU not included: at beta = 0 SmeLU is ReLU, whose place is
not to its credit. Both axes are ratios to ReLU, each with an interval paired with ReLU's; two arms of different runs
are compared as independent, which makes doubt larger than it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.figures.doubt import between, no_worse
from simulator.figures.sweep import family, relative
from simulator.report.result import Arm
from simulator.report.words import label, number

STEPS = 50
"""Points of a curve between two settings."""


@dataclass(frozen=True)
class Against:
    """SmeLU against one setting of another activation."""

    pd: float
    """PD as a ratio to ReLU's."""
    lowest: float | None
    """Lowest PD of SmeLU's curve at no more loss; None where its curve does not get that far."""
    clear: bool
    """Whether a measured SmeLU setting has no more loss, by its interval too, and clearly less PD."""
    beaten: bool = False
    """Whether every measured SmeLU setting has clearly more PD or clearly more loss."""
    beta: float | None = None
    """The other activation's setting, if it has one."""

    @property
    def below(self) -> bool:
        """Whether SmeLU's curve lies on or below it."""
        return self.lowest is not None and self.lowest <= self.pd


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
    """Every SmeLU setting against one other arm; the curve has no ReLU in it."""
    loss, pd = relative(other, "log_loss").mean, relative(other, "pd")
    gaps = [(arm, between(arm, other, "pd"), between(arm, other, "log_loss")) for arm in curve]
    clear = any(
        relative(arm, "log_loss").mean <= loss and no_worse(losses) and pds.high < 1 for arm, pds, losses in gaps
    )
    beaten = all(pds.low > 1 or losses.low > 1 for _, pds, losses in gaps)
    return Against(pd.mean, lowest(curve, loss), clear, beaten, family(other.spec)[1])


def statement(rivals: dict[str, list[Against]]) -> str:
    """`SmeLU has no more PD at no more log loss than GELU ...`; or plainly that it has not. Ratios are to ReLU."""
    ahead = {name: found for name, found in rivals.items() if any(one.below for one in found)}
    said = [_not_below(name, found) for name, found in rivals.items() if name not in ahead]
    if ahead:
        *most, last = [_below(name, found, " of ReLU's" * (not n)) for n, (name, found) in enumerate(ahead.items())]
        lower = f"{', '.join(most)} and {last}" if most else last
        said.insert(0, f"SmeLU has no more PD at no more log loss than {lower}")
    said += [_beaten(name, found) for name, found in rivals.items() if any(one.beaten for one in found)]
    return ". ".join(said)


def _below(name: str, every: list[Against], unit: str) -> str:
    """`GELU (0.39 less)`, `Swish (0.18 to 0.70 less at 5 of 6 settings, 4 beyond doubt)`."""
    found = [one for one in every if one.below]
    gaps = [one.pd - one.lowest for one in found if one.lowest is not None]
    clear = sum(one.clear for one in found)
    places = f" at {len(found)} of {len(every)} settings" if len(every) > 1 else ""
    doubt = "" if clear == len(found) else f", {clear or 'none'} beyond doubt"
    return f"{label(name)} ({_range(number(min(gaps), 2), number(max(gaps), 2))}{unit} less{places}{doubt})"


def _not_below(name: str, found: list[Against]) -> str:
    gaps = [one.lowest - one.pd for one in found if one.lowest is not None]
    why = f"by at least {number(min(gaps), 2)} of ReLU's PD" if gaps else "it does not reach so low a loss"
    return f"SmeLU does not lie below {label(name)} anywhere: {why}"


def _beaten(name: str, every: list[Against]) -> str:
    """`Swish is clearly lower at 1 of 6 settings (beta = 8)`."""
    found = [one for one in every if one.beaten]
    betas = ", ".join(f"{one.beta:g}" for one in found if one.beta is not None)
    places = f" at {len(found)} of {len(every)} settings" if len(every) > 1 else ""
    return f"{label(name)} is clearly lower{places}" + (f" (beta = {betas})" if betas else "")


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
