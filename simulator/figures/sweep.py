"""A finished sweep as the figures need it: its runs, and which of them belong together."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.errors import ResultError, SettingError
from simulator.measures.intervals import Interval, exact
from simulator.models.cures import Ensemble
from simulator.models.specs import parse_arm
from simulator.report.finding import noises
from simulator.report.pool import by_seed
from simulator.result import Arm, Result, read_result
from simulator.words import NAMES, plural

SOURCES = {
    "init": "own initialisation",
    "order": "order of events",
    "lost": "lost mini-batches",
    "delay": "delayed updates",
    "rounding": "rounding to bfloat16",
    "sums": "order of sums",
}
"""Sources of noise, as finding.noises names them, and their words."""
AGAIN = "relu#2"
"""ReLU once more in a run that has it twice, with draws of its own: an A/A run."""
LINEAR_FROM = 100.0
"""From this beta SmeLU is the linear model in all but name: a limit, not a setting that one would choose."""


@dataclass(frozen=True)
class Sweep:
    """All finished cells of a sweep folder, or of one run."""

    folder: Path
    command: str
    runs: list[Result]

    @property
    def world(self) -> str:
        """Name of the world of its runs."""
        return str(self.runs[0].world.get("name", "world"))

    @property
    def duplicates(self) -> int:
        """Models per arm and fleet of the main runs."""
        return int(self.main()[0].config.get("duplicates", 2))

    def main(self) -> list[Result]:
        """The runs of the condition with noise and most arms, alike but for arms and fleets; most fleets first.

        Of several such conditions the one nearest to a window of 16, then the lowest seed.
        """
        groups: dict[str, list[Result]] = {}
        for run in self.runs:
            groups.setdefault(condition(run), []).append(run)
        best = max(groups.values(), key=lambda runs: (bool(noises(runs[0])), _designs(runs), *_usual(runs[0])))
        return sorted(best, key=lambda run: -int(run.config.get("fleets", 1)))

    def arms(self) -> dict[str, Arm]:
        """Each design of the main runs once, the one of most fleets; only runs whose first arm is ReLU."""
        return {spec: arm for spec, (arm, _) in self._with_base().items()}

    def bases(self) -> dict[str, Arm]:
        """ReLU of the run that each of `arms` is of: seconds are compared within a run."""
        return {spec: base for spec, (_, base) in self._with_base().items()}

    def _with_base(self) -> dict[str, tuple[Arm, Arm]]:
        found: dict[str, tuple[Arm, Arm]] = {}
        for run in self.compared():
            for arm in run.arms:
                found.setdefault(arm.spec, (arm, run.arms[0]))
        return found

    def compared(self) -> list[Result]:
        """The main runs that `arms` are of."""
        return [run for run in self.main() if run.arms[0].spec == "relu"]

    def drawn(self, runs: list[Result]) -> str:
        """Which runs a figure draws, and that there are others: their seed, noise, model and fleets."""
        if not runs:
            return ""
        noise, model = ([run.config.get(part, {}) for run in runs] for part in ("noise", "model"))
        own = {seed for run in runs for seed in seeds(run)}
        told = [
            _values("seed", own),
            _values("window", {one.get("window", 0) for one in noise}),
            _values("init", {one.get("init", "same") for one in noise}),
            _values("norm", {one.get("norm", "after") for one in model}),
            _values("fleets", {run.config.get("fleets", 1) for run in runs}),
        ]
        here, there = (sum(len(seeds(run)) for run in held) for held in (runs, self.runs))
        rest = there - here
        say = f"Drawn: {here} of {plural(there, 'run')} ({'; '.join(told)})"
        say += f"; the other {rest} in other figures or in none." if rest else "."
        left = sum(seed not in own for run in self.runs for seed in seeds(run))
        return say + (f" Left out: {plural(left, 'run')} with other seeds." if left else "")


def read_sweep(folder: Path) -> Sweep:
    """Every finished cell of a sweep folder, its seeds pooled; a single run's folder is a sweep of one.

    Raises ResultError.
    """
    if (folder / "result.json").exists():
        run = read_result(folder)
        return Sweep(folder, run.command, [run])
    try:
        command = str(json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["command"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ResultError(f"{folder}: no sweep.json that can be read: name a folder of flicker sweep --out") from None
    cells = [(path.parent, read_result(path.parent)) for path in sorted(folder.glob("cells/*/result.json"))]
    if not cells:
        raise ResultError(f"{folder}: no cell of it is finished: flicker sweep ... --resume --out {folder}")
    worlds = {str(run.world.get("name")) for _, run in cells}
    if len(worlds) > 1:
        raise ResultError(f"{folder}: runs on {' and '.join(sorted(worlds))}: one world per sweep can be drawn")
    return Sweep(folder, command, by_seed(cells))


def seeds(run: Result) -> list[int]:
    """Its seed, or those that were pooled."""
    return list(run.config.get("seeds", [run.config.get("seed", 0)]))


def _values(name: str, values: set[Any]) -> str:
    """`window 4, 16`."""
    return f"{name} {', '.join(str(value) for value in sorted(values))}"


def _usual(run: Result) -> tuple[float, ...]:
    """The larger, the nearer to the condition that is drawn where there is a choice: window 16, seed 0, defaults."""
    noise, norm = run.config.get("noise", {}), run.config.get("model", {}).get("norm")
    return -abs(noise.get("window", 0) - 16), -run.config.get("seed", 0), noise.get("init") == "same", norm == "after"


def _designs(runs: list[Result]) -> int:
    return len({arm.spec for run in runs for arm in run.arms})


def condition(run: Result, *without: str) -> str:
    """All settings but arms and fleets, and those of the sections `without`."""
    kept = {name: value for name, value in run.config.items() if name not in ("arms", "fleets", *without)}
    return json.dumps(kept, sort_keys=True)


def family(spec: str) -> tuple[str, float | None]:
    """`smelu:beta=2` -> ("smelu", 2.0); the sharpness or width is None where a design has none of its own."""
    name, _, settings = spec.partition(":")
    values = dict(part.partition("=")[::2] for part in settings.split(","))
    try:
        return name, float(values["beta"]) if set(values) == {"beta"} else None
    except ValueError:
        return name, None


def ensemble(spec: str) -> tuple[str, int] | None:
    """`ensemble:smelu:beta=2` -> ("smelu:beta=2", 3); None for anything else, one of narrow networks included."""
    try:
        arm = parse_arm(spec)
    except SettingError:  # of a version that knew other arms
        return None
    plain = isinstance(arm.cure, Ensemble) and not arm.cure.narrow and not arm.settings and "#" not in spec
    return (arm.function, arm.cure.m) if plain else None


def ensembles_of(arms: dict[str, Arm], design: str) -> list[tuple[int, Arm]]:
    """Ensembles of one design, with how many networks each has, ascending."""
    found = [(made[1], arm) for spec, arm in arms.items() if (made := ensemble(spec)) and made[0] == design]
    return sorted(found, key=lambda pair: pair[0])


def swept(arms: dict[str, Arm], name: str) -> list[tuple[float, Arm]]:
    """The arms of an activation with their beta, ascending; SmeLU starts with ReLU, which is SmeLU at 0."""
    found = [
        (beta, arm) for spec, arm in arms.items() for own, beta in [family(spec)] if own == name and beta is not None
    ]
    if name == "smelu" and "relu" in arms:
        found.append((0.0, arms["relu"]))
    return sorted(found, key=lambda pair: pair[0])


def favourite(arms: dict[str, Arm]) -> Arm | None:
    """SmeLU as one would take it: the setting of least log loss, short of the linear limit."""
    smelu = [arm for beta, arm in swept(arms, "smelu") if 0 < beta < LINEAR_FROM and has(arm, "pd", "log_loss")]
    return min(smelu, key=lambda arm: relative(arm, "log_loss").mean, default=None)


def is_activation(spec: str) -> bool:
    """Whether an arm is one network with some activation, not an ensemble or another cure."""
    return spec.partition(":")[0] in NAMES and "#" not in spec


def relative(arm: Arm, measure: str) -> Interval:
    """Ratio to ReLU with its paired interval; 1 for ReLU itself."""
    return exact(1) if arm.spec == "relu" else arm.ratios[measure]


def has(arm: Arm, *measures: str) -> bool:
    """Whether all these ratios are known."""
    return arm.spec == "relu" or all(name in arm.ratios for name in measures)
