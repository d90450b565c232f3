"""The article's claims, each decided by intervals: it holds, holds partly, does not, or was not measured.

*Beyond doubt* means that a whole 95 % interval lies on one side. Nothing is corrected for having looked at several
settings: the best of many looks better than it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from simulator.decide import independent_difference
from simulator.figures.frontier import against, log_interval, statement
from simulator.figures.sweep import AGAIN, ensembles_of, family, favourite, has, relative, swept
from simulator.report.result import Arm, Interval
from simulator.report.words import label, number, percent, written

Verdict = Literal["holds", "partly", "not", "not measured"]
HALF = 0.5
RIVALS = ("swish", "gelu", "softplus")
ROUTES = ("swaps.pair", "refresh_swaps.pair", "both_swaps.pair")
"""Pair swaps to another duplicate, to the next generation, and to both: what routing decides between."""


@dataclass(frozen=True)
class Finding:
    """What the numbers say to one claim."""

    verdict: Verdict
    say: str


def halving(arms: dict[str, Arm]) -> Finding:
    """Claim 1: smooth activations at least halve PD, at no worse ranking loss and log loss."""
    smelu = [(b, arm) for b, arm in swept(arms, "smelu") if b > 0 and has(arm, "pd", "log_loss", "ranking_loss")]
    if not smelu:
        return Finding("not measured", "no SmeLU beside ReLU in one condition")
    fair = [(b, arm) for b, arm in smelu if all(relative(arm, loss).low <= 1 for loss in ("log_loss", "ranking_loss"))]
    sure = [(b, arm) for b, arm in fair if relative(arm, "pd").high <= HALF]
    likely = [(b, arm) for b, arm in fair if relative(arm, "pd").mean <= HALF and relative(arm, "pd").high < 1]
    halved = sure or likely
    told = "log_loss" if halved else "pd"  # of those that halve it the most accurate, else the nearest
    best = min(halved or fair or smelu, key=lambda pair: relative(pair[1], told).mean)[1]
    figures = (
        f"{label(best.spec)} has {written(relative(best, 'pd'), 2)} of ReLU's PD, "
        f"{written(relative(best, 'log_loss'), 3)} of its log loss and "
        f"{written(relative(best, 'ranking_loss'), 3)} of its ranking loss"
    )
    if sure:
        return Finding("holds", f"SmeLU with beta {_betas(sure)} at least halves PD beyond doubt: {figures}")
    if likely:
        return Finding("partly", f"SmeLU with beta {_betas(likely)} halves PD, but not beyond doubt: {figures}")
    return Finding("not", f"No SmeLU setting halves PD at no worse accuracy: {figures}")


def below_rivals(arms: dict[str, Arm]) -> Finding:
    """Claim 2: SmeLU lies on or below the curves of Swish, GELU and Softplus over some range of the plane."""
    smelu = [arm for _, arm in swept(arms, "smelu") if has(arm, "pd", "log_loss")]
    found = {
        name: [
            against(smelu, arm) for spec, arm in arms.items() if family(spec)[0] == name and has(arm, "pd", "log_loss")
        ]
        for name in RIVALS
    }
    measured = {name: rivals for name, rivals in found.items() if rivals}
    if len(smelu) < 2 or not measured:
        return Finding("not measured", "needs SmeLU and another smooth activation in one condition")
    say = statement(measured)
    below = [any(one.below for one in rivals) for rivals in measured.values()]
    clear = [any(one.clear for one in rivals) for rivals in measured.values()]
    if all(clear) and len(measured) == len(RIVALS):
        return Finding("holds", say)
    return Finding("partly" if any(below) else "not", say)


def u_shape(arms: dict[str, Arm]) -> Finding:
    """Claim 3a: log loss over beta is U-shaped, so that too much smoothness costs accuracy again."""
    smelu = [(b, arm) for b, arm in swept(arms, "smelu") if has(arm, "log_loss")]
    if len(smelu) < 4:
        return Finding("not measured", "needs three settings of SmeLU's beta beside ReLU in one condition")
    best, arm = min(smelu, key=lambda pair: relative(pair[1], "log_loss").mean)
    last = smelu[-1]
    rise = _rise(last[1], arm)
    fall = relative(arm, "log_loss")
    if best == 0:
        return Finding("not", f"Log loss only rises with beta: by {percent(rise.mean)} at {last[0]:g}")
    gain = f"log loss falls by {percent(1 - fall.mean)} to beta = {best:g}"
    if best == last[0]:
        return Finding("not", f"No U in beta: {gain}, the largest that was tried, and does not rise again")
    again = f"{gain} and rises again by {percent(rise.mean)} to beta = {last[0]:g}"
    if fall.high < 1 and rise.low > 0:
        return Finding("holds", f"A U in beta: {again}")
    which = (
        "neither" if fall.high >= 1 and rise.low <= 0 else "the fall is not" if fall.high >= 1 else "the rise is not"
    )
    return Finding("partly", f"A U in beta: {again}, but {which} beyond doubt")


def _rise(arm: Arm, best: Arm) -> Interval:
    """How much more log loss an arm has than the best one; paired where both are of one run."""
    found = arm.to_best.get("log_loss")
    if found and found.best == best.spec:
        return Interval(*(part - 1 for part in (found.ratio.mean, found.ratio.low, found.ratio.high)))
    return independent_difference(relative(arm, "log_loss"), relative(best, "log_loss"))


def limit(arms: dict[str, Arm]) -> Finding:
    """Claim 3b: the limit of large beta is the linear model, in PD and log loss."""
    smelu, linear = swept(arms, "smelu"), arms.get("linear")
    if linear is None or len(smelu) < 2 or smelu[-1][0] < 10:
        return Finding("not measured", "needs the linear model and a SmeLU with beta of 10 or more in one condition")
    beta, arm = smelu[-1]
    if not has(arm, "pd", "log_loss") or not has(linear, "pd", "log_loss"):
        return Finding("not measured", "ReLU's PD is 0: there are no ratios to it")
    met = [overlaps(relative(arm, name), relative(linear, name)) for name in ("pd", "log_loss")]
    figures = (
        f"SmeLU at beta = {beta:g} has {number(relative(arm, 'pd').mean, 2)} of ReLU's PD and "
        f"{number(relative(arm, 'log_loss').mean, 4)} of its log loss, the linear model "
        f"{number(relative(linear, 'pd').mean, 2)} and {number(relative(linear, 'log_loss').mean, 4)}"
    )
    verdict: Verdict = "holds" if all(met) else "partly" if any(met) else "not"
    word = {"holds": "The limit meets the linear model", "partly": "The limit meets the linear model in part"}
    return Finding(verdict, f"{word.get(verdict, 'The limit does not meet the linear model')}: {figures}")


def ensembles(arms: dict[str, Arm]) -> Finding:
    """Claim 4: an ensemble of m costs m times the look-ups; what it buys against SmeLU at m = 1."""
    found = [(m, arm) for m, arm in ensembles_of(arms, "relu") if has(arm, "pd", "log_loss")]
    best = favourite(arms)
    base = arms["relu"].costs.get("lookups") if "relu" in arms else None
    if not found or not best or not base:
        return Finding("not measured", "needs ensembles, SmeLU and their look-ups in one condition")
    costs = [abs(arm.costs.get("lookups", 0) / base - m) < 1e-9 for m, arm in found]
    m, largest = found[-1]
    say = (
        f"{m} ReLU networks have {_standing(largest)} for {number(largest.costs['lookups'] / base, 0)} times the "
        f"look-ups, {label(best.spec)} has {_standing(best)} for those of one"
    )
    both = [(n, arm) for spec in arms for n, arm in ensembles_of(arms, spec) if spec != "relu" and has(arm, "pd")]
    if both:
        n, smooth = max(both, key=lambda pair: pair[0])
        say += f"; both together, {label(smooth.spec)}, {written(relative(smooth, 'pd'), 2)} for {n} times"
    gap = independent_difference(log_interval(relative(best, "pd")), log_interval(relative(largest, "pd")))
    if all(costs) and relative(largest, "pd").high < 1 and gap.low <= 0:
        return Finding("holds", say)
    return Finding("partly" if all(costs) else "not", say)


def sticky(arms: dict[str, Arm]) -> Finding:
    """Sticky routing: a user is always answered by one duplicate, so that only refreshes change what he sees."""
    shown = [arm for arm in (arms.get("relu"), favourite(arms)) if arm and set(ROUTES) <= arm.measures.keys()]
    if not shown:
        return Finding("not measured", "needs a run of two generations or more")
    told = []
    for arm in shown:
        between, refresh, both = (arm.measures[name] for name in ROUTES)
        told.append(
            f"under {label(arm.spec)} {number(between.mean)} of the pairs swap at random routing, {number(both.mean)} "
            f"over a refresh; at sticky routing none, and {number(refresh.mean)} over a refresh"
        )
    hides = all(arm.measures[ROUTES[0]].low > 0 for arm in shown)
    left = all(arm.measures[ROUTES[1]].low > 0 for arm in shown)
    say = "; ".join(told)
    return Finding("holds" if hides and left else "partly", say[0].upper() + say[1:])


def floor(arms: dict[str, Arm]) -> Finding:
    """An A/A run: the same arm twice, of which each gets its own draws, differs by no more than chance."""
    again = arms.get(AGAIN)
    if again is None or not has(again, "pd", "pair", "log_loss"):
        return Finding("not measured", "needs an A/A run, such as --arms relu relu")
    ratios = {word: relative(again, name) for name, word in (("pd", "PD"), ("pair", "pair swaps"))}
    ratios["log loss"] = relative(again, "log_loss")
    apart = [word for word, ratio in ratios.items() if not ratio.low <= 1 <= ratio.high]
    say = "ReLU again has " + ", ".join(
        f"{written(ratio, 3 if word == 'log loss' else 2)} of its own {word}" for word, ratio in ratios.items()
    )
    return Finding("partly" if apart else "holds", say + (f"; beyond chance in {' and '.join(apart)}" if apart else ""))


def _standing(arm: Arm) -> str:
    return (
        f"{written(relative(arm, 'pd'), 2)} of one's PD and {number(relative(arm, 'log_loss').mean, 3)} of its log loss"
    )


def overlaps(one: Interval, other: Interval) -> bool:
    """Whether the difference of two estimates may be 0."""
    gap = independent_difference(one, other)
    return gap.low <= 0 <= gap.high


def _betas(found: list[tuple[float, Arm]]) -> str:
    return ", ".join(f"{beta:g}" for beta, _ in found)
