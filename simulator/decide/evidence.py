"""What an interval shows, and whether a model has learned enough to be advised on."""

from __future__ import annotations

import math
from typing import Literal

from simulator.config import require
from simulator.measures.registry import GAP, MEASURES
from simulator.measures.words import number, written
from simulator.result import ORACLE, Arm, Result
from simulator.types import Interval, exact

DECIDED, REFUSED, INCONCLUSIVE = 0, 1, 3
"""Exit codes: passed or chosen, held back or over the budget, cannot be told; 2 is for what cannot be used."""
OF_BASELINE = {
    "constant": "the base rate",
    "popularity": "item popularity",
    "recent": "recent popularity",
    "logistic": "a logistic regression",
}


def compared(ratio: Interval | None) -> Literal["less", "more", "unclear"]:
    """Which side of 1 a ratio is on, its whole interval considered; what has none shows nothing (but 0, see ratio)."""
    if ratio is None or not (ratio.known or ratio.mean == 0):
        return "unclear"
    if ratio.high < 1:
        return "less"
    return "more" if ratio.low > 1 else "unclear"


def ratio_to(arm: Arm, base: Arm, name: str) -> Interval | None:
    """The result's ratio of a measure to `base`, its first arm, else of two independent estimates; None for x/0."""
    if arm is base:
        return exact(1)
    if name == GAP:  # no ratio of what may be on either side of 0
        return None
    paired = arm.ratios.get(name.removeprefix("swaps.").replace("_swaps.", "_"))
    if paired is not None or name not in arm.measures or name not in base.measures:
        return paired
    return independent_ratio(arm.measures[name], base.measures[name])


def independent_ratio(new: Interval, old: Interval) -> Interval | None:
    """new / old of two independent estimates, half-widths on the log scale added in squares; None for x/0.

    Where one of them has no interval, nothing is known of the ratio's; nor where the old one may be 0.
    """
    if old.mean == 0:
        return None
    if new.mean == 0:
        return Interval(0, 0, 0 if old.known and old.low > 0 else math.inf)
    if not (new.known and old.known):
        return Interval(new.mean / old.mean, 0.0, math.inf)

    def log_distance(far: float, near: float) -> float:
        return math.log(far / near) if near > 0 else math.inf

    mean = new.mean / old.mean
    below = math.hypot(log_distance(new.mean, new.low), log_distance(old.high, old.mean))
    above = math.hypot(log_distance(new.high, new.mean), log_distance(old.mean, old.low))
    return Interval(mean, mean * math.exp(-below), mean * math.exp(min(above, 300.0)))


def fleets(run: Result) -> int:
    """Number of independent fleets that its intervals cover, of all seeds; one where it is unknown."""
    value = run.config.get("fleets")
    seeds = len(run.config.get("seeds", [])) or int(run.config.get("worlds", 1))
    return seeds * (value if isinstance(value, int) else 1)


def silent(result: Result) -> bool:
    """Whether all duplicates of all arms agreed exactly."""
    names = ("pd", *(f"swaps.{name}" for name in MEASURES))
    return all(arm.measures[name].high == 0 for arm in result.arms for name in names if name in arm.measures)


def repeats(arm: Arm, base: Arm) -> bool:
    """Whether two arms are independent sets of one design, as in an A/A run."""
    return arm is not base and arm.spec.partition("#")[0] == base.spec.partition("#")[0]


def best(result: Result) -> Arm:
    """The arm to compare with the first: fewest pair swaps among those whose log loss is not shown to be higher.

    Another design goes before a second set of the first one's (`relu#2`).
    """
    base, rest = result.arms[0], result.arms[1:]
    rest = [arm for arm in rest if not repeats(arm, base)] or rest
    non_inferior = [arm for arm in rest if compared(ratio_to(arm, base, "log_loss")) != "more"]
    return min(non_inferior or rest or [base], key=lambda arm: arm.measures.get("swaps.pair", exact(math.inf)).mean)


def too_little(arm: Arm, result: Result) -> str:
    """Why a model has learned too little to advise, empty where it has not, or where nothing is known."""
    auc, loss = arm.measures.get("auc"), arm.measures.get("log_loss")
    if auc is not None and auc.low <= 0.5:
        return f"AUC {written(auc, 3)} is not shown to be above that of guessing"
    beatable = {name: accuracy for name, accuracy in result.baselines.items() if name != ORACLE}
    for name, accuracy in beatable.items():
        baseline = accuracy.get("log_loss")
        if loss is None or baseline is None:
            continue
        ratio = arm.against.get(name, {}).get("log_loss") or independent_ratio(loss, baseline)
        message = f"log loss {number(loss.mean, 4)} is {{}} {OF_BASELINE.get(name, name)}, {number(baseline.mean, 4)}"
        if name == "logistic":
            if compared(ratio) == "more":
                return message.format("above that of")
        elif compared(ratio) != "less":
            return message.format("not shown to be below that of")
    for name, accuracy in beatable.items():
        arm_ndcg, baseline = arm.measures.get("ndcg"), accuracy.get("ndcg")
        if arm_ndcg is not None and baseline is not None:
            ratio = arm.against.get(name, {}).get("ndcg") or independent_ratio(arm_ndcg, baseline)
            if compared(ratio) == "less":
                baseline_words = OF_BASELINE.get(name, name)
                return f"NDCG {number(arm_ndcg.mean, 4)} is below that of {baseline_words}, {number(baseline.mean, 4)}"
    return ""


def require_swaps(name: str) -> None:
    """Raises SettingError where there is no swap measure of that name."""
    known = [measure.name for measure in MEASURES.values() if measure.swap]
    require(name in known, "measure", name, f"one of {', '.join(known)}")
