"""`flicker gate`: pass a candidate, hold it back, or say that the runs cannot tell."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from simulator.config import require
from simulator.decide.evidence import DECIDED, INCONCLUSIVE, REFUSED, fleets, require_swaps
from simulator.errors import FlickerError, SettingError
from simulator.measures.intervals import student_quantile
from simulator.measures.registry import MEASURES
from simulator.measures.words import number, plural, written
from simulator.result import Arm, Result, read_result, worlds_of
from simulator.types import Interval

DECISIVE_SETTINGS = ("k", "candidates", "duplicates", "generations")
"""Settings that change what a swap ratio means, besides the world and the noise."""
SYNTHETIC_SETTINGS = ("queries_per_generation",)
"""Those that do so on the synthetic world alone, where clicks on what is shown are learned."""
MAX_FLEETS = 1_000


@dataclass(frozen=True)
class GateFlags:
    """Pass a candidate, hold it back, or say that the runs cannot tell. For a release pipeline.

    Without --these it speaks about training: another fleet could have come out. Each side then needs two fleets or
    more, and small increases five. With --these it speaks about these very models, of which other users could have
    asked: two files are enough. Several folders a side (other seeds) are one estimate. They may differ in arms, model,
    fleets and device; world, noise and what is asked must be the same, on the made-up world the seeds of both sides
    too.

    Exit code 0 when it passes, 1 when it is held back, 3 when it cannot be told, with one line that says why; 2 when
    the results cannot be compared.
    """

    result: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of the candidate's results."""
    baseline: tuple[Path, ...] = ()
    """Folders of the results that it is held against."""
    max_swap_increase: float | None = None
    """Increase of the swap ratio over the baseline's that is accepted, 0 to 1."""
    max_swaps: float | None = None
    """Or, without a baseline, the swap ratio that is accepted, 0 to 1."""
    measure: str = "pair"
    """The swap measure."""
    these: bool = False
    """Speak about these very models, not about training."""
    inconclusive: Literal["say", "pass", "hold"] = "say"
    """What to do where it cannot be told: `say` so (exit code 3), `pass` or `hold` back."""
    arm: str | None = None
    """The candidate's arm (default: the first of its run)."""
    baseline_arm: str | None = None
    """The baseline's arm (default: the first of its run)."""

    def __post_init__(self) -> None:
        for name in ("max_swap_increase", "max_swaps"):
            value = getattr(self, name)
            require(value is None or 0 <= value <= 1, name.replace("_", "-"), value, "from 0 to 1")
        require(len(self.result) > 0, "result", "(none)", "name a folder")
        hint = "give --baseline DIR and --max-swap-increase X, or --max-swaps X alone"
        increase = self.max_swap_increase is not None
        is_one = increase == bool(self.baseline) != (self.max_swaps is not None)
        require(is_one, "baseline", self.baseline or "(none)", hint)
        require_swaps(self.measure)

    @property
    def allowed(self) -> float:
        """The increase that is accepted; without a baseline the ratio itself."""
        return self.max_swap_increase or self.max_swaps or 0.0


@dataclass(frozen=True)
class SwapEstimate:
    """A swap ratio, estimated from one or more results together."""

    mean: float
    fleets: int
    spread: float | None
    """Variance between fleets; None where one fleet is all there is."""
    users: float
    """Half the width of the 95 % interval that other users alone would give."""

    def half_width(self, fleets: int | None = None) -> float:
        """Half the width of the 95 % interval over fleets and users, with a number of fleets (default: its own)."""
        n = fleets or self.fleets
        if self.spread is None or n < 2:
            return math.inf
        return math.hypot(student_quantile(0.975, n - 1) * math.sqrt(self.spread / n), self.users)

    def interval(self, these: bool) -> Interval:
        """With limits from 0 to 1."""
        half = self.users if these else self.half_width()
        return Interval(self.mean, max(self.mean - half, 0.0), min(self.mean + half, 1.0))


NO_BASELINE = SwapEstimate(0.0, MAX_FLEETS, 0.0, 0.0)
"""The estimate that stands for the baseline where there is none."""


def pooled(runs: list[tuple[Result, Arm]], measure: str) -> SwapEstimate:
    """One estimate from results that are alike but for their seeds.

    Every fleet weighs the same: their variance is that within results and between their means together, (N - 1)
    degrees of freedom from N fleets. On one log all results were asked by the same users, whose part then does not
    shrink; on made-up worlds of several seeds users are others, and their parts add in squares.
    """
    sizes, means, within, users = [], [], [], []
    for run, arm in runs:
        swaps, these = _swaps(arm, measure), _of_these_models(run, arm, measure)
        half, half_by_users, count = _half(swaps), _half_by_users(run, arm, these), fleets(run)
        sizes.append(count)
        means.append(swaps.mean)
        users.append(half_by_users)
        t = student_quantile(0.975, count - 1) if count > 1 else math.inf
        within.append(count * (count - 1) * max(half**2 - half_by_users**2, 0.0) / t**2 if count > 1 else 0.0)
    total = sum(sizes)
    mean = sum(n * m for n, m in zip(sizes, means, strict=True)) / total
    squares = sum(within) + sum(n * (m - mean) ** 2 for n, m in zip(sizes, means, strict=True))
    parts = [n * u / total for n, u in zip(sizes, users, strict=True)]
    shared = not runs[0][0].world.get("has_truth")
    spread = squares / (total - 1) if total > 1 else None
    return SwapEstimate(mean, total, spread, sum(parts) if shared else math.hypot(*parts))


