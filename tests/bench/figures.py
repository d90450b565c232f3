"""A figure: what was measured, its spread, its target; how it is shown and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

from interleave import Passes
from targets import Target, target

Clock = Literal["cpu", "wall"]


@dataclass(frozen=True)
class Figure:
    """One measured value."""

    name: str
    value: float
    """From medians: a ratio is that of two medians, a speed is work by median time."""
    unit: str
    low: float
    """Smallest of the single passes; of a ratio, of the pairs of passes made one after the other."""
    high: float
    clock: Clock | None
    """What `value`, `low` and `high` were measured in; None for what is no time."""
    by_other_clock: float | None
    """The same value by the other clock, where it has one."""
    medians: dict[str, dict[str, float]]
    """Variant -> median seconds of a pass by either clock."""
    note: str = ""
    """What bounds the figure, or what must be known to read it."""

    @property
    def target(self) -> Target | None:
        """The one of its name."""
        return target(self.name)

    @property
    def met(self) -> bool | None:
        """None where there is no target."""
        return self.target.met_by(self.value) if self.target else None

    def as_json(self) -> dict[str, Any]:
        """An entry of `figures` in the results file."""
        entry = asdict(self) | {"target": self.target.bound if self.target else None, "met": self.met}
        if self.target:
            entry["target_is"] = "at most" if self.target.at_most else "at least"
        return entry


def speed(name: str, unit: str, passes: Passes, work: float, clock: Clock = "cpu") -> Figure:
    """Work (events, queries ...) per second of passes that each do `work`."""
    seconds, others = _by(clock, passes)
    medians = {name: passes.medians()}
    return Figure(
        name, work / median(seconds), unit, work / max(seconds), work / min(seconds), clock, work / median(others),
        medians,
    )  # fmt: skip


def ratio(name: str, passes: dict[str, Passes], over: str, under: str, clock: Clock = "cpu") -> Figure:
    """Time of variant `over` in multiples of the time of variant `under`."""
    (above, others_above), (below, others_below) = _by(clock, passes[over]), _by(clock, passes[under])
    pairs = [a / b for a, b in zip(above, below, strict=True)]
    value, other = median(above) / median(below), median(others_above) / median(others_below)
    medians = {variant: passes[variant].medians() for variant in (over, under)}
    return Figure(name, value, "x", min(pairs), max(pairs), clock, other, medians)


def single(name: str, unit: str, values: Sequence[float], clock: Clock | None = None) -> Figure:
    """The median of values that were measured one by one, in their own unit."""
    return Figure(name, median(values), unit, min(values), max(values), clock, None, {})


def _by(clock: Clock, passes: Passes) -> tuple[list[float], list[float]]:
    """Seconds by the clock, and by the other one."""
    return (passes.cpu, passes.wall) if clock == "cpu" else (passes.wall, passes.cpu)


def shown(value: float) -> str:
    """A number for the table: three decimals for ratios, thousands for speeds."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value == round(value, 2) else f"{value:.3f}"


HEADS = "figure", "value", "lowest to highest", "unit", "clock", "other clock", "target", "met"
TO_THE_RIGHT = "value", "other clock"


def table(figures: Sequence[Figure]) -> str:
    """All figures, one a row."""
    rows = [HEADS]
    for figure in figures:
        rows.append(
            (
                figure.name, shown(figure.value), f"{shown(figure.low)} to {shown(figure.high)}", figure.unit,
                figure.clock or "", "" if figure.by_other_clock is None else shown(figure.by_other_clock),
                str(figure.target or ""), {None: "", True: "yes", False: "NO"}[figure.met],
            )
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [str.rjust if head in TO_THE_RIGHT else str.ljust for head in HEADS]
    lines = [[side(cell, width) for side, cell, width in zip(sides, row, widths, strict=True)] for row in rows]
    return "\n".join("  ".join(cells).rstrip() for cells in lines)
