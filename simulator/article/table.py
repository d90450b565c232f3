"""Results of the cells, a line of JSON each, small enough to be kept with the source; means and ratios over units; and
Pareto frontiers of instability against log loss, of one family of settings against another's (docs/protocol.md).

    {"world": "mind", "group": "norms", "seed": 3, "arguments": [...], "arms": {"relu:lr=0.08": {"pd": 0.15, ...}}, ...}

Values are means over a cell's pairs of duplicates; intervals are made here, over units (seeds). A family is what one
would choose among: an activation under a norm, over its strength and its learning rate.
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
from simulator.measures.intervals import student_quantile
from simulator.measures.words import DASH, number, written
from simulator.result import Arm, Result
from simulator.types import Interval

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
