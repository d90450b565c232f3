"""The article's claims about activations, each decided by intervals: it holds, holds partly, does not, or was not
measured.

What margins and intervals decide is in doubt.py. Nothing is corrected for having looked at several settings: the best
of many looks better than it is.
"""

from __future__ import annotations

from simulator.figures.doubt import SAME, Finding, Verdict, between, no_worse
from simulator.figures.frontier import against, statement
from simulator.figures.sweep import AGAIN, LINEAR_FROM, family, has, relative, swept
from simulator.measures.intervals import Interval
from simulator.report.result import Arm
from simulator.report.words import label, number, percent, written

HALF = 0.5
LOSSES = ("log_loss", "ranking_loss")
RIVALS = ("swish", "gelu", "softplus")
TOO_WIDE = 2.0
"""An A/A run whose ratio of PD may be as large as this could not have shown a difference that matters."""
WORDS = {"pd": "PD", "log_loss": "log loss"}
DOUBT = "not beyond doubt"


def halving(arms: dict[str, Arm]) -> Finding:
    """Claim 1: smooth activations at least halve PD, at no worse ranking loss and log loss."""
    smelu = [(b, a) for b, a in swept(arms, "smelu") if 0 < b < LINEAR_FROM and has(a, "pd", *LOSSES)]
    if not smelu:
        return Finding("not measured", "no SmeLU beside ReLU in one condition")
    fair = [(b, arm) for b, arm in smelu if all(no_worse(relative(arm, loss)) for loss in LOSSES)]
    hoped = [pair for pair in smelu if pair in fair or all(relative(pair[1], loss).mean <= 1 for loss in LOSSES)]
    sure = [(b, arm) for b, arm in fair if relative(arm, "pd").high <= HALF]
    likely = [(b, arm) for b, arm in hoped if relative(arm, "pd").mean <= HALF and relative(arm, "pd").high < 1]
    halved = sure or likely
    told = "log_loss" if halved else "pd"  # of those that halve it the most accurate, else the nearest
    best = min(halved or hoped or smelu, key=lambda pair: relative(pair[1], told).mean)[1]
    figures = (
        f"{label(best.spec)} has {written(relative(best, 'pd'), 2)} of ReLU's PD, "
        f"{written(relative(best, 'log_loss'), 3)} of its log loss and "
        f"{written(relative(best, 'ranking_loss'), 3)} of its ranking loss"
    )
    linear = arms.get("linear")
    if linear and has(linear, "pd", "log_loss"):
        figures += (
            f"; the linear model has {written(relative(linear, 'pd'), 2)} of ReLU's PD and "
            f"{written(relative(linear, 'log_loss'), 3)} of its log loss"
        )
    if sure:
        return Finding("holds", f"SmeLU with beta {_betas(sure)} at least halves PD beyond doubt: {figures}")
    if likely:
        return Finding("partly", f"SmeLU with beta {_betas(likely)} halves PD, but not beyond doubt: {figures}")
    return Finding("not", f"No SmeLU setting is seen to halve PD at no worse accuracy: {figures}")


def below_rivals(arms: dict[str, Arm]) -> Finding:
    """Claim 2: SmeLU lies on or below the curves of Swish, GELU and Softplus over some range of the plane."""
    smelu = [arm for beta, arm in swept(arms, "smelu") if beta and has(arm, "pd", "log_loss")]
    found = {
        name: [
            against(smelu, arm) for spec, arm in arms.items() if family(spec)[0] == name and has(arm, "pd", "log_loss")
        ]
        for name in RIVALS
    }
    measured = {name: rivals for name, rivals in found.items() if rivals}
    if not smelu or not measured:
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
    fall, rise = relative(arm, "log_loss"), between(last[1], arm, "log_loss")
    up = f"{percent(rise.mean - 1)} to beta = {last[0]:g}"
    falls, rises = fall.high < 1, rise.low > 1
    if best == 0:
        return Finding("not", f"No setting of beta has less log loss than ReLU: it rises by {up}{_unsure(rises)}")
    down = f"{percent(1 - fall.mean)} to beta = {best:g}"
    if best == last[0]:
        return Finding("not", f"No U in beta: log loss falls by {down}, the largest that was tried{_unsure(falls)}")
    if falls and rises:
        return Finding("holds", f"A U in beta: log loss falls by {down} and rises again by {up}")
    if rises:
        return Finding("partly", f"Log loss rises by {up}; a fall by {down} before is {DOUBT}")
    if falls:
        then = ", then levels off" if no_worse(rise) else "; whether it then rises is open"
        return Finding("partly", f"Log loss falls by {down}{then}: a rise by {up} is {DOUBT}")
    return Finding("not measured", f"Log loss falls by {down} and rises by {up}, but neither is beyond doubt")


