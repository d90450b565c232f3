"""From finished runs to a decision: `flicker recommend` chooses an arm, `flicker gate` holds back a candidate.

Both read result folders. Runs of one seed share users, initialisations and draws, runs of two seeds do not. A folder
holds no draws by which two runs could be paired, so that their difference is taken as that of independent estimates,
whose half-widths add in squares (Zou and Donner 2008): where runs share, the interval is too wide, never too narrow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from simulator.config import require
from simulator.errors import FlickerError, SettingError
from simulator.measures.intervals import Interval
from simulator.report.words import label, number, written
from simulator.result import Arm, Result, read_result

Swaps = Literal["slot", "top1", "set", "pair", "rbo"]
Accuracy = Literal["log_loss", "ranking_loss", "auc"]
WORDS = {
    "slot": "slot swaps",
    "top1": "top-1 swaps",
    "set": "set swaps",
    "pair": "pair swaps",
    "rbo": "RBO distance",
    "log_loss": "log loss",
    "ranking_loss": "ranking loss",
    "auc": "AUC",
}
DECISIVE = ("k", "candidates", "duplicates", "generations")
"""Settings that change what a swap ratio means, besides the world and the noise."""
MADE_UP = ("seed", "queries_per_generation")
"""Those that do so on the synthetic world alone: it is drawn from the seed, and clicks on what is shown are learned."""


@dataclass(frozen=True)
class RecommendFlags:
    """Name the arm with the best accuracy among those whose swap ratio is within a budget, and what it costs.

    Exit code 0 when there is one, 1 when no arm is within the budget.
    """

    result: Annotated[Path, tyro.conf.Positional]
    """Folder of a finished run."""
    swap_budget: float
    """Swap ratio between two duplicates that is accepted, 0 to 1."""
    measure: Swaps = "pair"
    """The swap measure that the budget is for."""
    accuracy: Accuracy = "log_loss"
    """What is best: the lowest log_loss or ranking_loss, or the highest auc."""

    def __post_init__(self) -> None:
        require(0 <= self.swap_budget <= 1, "swap-budget", self.swap_budget, "from 0 to 1")


@dataclass(frozen=True)
class GateFlags:
    """Hold back a candidate that flickers more than chance and an allowance explain. For a release pipeline.

    Both runs need two fleets or more, and small increases five: see simulator/measures/intervals.py. They may differ in
    arms, model, fleets and device, on a log also in the seed; world, noise and what is asked must be the same.

    Exit code 0 when it passes, 1 when it is held back, with one line that says why; 2 when the runs cannot be compared.
    """

    result: Annotated[Path, tyro.conf.Positional]
    """Folder of the candidate's finished run."""
    baseline: Path
    """Folder of the run that it is held against."""
    max_swap_increase: float
    """Increase of the swap ratio that is accepted, 0 to 1."""
    measure: Swaps = "pair"
    """The swap measure."""
    arm: str | None = None
    """The candidate's arm (default: the first of its run)."""
    baseline_arm: str | None = None
    """The baseline's arm (default: the first of its run)."""

    def __post_init__(self) -> None:
        require(0 <= self.max_swap_increase <= 1, "max-swap-increase", self.max_swap_increase, "from 0 to 1")


def recommend(flags: RecommendFlags) -> tuple[list[str], int]:
    """What to say, line by line, and the exit code. Raises ResultError for a folder that cannot be read."""
    result = read_result(flags.result)
    measured = [arm for arm in result.arms if flags.accuracy in arm.measures]
    if not measured:
        raise SettingError("accuracy", flags.accuracy, f"{flags.result} has no {WORDS[flags.accuracy]}: use another")
    swaps, budget = WORDS[flags.measure], number(flags.swap_budget)
    within = [arm for arm in measured if _swaps(arm, flags.measure).mean <= flags.swap_budget]
    if not within:
        calmest = min(measured, key=lambda arm: _swaps(arm, flags.measure).mean)
        least = f"the least is {written(_swaps(calmest, flags.measure))}, {label(calmest.spec)}"
        return [f"no arm keeps {swaps} within {budget}: {least}; raise the budget or add smoother arms"], 1
    sign = -1 if flags.accuracy == "auc" else 1
    best, *others = sorted(within, key=lambda arm: sign * arm.measures[flags.accuracy].mean)
    accuracy = f"{WORDS[flags.accuracy]} {written(best.measures[flags.accuracy], 4)}"
    lines = [
        f"{label(best.spec)}: {accuracy}, the best of {len(within)} of {len(result.arms)} arms with {swaps} within "
        f"{budget}",
        f"  {swaps}: {written(_swaps(best, flags.measure))}{_doubt(best, flags)}",
        f"  cost: {_cost(best, result.arms[0])}",
    ]
    lines += [f"  runner-up: {_beside(arm, best, result, flags)}" for arm in others[:1]]
    better = [arm for arm in measured if sign * (arm.measures[flags.accuracy].mean - _mean(best, flags)) < 0]
    lines += [f"  over the budget: {_beside(arm, best, result, flags)}" for arm in better]
    return lines, 0


