"""The article's claims, and two beside them, each decided by intervals: it holds, partly, not, or was not measured.

*Beyond doubt* means that a whole 95 % interval lies on one side. An interval that is too wide to tell never makes a
claim hold: that nothing is worse, or that two things are the same, needs one that ends within a margin. Nothing is
corrected for having looked at several settings: the best of many looks better than it is.

**Curves** in the plane of PD against accuracy loss are what an activation gives from sharp to smooth, without ReLU: at
beta = 0 SmeLU is ReLU, whose place is not to its credit. Both axes are ratios to ReLU, each with an interval paired
with ReLU's; two arms of different runs are compared as independent, which makes doubt larger than it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from simulator.decide.evidence import independent_ratio
from simulator.decide.situation import Situation, what_a_user_sees
from simulator.figures.sweep import AGAIN, LINEAR_FROM, Sweep, ensembles_of, family, favourite, has, relative, swept
from simulator.measures.intervals import Interval, exact
from simulator.result import Arm
from simulator.words import label, number, percent, written

Verdict = Literal["holds", "partly", "not", "not measured"]
NO_WORSE = 1.005
"""A loss is no worse where the interval of its ratio ends below this: half a percent is less than SmeLU's best setting
gains on either world of docs/results.md."""
NO_MORE = 1.1
"""PD is no more where the interval of its ratio ends up to this: a tenth more, which beside something that halves PD is
a twentieth of ReLU's."""
SAME = {"pd": 0.05, "log_loss": 0.002}
"""Two ratios to ReLU are alike where the interval of their difference lies within this, both ways: a tenth of a halved
PD, and less than half of what counts as a worse loss."""


@dataclass(frozen=True)
class Finding:
    """What the numbers say to one claim."""

    verdict: Verdict
    say: str


def no_worse(ratio: Interval) -> bool:
    """Whether a loss is no worse by more than the margin, beyond doubt."""
    return ratio.high < NO_WORSE


def between(arm: Arm, other: Arm, measure: str) -> Interval:
    """Ratio of two arms: paired where they are of one run, else of two independent ratios to ReLU."""
    if ratio := arm.ratio(other, measure):
        return ratio
    if ratio := other.ratio(arm, measure):
        return Interval(1 / ratio.mean, 1 / ratio.high, 1 / ratio.low)
    return independent_ratio(relative(arm, measure), relative(other, measure)) or exact(math.inf)


def apart(one: Interval, other: Interval) -> bool:
    """Whether two intervals have nothing in common."""
    return one.high < other.low or other.high < one.low


STEPS = 50
"""Points of a curve between two settings."""


@dataclass(frozen=True)
class Against:
    """SmeLU against one setting of another activation."""

    pd: float
    """PD as a ratio to ReLU's."""
    lowest: float | None
    """Lowest PD of SmeLU's curve at no more loss; None where its curve does not get that far."""
    clear: bool
    """Whether a measured SmeLU setting has no more loss, by its interval too, and clearly less PD."""
    beaten: bool = False
    """Whether every measured SmeLU setting has clearly more PD or clearly more loss."""
    beta: float | None = None
    """The other activation's setting, if it has one."""

    @property
    def below(self) -> bool:
        """Whether SmeLU's curve lies on or below it."""
        return self.lowest is not None and self.lowest <= self.pd


def lowest(curve: list[Arm], loss: float) -> float | None:
    """The least PD, as a ratio to ReLU's, of a curve joined by lines, at a log loss ratio up to `loss`."""
    places = [(relative(arm, "log_loss").mean, relative(arm, "pd").mean) for arm in curve]
    reached = [y for x, y in places if x <= loss]
    for (x1, y1), (x2, y2) in zip(places, places[1:], strict=False):
        for step in range(1, STEPS):
            share = step / STEPS
            if x1 + share * (x2 - x1) <= loss:
                reached.append(y1 + share * (y2 - y1))
    return min(reached, default=None)


def against(curve: list[Arm], other: Arm) -> Against:
    """Every SmeLU setting against one other arm; the curve has no ReLU in it."""
    loss, pd = relative(other, "log_loss").mean, relative(other, "pd")
    gaps = [(arm, between(arm, other, "pd"), between(arm, other, "log_loss")) for arm in curve]
    clear = any(
        relative(arm, "log_loss").mean <= loss and no_worse(losses) and pds.high < 1 for arm, pds, losses in gaps
    )
    beaten = all(pds.low > 1 or losses.low > 1 for _, pds, losses in gaps)
    return Against(pd.mean, lowest(curve, loss), clear, beaten, family(other.spec)[1])


def statement(rivals: dict[str, list[Against]]) -> str:
    """`SmeLU has no more PD at no more log loss than GELU ...`; or plainly that it has not. Ratios are to ReLU."""
    ahead = {name: found for name, found in rivals.items() if any(one.below for one in found)}
    said = [_not_below(name, found) for name, found in rivals.items() if name not in ahead]
    if ahead:
        *most, last = [_below(name, found, " of ReLU's" * (not n)) for n, (name, found) in enumerate(ahead.items())]
        lower = f"{', '.join(most)} and {last}" if most else last
        said.insert(0, f"SmeLU has no more PD at no more log loss than {lower}")
    said += [_beaten(name, found) for name, found in rivals.items() if any(one.beaten for one in found)]
    return ". ".join(said)