def _unsure(sure: bool) -> str:
    return "" if sure else f", {DOUBT}"


def limit(arms: dict[str, Arm]) -> Finding:
    """Claim 3b: the limit of large beta is the linear model, in PD and log loss."""
    smelu, linear = swept(arms, "smelu"), arms.get("linear")
    if linear is None or len(smelu) < 2 or smelu[-1][0] < 10:
        return Finding("not measured", "needs the linear model and a SmeLU with beta of 10 or more in one condition")
    beta, arm = smelu[-1]
    if not has(arm, "pd", "log_loss") or not has(linear, "pd", "log_loss"):
        return Finding("not measured", "ReLU's PD is 0: there are no ratios to it")
    figures = (
        f"SmeLU at beta = {beta:g} has {number(relative(arm, 'pd').mean, 2)} of ReLU's PD and "
        f"{number(relative(arm, 'log_loss').mean, 4)} of its log loss, the linear model "
        f"{number(relative(linear, 'pd').mean, 2)} and {number(relative(linear, 'log_loss').mean, 4)}"
    )
    gaps = {name: _difference(arm, linear, name) for name in SAME}
    figures += f"; differences {written(gaps['pd'], 2)} and {written(gaps['log_loss'], 4)}"
    met = [WORDS[name] for name, gap in gaps.items() if -SAME[name] <= gap.low and gap.high <= SAME[name]]
    off = [
        WORDS[name] for name, gap in gaps.items()
        if WORDS[name] not in met and not gap.low <= 0 <= gap.high and abs(gap.mean) > SAME[name]
    ]  # fmt: skip
    open_ = [WORDS[name] for name in gaps if WORDS[name] not in met + off]
    if off and not met:
        return Finding("not", f"The limit does not meet the linear model in {' and '.join(off)}: {figures}")
    if len(met) == len(gaps):
        return Finding("holds", f"The limit meets the linear model beyond doubt: {figures}")
    parts = [f"in {' and '.join(words)} {how}" for words, how in (
        (met, "beyond doubt"), (open_, DOUBT), (off, "not")) if words]  # fmt: skip
    return Finding("partly", f"The limit meets the linear model {', '.join(parts)}: {figures}")


def _difference(arm: Arm, other: Arm, measure: str) -> Interval:
    """Of two ratios to ReLU."""
    ratio, size = between(arm, other, measure), relative(other, measure).mean
    return Interval(*(size * (part - 1) for part in (ratio.mean, ratio.low, ratio.high)))


def floor(arms: dict[str, Arm]) -> Finding:
    """An A/A run: the same arm twice, of which each gets its own draws, differs by no more than chance.

    Of three intervals that cover 95 % one or more leaves out 1 in up to 15 % of such runs: one is no surprise.
    """
    again = arms.get(AGAIN)
    if again is None or not has(again, "pd", "pair", "log_loss"):
        return Finding("not measured", "needs an A/A run, such as --arms relu relu")
    ratios = {word: relative(again, name) for name, word in (("pd", "PD"), ("pair", "pair swaps"))}
    ratios["log loss"] = relative(again, "log_loss")
    off = [word for word, ratio in ratios.items() if not ratio.low <= 1 <= ratio.high]
    say = "ReLU again has " + ", ".join(
        f"{written(ratio, 3 if word == 'log loss' else 2)} of its own {word}" for word, ratio in ratios.items()
    )
    say += f"; the interval leaves out 1 in {' and '.join(off)}" if off else ""
    if len(off) <= 1 and ratios["PD"].high >= TOO_WIDE:
        return Finding("not measured", f"{say}: too wide to show a difference")
    verdicts: tuple[Verdict, ...] = ("holds", "holds", "partly", "not")
    return Finding(verdicts[len(off)], say + ("; one of three is no surprise" if len(off) == 1 else ""))


def _betas(found: list[tuple[float, Arm]]) -> str:
    return ", ".join(f"{beta:g}" for beta, _ in found)