def gate(flags: GateFlags) -> tuple[list[str], int]:
    """What to say, in one line, and the exit code.

    Held back when the whole 95 % interval of the increase lies above the allowance: of candidates that are no worse
    than it, at most about one in forty is. The interval of a single fleet holds for its initialisation only, and equals
    would be held back far more often. Such runs are refused, whatever their numbers: a gate that let them pass would
    guard nothing and nobody would notice, one that held them back would stop releases by chance. A pipeline that is
    set up so learns it from its first run, before there is a release to lose.

    Raises ResultError, or SettingError where the two runs do not measure the same or have one fleet.
    """
    candidate, baseline = read_result(flags.result), read_result(flags.baseline)
    require_alike(candidate, baseline, flags.baseline)
    for whose, run in (("candidate", candidate), ("baseline", baseline)):
        if fleets(run) < 2:
            why = (
                f"chance could hold back any candidate, as one initialisation is all that the {whose}'s interval covers"
            )
            raise SettingError("fleets", fleets(run), f"{why}: run both with --fleets 2 or more")
    new = _swaps(_arm(candidate, flags.arm, "arm"), flags.measure)
    old = _swaps(_arm(baseline, flags.baseline_arm, "baseline-arm"), flags.measure)
    increase = independent_difference(new, old)
    allowed = f"{number(flags.max_swap_increase)} allowed"
    line = f"{WORDS[flags.measure]} {written(new)} against {written(old)}: increase {written(increase)}, {allowed}"
    if increase.low > flags.max_swap_increase:
        return [f"held back: {line}"], 1
    if increase.high > flags.max_swap_increase:
        return [f"passed, by doubt: {line}; more fleets would tell"], 0
    return [f"passed: {line}"], 0


def require_alike(candidate: Result, baseline: Result, folder: Path) -> None:
    """Raises SettingError for the first setting by which the numbers of two runs do not mean the same.

    `folder` is that of the baseline. Arms, model, fleets and device may differ, on a log the seed as well.
    """
    new, old = _meaning(candidate), _meaning(baseline)
    for name in new | old:
        mine, its = (held.get(name, "not recorded") for held in (new, old))
        if mine != its:
            flag = "data" if name.startswith("world's") else name.rpartition(".")[2].replace("_", "-")
            hint = f"run both with the same --{flag}" + (", or both without" if flag == "data" else "")
            its, mine = ("not set" if value is None else value for value in (its, mine))
            raise SettingError("baseline", folder, f"its {name} is {its}, the candidate's {mine}: {hint}")


def _meaning(run: Result) -> dict[str, Any]:
    """What decides what a swap ratio means, by name. Where a log lies does not: its name and length do."""
    found = {"world's name": run.world.get("name")}
    for section in ("world", "noise"):
        values = run.config.get(section)
        if isinstance(values, dict):
            found |= {f"{section}.{name}": value for name, value in values.items() if name not in ("kind", "path")}
    names = DECISIVE + (MADE_UP if run.world.get("has_truth") else ())
    found |= {name: run.config[name] for name in names if name in run.config}
    counts = {"learned": "learned", "held_out": "held-out"}
    return found | {f"world's number of {word} events": run.world.get(name) for name, word in counts.items()}


def fleets(run: Result) -> int:
    """How many independent fleets its intervals cover; one where the run does not say."""
    value = run.config.get("fleets")
    return value if isinstance(value, int) else 1


def independent_difference(new: Interval, old: Interval) -> Interval:
    """new - old of two independent estimates, with its 95 % interval."""
    mean = new.mean - old.mean
    below = math.hypot(new.mean - new.low, old.high - old.mean)
    above = math.hypot(new.high - new.mean, old.mean - old.low)
    return Interval(mean, mean - below, mean + above)


def _arm(result: Result, spec: str | None, setting: str) -> Arm:
    if spec is None:
        return result.arms[0]
    found = [arm for arm in result.arms if arm.spec == spec]
    if not found:
        raise SettingError(setting, spec, f"the run has {', '.join(arm.spec for arm in result.arms)}")
    return found[0]


def _swaps(arm: Arm, measure: str) -> Interval:
    found = arm.measures.get(f"swaps.{measure}")
    if found is None:
        raise FlickerError(f"arm {arm.spec}: no {WORDS[measure]} in its result: use another --measure")
    return found


def _mean(arm: Arm, flags: RecommendFlags) -> float:
    return arm.measures[flags.accuracy].mean


def _doubt(arm: Arm, flags: RecommendFlags) -> str:
    over = _swaps(arm, flags.measure).high > flags.swap_budget
    return "; the interval reaches over the budget: more fleets would tell" if over else ""


def _beside(arm: Arm, best: Arm, result: Result, flags: RecommendFlags) -> str:
    """Another arm beside the winner, paired with it, and whether the run can tell the two apart."""
    words, own = WORDS[flags.accuracy], arm.measures[flags.accuracy]
    line = f"{label(arm.spec)}, {words} {written(own, 4)}, {WORDS[flags.measure]} {written(_swaps(arm, flags.measure))}"
    ratio = arm.ratio(best, flags.accuracy)
    if ratio is None:
        return line
    apart = ratio.known and not ratio.low <= 1 <= ratio.high
    only = ", for the one initialisation of this run" if apart and fleets(result) < 2 else ""
    return f"{line}; × {written(ratio, 4)} of the winner's {words}, {'' if apart else 'not '}told apart{only}"


def _cost(arm: Arm, base: Arm) -> str:
    """What training and serving take, as ratios to the first arm."""
    if arm is base:
        return "none: it is the first arm of the run, what others are compared with"
    words = {
        "train_seconds": "training time",
        "score_seconds": "scoring time",
        "lookups": "look-ups",
        "parameters": "parameters",
        "model_bytes": "memory served",
        "train_bytes": "memory in training",
    }
    parts = [
        f"{word} × {number(ratio, 2)}"
        for name, word in words.items()
        if (ratio := arm.cost_ratio(base, name)) is not None
    ]
    return f"{', '.join(parts)} of {label(base.spec)}"