def _half(value: Interval) -> float:
    """Half of an interval's width, whichever side of it was cut off at a limit."""
    return max(value.high - value.mean, value.mean - value.low)


def _half_by_users(run: Result, arm: Arm, these: Interval) -> float:
    """Half of the width that other users alone would give.

    No interval is no certainty: of one query alone nothing is known. Where all of n users' answers are alike (0 or 1),
    with 97.5 % confidence at most 1 - 0.025^(1/n) of all users' differ (Clopper and Pearson 1934).
    """
    if these.known:
        return _half(these)
    counts = [run.config.get("queries"), run.world.get("queries"), run.serving.get("comparisons", {}).get(arm.spec)]
    sizes = [count for count in counts if isinstance(count, (int, float)) and count >= 1]
    if not sizes or these.mean not in (0, 1):
        return math.inf
    users = run.world.get("users")
    return float(1 - 0.025 ** (1 / min([*sizes, users] if isinstance(users, int) and users else sizes)))


def _of_these_models(run: Result, arm: Arm, measure: str) -> Interval:
    """The swap ratio conditional on these models: only users are resampled."""
    estimate = arm.measures.get(f"swaps_these.{measure}")
    if estimate is None and run.kind == "run":
        words = f"no {MEASURES[measure].words} of these very models in its result"
        raise FlickerError(f"arm {arm.spec}: {words}: run it anew")
    return estimate or _swaps(arm, measure)


def gate(flags: GateFlags) -> tuple[list[str], int]:
    """The verdict in one line, and the exit code.

    It passes where the whole 95 % interval of the increase lies within the allowance, and is held back where it lies
    above: each is wrong at most about once in forty. Else it is inconclusive, however large or small the increase: a
    gate that passed what a small run cannot tell would open the surer the less was measured.

    Raises ResultError, or SettingError where the results do not measure the same.
    """
    sides: list[list[tuple[Result, Arm]]] = []
    given = ("result", flags.result, flags.arm, "arm"), ("baseline", flags.baseline, flags.baseline_arm, "baseline-arm")
    for side, folders, spec, setting in given:
        worlds = [world for folder in folders for world in worlds_of(folder)]
        runs = [(run, _arm(run, spec, setting)) for run in map(read_result, worlds)]
        _require_different(runs, worlds, side)
        for (run, _), world in zip(runs, worlds, strict=True):
            require_alike((sides or [runs])[0][0][0], run, world, side)
        sides.append(runs)
    new_runs, old_runs = sides
    if old_runs and new_runs[0][0].world.get("has_truth"):
        _require_same_worlds(new_runs, old_runs)
    new = pooled(new_runs, flags.measure)
    old = pooled(old_runs, flags.measure) if old_runs else NO_BASELINE
    mean, half = new.mean - old.mean, math.hypot(*(s.users if flags.these else s.half_width() for s in (new, old)))
    increase = Interval(mean, mean - half, mean + half)
    line = _line(flags, [new, old], sides, increase)
    if increase.low > flags.allowed:
        return [f"held back: {line}"], REFUSED
    if increase.high <= flags.allowed:
        return [f"passed: {line}"], DECIDED
    verdicts = {"pass": ("passed, inconclusive", DECIDED), "hold": ("held back, inconclusive", REFUSED)}
    verdict, code = verdicts.get(flags.inconclusive, ("inconclusive", INCONCLUSIVE))
    ask = "give predictions of more queries" if new_runs[0][0].kind == "compare" else "ask more --queries"
    return [f"{verdict}: {line}: {_way_to_conclusive([new, old], abs(flags.allowed - mean), flags.these, ask)}"], code


def _line(flags: GateFlags, sides: list[SwapEstimate], runs: list[list[tuple[Result, Arm]]], increase: Interval) -> str:
    """The measured swap ratios, their basis, and the accuracy."""
    new, *old = (side for side in sides if side is not NO_BASELINE)
    text = f"{MEASURES[flags.measure].words} {_written(new, flags.these)}"
    if old:
        increase_text = written(increase) if math.isfinite(increase.high) else number(increase.mean)
        text += f" against {_written(old[0], flags.these)}: increase {increase_text}"
    losses = [[arm.measures["log_loss"].mean for _, arm in side if "log_loss" in arm.measures] for side in runs]
    means = " against ".join(number(sum(side) / len(side), 4) for side in losses if side)
    basis = "these models" if flags.these else " and ".join(plural(side.fleets, "fleet") for side in (new, *old))
    return f"{text}, {number(flags.allowed)} allowed, by {basis}" + (f"; log loss {means}" if means else "")