def _below(name: str, every: list[Against], unit: str) -> str:
    """`GELU (0.39 less)`, `Swish (0.18 to 0.70 less at 5 of 6 settings, 4 beyond doubt)`."""
    found = [one for one in every if one.below]
    gaps = [one.pd - one.lowest for one in found if one.lowest is not None]
    clear = sum(one.clear for one in found)
    places = f" at {len(found)} of {len(every)} settings" if len(every) > 1 else ""
    doubt = "" if clear == len(found) else f", {clear or 'none'} beyond doubt"
    return f"{label(name)} ({_range(number(min(gaps), 2), number(max(gaps), 2))}{unit} less{places}{doubt})"


def _not_below(name: str, found: list[Against]) -> str:
    gaps = [one.lowest - one.pd for one in found if one.lowest is not None]
    why = f"by at least {number(min(gaps), 2)} of ReLU's PD" if gaps else "it does not reach so low a loss"
    return f"SmeLU does not lie below {label(name)} anywhere: {why}"


def _beaten(name: str, every: list[Against]) -> str:
    """`Swish is clearly lower at 1 of 6 settings (beta = 8)`."""
    found = [one for one in every if one.beaten]
    betas = ", ".join(f"{one.beta:g}" for one in found if one.beta is not None)
    places = f" at {len(found)} of {len(every)} settings" if len(every) > 1 else ""
    return f"{label(name)} is clearly lower{places}" + (f" (beta = {betas})" if betas else "")


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


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
        figures += f"; the linear model has {_standing(linear, 'ReLU')}"
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
    size = relative(other, measure).mean
    return between(arm, other, measure).moved(lambda ratio: size * (ratio - 1))


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


AT_ONCE, A_REFRESH_LATER = (Situation(rollout="0s", refresh_every="1h", asks_again=gap) for gap in ("0s", "1h"))
"""When a user asks again."""


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
        f"{m} ReLU networks have {_standing(largest)} for {number(largest.costs.get('lookups', 0) / base, 0)} times "
        f"the look-ups, {label(best.spec)} has {_standing(best)} for those of one"
    )
    both = [(n, arm) for spec in arms for n, arm in ensembles_of(arms, spec) if spec != "relu" and has(arm, "pd")]
    if both:
        n, smooth = max(both, key=lambda pair: pair[0])
        say += f"; both together, {label(smooth.spec)}, {written(relative(smooth, 'pd'), 2)} for {n} times"
    doubts = _doubts(best, largest)
    if doubts:
        say += "; " + ", ".join(doubts)
    if not all(costs):
        return Finding("not", say)
    return Finding("partly" if doubts else "holds", say)


def _doubts(best: Arm, ensemble: Arm) -> list[str]:
    """What keeps the claim from holding: SmeLU against the largest ensemble, and that against one network."""
    pd, loss = (between(best, ensemble, measure) for measure in ("pd", "log_loss"))
    said = []
    if relative(ensemble, "pd").high >= 1:
        said.append("that ensembles lower PD is not beyond doubt")
    if pd.high > NO_MORE:
        said.append(_beside("PD", pd.low > 1))
    if not no_worse(loss):
        said.append(_beside("log loss", loss.low > 1))
    return said


def _beside(what: str, clear: bool) -> str:
    return f"SmeLU has clearly more {what}" if clear else f"that SmeLU has no more {what} is not beyond doubt"


def _standing(arm: Arm, whose: str = "one") -> str:
    pd, loss = relative(arm, "pd"), relative(arm, "log_loss")
    return f"{written(pd, 2)} of {whose}'s PD and {written(loss, 3)} of its log loss"


def routed(arm: Arm, duplicates: int) -> list[Interval] | None:
    """Pair swaps a user sees on asking again: at random routing within a generation and over a refresh, at sticky
    routing over a refresh and within a generation."""
    random = [replace(when, models=duplicates) for when in (AT_ONCE, A_REFRESH_LATER)]
    sticky = [replace(when, routing="sticky") for when in reversed(random)]
    seen = [what_a_user_sees(arm, situation, "pair") for situation in (*random, *sticky)]
    return [one.total for one in seen if one] if all(seen) else None


def sticky(sweep: Sweep) -> Finding:
    """Sticky routing: a user is always answered by one duplicate, so that only refreshes change what he sees."""
    arms = sweep.arms()
    shown = {
        arm.spec: seen for arm in (arms.get("relu"), favourite(arms)) if arm and (seen := routed(arm, sweep.duplicates))
    }
    if "relu" not in shown:
        return Finding("not measured", "needs ReLU in a run of two generations or more")
    if not shown["relu"][0].high:
        return Finding("not measured", "ReLU's duplicates do not differ: there is nothing that routing could hide")
    told = [
        f"under {label(spec)} {written(within)} of the pairs swap at random routing, {written(over)} over a refresh; "
        f"at sticky routing none, and {written(refresh)} over a refresh"
        for spec, (within, over, refresh, _) in shown.items()
    ]
    say = "; ".join(told)
    say = say[0].upper() + say[1:]
    worse = [label(spec) for spec, (_, over, refresh, _) in shown.items() if refresh.low > over.high]
    if worse:
        return Finding("not", f"{say}; sticky routing shows clearly more of a refresh under {' and '.join(worse)}")
    if shown["relu"][0].low > 0:
        return Finding("holds", f"{say}. By construction: one duplicate does not differ from itself")
    return Finding("partly", f"{say}. That random routing shows any under ReLU is not beyond doubt")
