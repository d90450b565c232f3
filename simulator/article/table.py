"""Results of the cells: a line of JSON each, small enough to be kept with the source; a run resumes from them anywhere.

    {"world": "mind", "group": "norms", "seed": 3, "arguments": [...], "arms": {"relu:lr=0.08": {"pd": 0.15, ...}}, ...}

Values are means over a cell's pairs of duplicates; intervals are made here, over units (seeds).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from simulator.errors import ResultError
from simulator.files import write_atomically
from simulator.measures.intervals import Interval, student_quantile
from simulator.result import Arm, Result
from simulator.words import DASH, number, written

_CAUSES = {"": "swaps", "refresh_": "refresh_swaps", "both_": "both_swaps"}
_PLAIN = ("pd", "pd_ranking", "log_loss", "ranking_loss", "auc", "ndcg", "recall", "personalisation")
LATE = {name: name for name in _PLAIN} | {
    f"{short}{name}": f"{cause}.{name}" for name in ("pair", "slot") for short, cause in _CAUSES.items()
}
"""Short name -> measure of the final measurement: held-out events, and queries after all is learned."""
EARLY = {"early_loss": (0.1, 0.3, "progressive_log_loss"), "part_loss": (0.1, 0.5, "progressive_log_loss"),
         "part_pd": (0.1, 0.5, "pd"), "part_pair": (0.1, 0.5, "swaps.pair")}  # fmt: skip
"""Short name -> shares of the log between which generations are averaged, and what of them."""
COSTS = ("train_seconds", "score_seconds", "lookups", "parameters", "model_bytes", "train_bytes")

Values = dict[str, float]
Units = dict[int, Values]
"""Unit (seed) -> values of an arm."""


@dataclass(frozen=True)
class CellResult:
    """One finished cell."""

    world: str
    group: str
    seed: int
    arguments: list[str]
    """Of `flicker run`; a log is called by its name."""
    arms: dict[str, Values]
    """Spec -> LATE, EARLY and COSTS."""
    baselines: dict[str, Values]
    """Accuracy of what every arm should beat, and of the oracle."""
    seconds: float
    """Wall clock of the run."""
    flicker: str
    """Version that ran it."""
    events: int = 0
    """Learned by each model."""

    @property
    def name(self) -> str:
        """Of its cell."""
        return f"{self.world} {self.group} {self.seed}"


def line_of(result: Result, place: Mapping[str, str], arguments: Sequence[str]) -> CellResult:
    """The part of a cell's result that is kept."""
    accuracy = ("log_loss", "ranking_loss", "auc", "ndcg", "recall")
    return CellResult(
        world=place["world"],
        group=place["group"],
        seed=int(place["seed"]),
        arguments=list(arguments),
        arms={arm.spec: _values(arm, result) for arm in result.arms},
        baselines={
            name: {key: _short(found[key].mean) for key in accuracy if key in found}
            for name, found in result.baselines.items()
        },
        seconds=result.seconds,
        flicker=result.flicker,
        events=int(result.world["learned"]),
    )


def _values(arm: Arm, result: Result) -> Values:
    values_of_arm = {short: arm.measures[name].mean for short, name in LATE.items() if name in arm.measures}
    for short, (start, stop, name) in EARLY.items():
        total = result.world["learned"]
        generations = [g.arms[arm.spec] for g in result.generations if start * total < g.events <= stop * total]
        values = [measures[name].mean for measures in generations if name in measures]
        if values:
            values_of_arm[short] = float(np.mean(values))
    values_of_arm |= {name: arm.costs[name] for name in COSTS if name in arm.costs}
    return {name: _short(value) for name, value in values_of_arm.items()}


def _short(value: float) -> float:
    """Six digits, which is more than a run of another machine has in common with this one."""
    return float(f"{value:.6g}")


def read_lines(path: Path) -> list[CellResult]:
    """The cells in a file; none where there is no file. Raises ResultError naming the line that is damaged."""
    if not path.exists():
        return []
    lines = []
    for row, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            lines.append(CellResult(**json.loads(text)))
        except (ValueError, TypeError):
            raise ResultError(f"{path}:{row}: no cell of flicker article: delete the line, and run it again") from None
    return lines


def write_lines(path: Path, lines: Iterable[CellResult]) -> None:
    """Replace the file in one step; cells by world, group and seed, so that two files can be compared."""
    ordered = sorted(lines, key=lambda line: (line.world, line.group, line.seed))
    write_atomically(path, "".join(json.dumps(asdict(line)) + "\n" for line in ordered).encode())


@dataclass(frozen=True)
class WorldCells:
    """All cells of one world: group -> spec -> unit (seed) -> values."""

    name: str
    groups: dict[str, dict[str, Units]] = field(default_factory=dict)
    lines: list[CellResult] = field(default_factory=list)

    def units(self, group: str, spec: str) -> Units:
        """Unit -> values of a spec; empty where it was not run."""
        return self.groups.get(group, {}).get(spec, {})


def worlds(lines: Iterable[CellResult]) -> dict[str, WorldCells]:
    """The lines by world."""
    by_name: dict[str, WorldCells] = {}
    for line in lines:
        world = by_name.setdefault(line.world, WorldCells(line.world))
        world.lines.append(line)
        for spec, values in line.arms.items():
            world.groups.setdefault(line.group, {}).setdefault(spec, {})[line.seed] = values
    return by_name


def over_units(values: Sequence[float]) -> Interval:
    """Mean of units and its 95 % interval, Student's t; of one unit no interval is known: unbounded."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Interval(mean, -math.inf, math.inf)
    half = student_quantile(0.975, n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def ratio(
    numerator: Mapping[int, Values], denominator: Mapping[int, Values], measure: str, base_measure: str = ""
) -> Interval | None:
    """`measure` of one divided by that (or `its`) of the other, paired by unit, on the log scale; None where it has no
    value, or is 0, in a unit of either."""
    shared = sorted(numerator.keys() & denominator.keys())
    below = base_measure or measure
    pairs = [(numerator[unit].get(measure, 0.0), denominator[unit].get(below, 0.0)) for unit in shared]
    if not pairs or min(map(min, pairs)) <= 0:
        return None
    return exponential(over_units([math.log(first / second) for first, second in pairs]))


def mean(units: Mapping[int, Values], measure: str) -> Interval | None:
    """Over units, of a measure that is never negative; None where one has no value."""
    values = [values_of_unit[measure] for values_of_unit in units.values() if measure in values_of_unit]
    if not values or len(values) < len(units):
        return None
    interval = over_units(values)
    return replace(interval, low=max(interval.low, 0.0))


def exponential(interval: Interval) -> Interval:
    """From logarithms back."""
    return Interval(*(math.exp(min(value, 300.0)) for value in (interval.mean, interval.low, interval.high)))


def times(value: Interval | None, places: int = 2) -> str:
    """A ratio as people read it: `× 0.86 (0.75 to 0.99)`."""
    return f"× {written(value, places)}" if value else DASH


def roughly(value: Interval | None, places: int = 2) -> str:
    """The same without its interval: `× 2.8`."""
    return f"× {number(value.mean, places)}" if value else DASH