def _written(side: SwapEstimate, these: bool) -> str:
    half = side.users if these else side.half_width()
    return written(side.interval(these)) if math.isfinite(half) else number(side.mean)


def _way_to_conclusive(sides: list[SwapEstimate], distance: float, these: bool, advice: str) -> str:
    """The way to a conclusive gate, if the estimates stay where they are."""
    known = [side.spread for side in sides if side.spread is not None and side is not NO_BASELINE]
    if these or math.hypot(*(side.users for side in sides)) >= distance:
        one_fleet_note = "" if these or known else "; and one fleet says nothing about training"
        return f"other users could change that: {advice}{one_fleet_note}"
    if not known:
        return "one fleet says nothing about training: run about 2 more fleets of each"
    sides = [replace(side, spread=max(known)) if side.spread is None else side for side in sides]
    for more in range(1, MAX_FLEETS):
        if math.hypot(*(side.half_width(side.fleets + more) for side in sides)) <= distance:
            return f"run about {more} more {'fleet' if more == 1 else 'fleets'} of each"
    return f"more than {MAX_FLEETS:,} fleets would be needed, so near the allowance does it lie"


def _require_different(runs: list[tuple[Result, Arm]], folders: list[Path], setting: str) -> None:
    """Raises SettingError where one result is given twice: the same draws again are no more evidence."""
    folder_of: dict[Any, Path] = {}
    for (run, _), folder in zip(runs, folders, strict=True):
        identity = run.config.get("seed", folder.resolve()) if run.kind == "run" else folder.resolve()
        if identity in folder_of:
            hint = f"the same seed as {folder_of[identity]}: give runs of different --seed"
            raise SettingError(setting, folder, hint)
        folder_of[identity] = folder


def _require_same_worlds(new: list[tuple[Result, Arm]], old: list[tuple[Result, Arm]]) -> None:
    """Raises SettingError where two sides did not see the same made-up worlds: each is drawn from its seed."""
    worlds = [sorted((run.config.get("seed", 0), fleets(run)) for run, _ in side) for side in (new, old)]
    if len(new) == len(old) == 1:
        worlds = [[(seed, 0) for seed, _ in side] for side in worlds]
    if worlds[0] != worlds[1]:
        new_seeds, old_seeds = (", ".join(str(seed) for seed, _ in side) for side in worlds)
        hint = f"the candidate's is {new_seeds}: run both with the same --seed and --fleets"
        raise SettingError("baseline", f"seed {old_seeds}", hint)


def require_alike(candidate: Result, other: Result, folder: Path, setting: str) -> None:
    """Raises SettingError for the first setting by which the numbers of two results do not mean the same.

    `folder` is that of the other. Arms, model, fleets, device and seed may differ.
    """
    new, old = _meaning(candidate), _meaning(other)
    for name in new | old:
        expected, actual = (meanings.get(name, "not recorded") for meanings in (new, old))
        if expected != actual:
            flag = "data" if name.startswith("world's") else name.rpartition(".")[2].replace("_", "-")
            hint = f"run both with the same --{flag}" + (", or both without" if flag == "data" else "")
            if name == "kind":
                hint = "make both by one command, `flicker compare` or `flicker run`"
            elif candidate.kind == "compare":
                hint = "compare files of the same queries, with the same --k"
            actual, expected = ("not set" if value is None else value for value in (actual, expected))
            raise SettingError(setting, folder, f"its {name} is {actual}, the candidate's {expected}: {hint}")


def _meaning(run: Result) -> dict[str, Any]:
    """Settings that decide what a swap ratio means, by name: of a log its name and length, not its path."""
    meaning = {"kind": run.kind, "world's name": run.world.get("name")}
    if run.kind != "run":  # of files of predictions, the slates and who asked
        return meaning | {"k": run.config.get("k"), "world's number of users": run.world.get("users")}
    for section in ("world", "noise"):
        values = run.config.get(section)
        if isinstance(values, dict):
            meaning |= {f"{section}.{name}": value for name, value in values.items() if name not in ("kind", "path")}
    names = DECISIVE_SETTINGS + (SYNTHETIC_SETTINGS if run.world.get("has_truth") else ())
    meaning |= {name: run.config[name] for name in names if name in run.config}
    counts = {"learned": "learned", "held_out": "held-out"}
    return meaning | {f"world's number of {word} events": run.world.get(name) for name, word in counts.items()}


def _arm(result: Result, spec: str | None, setting: str) -> Arm:
    if spec is None:
        return result.arms[0]
    matches = [arm for arm in result.arms if arm.spec == spec]
    if not matches:
        raise SettingError(setting, spec, f"the run has {', '.join(arm.spec for arm in result.arms)}")
    return matches[0]


def _swaps(arm: Arm, measure: str) -> Interval:
    ratio = arm.measures.get(f"swaps.{measure}")
    if ratio is None:
        raise FlickerError(f"arm {arm.spec}: no {MEASURES[measure].words} in its result: use another --measure")
    return ratio
