"""What the cells found: a line of JSON each, small enough to be kept with the source, from which work goes on anywhere.

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
"""Unit (seed) -> what an arm gave there."""


@dataclass(frozen=True)
class Line:
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


def line_of(result: Result, place: Mapping[str, str], arguments: Sequence[str]) -> Line:
    """What is kept of a cell's result."""
    accuracy = ("log_loss", "ranking_loss", "auc", "ndcg", "recall")
    return Line(
        world=place["world"],
        group=place["group"],
        seed=int(place["seed"]),
        arguments=list(arguments),
        arms={arm.spec: _values(arm, result) for arm in result.arms},
        baselines={
            name: {one: _short(its[one].mean) for one in accuracy if one in its}
            for name, its in result.baselines.items()
        },
        seconds=result.seconds,
        flicker=result.flicker,
        events=int(result.world["learned"]),
    )


def _values(arm: Arm, result: Result) -> Values:
    found = {short: arm.measures[name].mean for short, name in LATE.items() if name in arm.measures}
    for short, (start, stop, name) in EARLY.items():
        total = result.world["learned"]
        inside = [g.arms[arm.spec] for g in result.generations if start * total < g.events <= stop * total]
        values = [measures[name].mean for measures in inside if name in measures]
        if values:
            found[short] = float(np.mean(values))
    found |= {name: arm.costs[name] for name in COSTS if name in arm.costs}
    return {name: _short(value) for name, value in found.items()}


def _short(value: float) -> float:
    """Six digits, which is more than a run of another machine has in common with this one."""
    return float(f"{value:.6g}")


def read_lines(path: Path) -> list[Line]:
    """The cells in a file; none where there is no file. Raises ResultError naming the line that is damaged."""
    if not path.exists():
        return []
    found = []
    for row, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found.append(Line(**json.loads(text)))
        except (ValueError, TypeError):
            raise ResultError(f"{path}:{row}: no cell of flicker article: delete the line, and run it again") from None
    return found


def write_lines(path: Path, lines: Iterable[Line]) -> None:
    """Replace the file in one step; cells by world, group and seed, so that two files can be compared."""
    ordered = sorted(lines, key=lambda line: (line.world, line.group, line.seed))
    write_atomically(path, "".join(json.dumps(asdict(line)) + "\n" for line in ordered).encode())


@dataclass(frozen=True)
class World:
    """All cells of one world: group -> spec -> unit (seed) -> values."""

    name: str
    groups: dict[str, dict[str, Units]] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)

    def units(self, group: str, spec: str) -> Units:
        """Unit -> what a spec gave there; empty where it was not run."""
        return self.groups.get(group, {}).get(spec, {})


def worlds(lines: Iterable[Line]) -> dict[str, World]:
    """The lines by world."""
    found: dict[str, World] = {}
    for line in lines:
        world = found.setdefault(line.world, World(line.world))
        world.lines.append(line)
        for spec, values in line.arms.items():
            world.groups.setdefault(line.group, {}).setdefault(spec, {})[line.seed] = values
    return found


def over_units(values: Sequence[float]) -> Interval:
    """Mean of units and its 95 % interval, Student's t; of one unit no interval is known: unbounded."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Interval(mean, -math.inf, math.inf)
    half = student_quantile(0.975, n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def ratio(own: Mapping[int, Values], base: Mapping[int, Values], measure: str, its: str = "") -> Interval | None:
    """`measure` of one divided by that (or `its`) of the other, paired by unit, on the log scale; None where it has no
    value, or is 0, in a unit of either."""
    shared = sorted(own.keys() & base.keys())
    pairs = [(own[unit].get(measure, 0.0), base[unit].get(its or measure, 0.0)) for unit in shared]
    if not pairs or min(map(min, pairs)) <= 0:
        return None
    return exponential(over_units([math.log(one / other) for one, other in pairs]))


def mean(units: Mapping[int, Values], measure: str) -> Interval | None:
    """Over units, of a measure that is never negative; None where one has no value."""
    values = [own[measure] for own in units.values() if measure in own]
    if not values or len(values) < len(units):
        return None
    found = over_units(values)
    return replace(found, low=max(found.low, 0.0))


def exponential(interval: Interval) -> Interval:
    """From logarithms back."""
    return Interval(*(math.exp(min(value, 300.0)) for value in (interval.mean, interval.low, interval.high)))


def times(value: Interval | None, places: int = 2) -> str:
    """A ratio as people read it: `× 0.86 (0.75 to 0.99)`."""
    return f"× {written(value, places)}" if value else DASH


def roughly(value: Interval | None, places: int = 2) -> str:
    """The same without its interval: `× 2.8`."""
    return f"× {number(value.mean, places)}" if value else DASH
