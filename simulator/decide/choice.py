"""Which arm to try, what else lowers what a user sees, and at which price: for the page and for `flicker recommend`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from simulator.config import require
from simulator.decide.evidence import (
    DECIDED,
    INCONCLUSIVE,
    REFUSED,
    compared,
    fleets,
    ratio_to,
    repeats,
    require_swaps,
    silent,
    too_little,
)
from simulator.decide.situation import Seen, Situation, seen_ratio, what_a_user_sees
from simulator.measures.intervals import Interval
from simulator.measures.registry import ACCURACY, MEASURES, QUALITIES
from simulator.result import Arm, Result
from simulator.words import label, number, percent, word, written

MARGIN = 0.005
"""A log loss at most this share above that of the first arm is as good, where an interval shows it."""


@dataclass(frozen=True)
class Change:
    """Something to change, what a user would see then, and the price."""

    words: str
    seen: Interval
    price: str
    free: bool
    """Whether it costs neither accuracy nor compute."""


def price(arm: Arm, base: Arm, margin: float) -> str:
    """What an arm costs beside another: accuracy, compute, personalisation."""
    parts = [accuracy_price(arm, base, margin)]
    for name, words in (
        ("train_seconds", "training time"),
        ("score_seconds", "scoring time"),
        ("model_bytes", "memory"),
    ):
        ratio = arm.cost_ratio(base, name)
        parts.append(f"{words} {'not measured' if ratio is None else f'× {number(ratio, 2)}'}")
    personal = ratio_to(arm, base, "personalisation")
    return ", ".join([*parts, f"personalisation {'not measured' if personal is None else f'× {written(personal, 2)}'}"])


def accuracy_price(arm: Arm, base: Arm, margin: float) -> str:
    """`log loss × 0.998 (0.996 to 1.001), shown to be within 0.5 %`, or that it is not shown."""
    ratio, within = ratio_to(arm, base, "log_loss"), percent(margin)
    if ratio is None:
        return "log loss not measured"
    if math.isinf(ratio.high) or not (ratio.known or arm is base):
        return f"log loss × {number(ratio.mean, 4)} without an interval, not shown to be within {within}"
    words = {"no": f"within {within}", "yes": "higher"}.get(_loses(arm, base, margin))
    verdict = f"shown to be {'lower' if ratio.high < 1 else words}" if words else f"not shown to be within {within}"
    return f"log loss × {written(ratio, 4)}, {verdict}"


def changes(result: Result, situation: Situation, measure: str, margin: float) -> list[Change]:
    """What lowers what users of the first arm see: what is free first, then by how far it lowers it."""
    base = result.arms[0]
    now = what_a_user_sees(base, situation, measure)
    if now is None:
        return []
    found = []
    for words, other, older, cost in _serving(situation):
        seen = what_a_user_sees(base, other, measure, older=older)
        if seen is not None and seen.total.mean < now.total.mean:
            found.append(Change(words, seen.total, cost, older == 1))
    for arm in result.arms[1:]:
        seen = what_a_user_sees(arm, situation, measure)
        if not repeats(arm, base) and not too_little(arm, result) and seen is not None:
            ratio = seen_ratio(arm, base, situation, measure)
            if compared(ratio) == "less":
                words = f"{label(arm.spec)} instead of {label(base.spec)}"
                found.append(Change(words, seen.total, price(arm, base, margin), False))
    return sorted(found, key=lambda change: (not change.free, change.seen.mean))


def _serving(now: Situation) -> list[tuple[str, Situation, int, str]]:
    """Other ways to serve the same models: words, situation, how many refreshes are one then, price."""
    every = 2 * now.times[0]
    half = f"{every:.15g}s" if every % 3_600 else f"{every / 3_600:.15g}h"  # never with an exponent
    one = "none in accuracy or personalisation, and fewer models to train"
    keep = "none in accuracy or personalisation; how evenly replicas are loaded is not measured"
    late = "models are older when they serve: what that costs in accuracy is not measured; half the publishing"
    found = [(f"refresh half as often (--refresh-every {half})", replace(now, refresh_every=half), 2, late)]
    if now.routing == "random":
        found.append(("sticky routing (--routing sticky)", replace(now, routing="sticky"), 1, keep))
    if now.models > 1:
        found.append(("serve copies of one model (--models 1)", replace(now, models=1), 1, one))
    return found


def not_measured(result: Result) -> list[str]:
    """Cures that no arm of the run is: what to add to the next one."""
    base = result.arms[0]
    own = base.spec.startswith("torch:")
    specs = [arm.spec for arm in result.arms]
    plain = base.spec.partition("#")[0]

    def held(*marks: str) -> bool:
        return any(mark in spec for spec in specs for mark in marks)

    def setting(spec: str, text: str) -> str:
        return f"{spec}{',' if ':' in spec else ':'}{text}"

    found = []
    if not held("smelu", "gelu", "swish", "softplus") and (own or plain.startswith("relu")):
        found.append(f"a smooth activation (`{plain + ',relu=smelu:beta=1' if own else 'smelu:beta=0.25'}`)")
    if not held("norm=none") and base.design.get("norm") in ("before", "after"):
        found.append(f"dropping the layer norm (`{setting(plain, 'norm=none')}`)")
    if not held("ensemble:") and ",relu=" not in plain:
        found.append(f"an ensemble (`ensemble:{setting(plain, 'm=3')}`)")
    return found


@dataclass(frozen=True)
class Choice:
    """What to do with the arms of a result."""

    verdict: Literal["trial", "weigh", "stay", "unclear", "unlearned", "over", "nothing"]
    why: str
    arm: Arm | None = None
    """The arm that is named, if one is."""

    @property
    def code(self) -> int:
        """Exit code."""
        return {"over": REFUSED, "unclear": INCONCLUSIVE, "unlearned": INCONCLUSIVE}.get(self.verdict, DECIDED)


def choose(result: Result, situation: Situation, measure: str, margin: float, budget: float | None = None) -> Choice:
    """The arm to try, for the page and for `recommend` alike.

    With a budget: the most accurate arm that is shown to keep it, the first one unless another is shown to be more
    accurate. Without: the arm that is shown to lower most what a user sees at no more than the margin of log loss.
    """
    base, *others = result.arms
    if silent(result):
        return Choice(
            "nothing", "Switch on a source of noise (leave out `--preset no_noise`) to see how the arms differ."
        )
    if why := too_little(base, result):
        hint = "more events, or another learning rate (`lr=tuned`)"
        return Choice(
            "unlearned", f"{label(base.spec)}: this model has learned too little to advise: {why}. Try {hint}."
        )
    views = {arm.spec: seen for arm in result.arms if (seen := what_a_user_sees(arm, situation, measure))}
    if base.spec not in views:
        asked = f"{MEASURES[measure].words} over a refresh, or between models that serve,"
        hint = " `flicker gate DIR --these --max-swaps X` judges these very models." if result.kind == "compare" else ""
        return Choice("unclear", f"What a user sees needs {asked} and this result lacks them.{hint}")
    fair = [arm for arm in others if not repeats(arm, base) and arm.spec in views and not too_little(arm, result)]
    if budget is not None:
        return _within(result, fair, views, measure, margin, budget)
    if not fair:
        if any(repeats(arm, base) for arm in others):
            why = "Both arms are one design: a ratio of about 1 is what should come out. Any other is chance."
        elif others:
            why = "No other arm has learned enough to be compared with."
        elif result.kind == "compare":
            why = "Add files of another design to compare with, named in a column `arm`."
        else:
            why = f"Add an arm to compare with, such as `--arms {base.spec} smelu:beta=0.25`."
        return Choice("nothing", why)
    ratios = {arm.spec: seen_ratio(arm, base, situation, measure) for arm in fair}
    lower = sorted(
        (arm for arm in fair if compared(ratios[arm.spec]) == "less"), key=lambda arm: views[arm.spec].total.mean
    )
    shown = [arm for arm in lower if _loses(arm, base, margin) == "no"]
    kept = [arm for arm in lower if _loses(arm, base, margin) == "unclear"]
    if arm := next(iter(shown or kept or lower), None):
        ratio = f"a user sees {written(ratios[arm.spec], 2)} times as many changes of results"
        said = f"{ratio}, {accuracy_price(arm, base, margin)}"
        if arm in shown:
            return Choice("trial", f"{label(arm.spec)} is worth a trial in your model: {said}.", arm)
        if arm in kept:
            return Choice("unclear", f"Run more fleets before a trial of {label(arm.spec)}: {said}.")
        return Choice("weigh", f"Weigh the changes that {label(arm.spec)} saves against the log loss it costs: {said}.")
    if all(compared(ratio) == "more" for ratio in ratios.values()):
        return Choice("stay", f"Stay with {label(base.spec)}: a user sees more changes with every other arm.", base)
    return Choice(
        "unclear", "No arm is shown to lower what a user sees: more fleets and more queries narrow the intervals."
    )


def _loses(arm: Arm, base: Arm, margin: float) -> Literal["yes", "no", "unclear"]:
    """Whether an arm's log loss is shown to be higher, or within the margin (non-inferior)."""
    ratio = ratio_to(arm, base, "log_loss")
    if ratio is None or not (ratio.known or arm is base):
        return "unclear"
    return "no" if ratio.high <= 1 + margin else "yes" if ratio.low > 1 else "unclear"


def _within(
    result: Result, fair: list[Arm], views: dict[str, Seen], measure: str, margin: float, budget: float
) -> Choice:
    """The choice where a budget is given."""
    base, words = result.arms[0], f"{MEASURES[measure].words} on asking again"
    totals = {arm.spec: views[arm.spec].total for arm in (base, *fair)}
    kept = {spec for spec, total in totals.items() if total.high <= budget and (total.known or total.mean == 0)}
    inside = [arm for arm in (base, *fair) if arm.spec in kept]
    better = [arm for arm in inside if compared(ratio_to(arm, base, "log_loss")) == "less"]
    if base in inside and not better:
        return Choice("stay", f"Stay with {label(base.spec)}: its {words} are within {number(budget)}.", base)
    if not inside:
        calmest = min((base, *fair), key=lambda arm: views[arm.spec].total.mean)
        said = (
            f"{words} within {number(budget)}: the least is {written(views[calmest.spec].total)}, {label(calmest.spec)}"
        )
        if views[calmest.spec].total.mean <= budget:
            return Choice("unclear", f"No arm is shown to keep {said}: more fleets and queries would tell.")
        return Choice("over", f"No arm keeps {said}; see what else lowers it.")
    rank = {"no": 0, "unclear": 1, "yes": 2}

    def order(arm: Arm) -> tuple[int, float]:
        ratio = ratio_to(arm, base, "log_loss")
        return rank[_loses(arm, base, margin)], ratio.mean if ratio else math.inf

    arm = min(better or inside, key=order)
    said = f"{words} {written(views[arm.spec].total)} within {number(budget)}, {accuracy_price(arm, base, margin)}"
    loses = _loses(arm, base, margin)
    if loses == "unclear":
        return Choice("unclear", f"Run more fleets before you choose {label(arm.spec)}: {said}.")
    verb = "is worth a trial" if loses == "no" else "keeps the budget at a price"
    return Choice("trial" if loses == "no" else "weigh", f"{label(arm.spec)} {verb}: {said}.", arm)


def _unknown(result: Result, choice: Choice) -> list[str]:
    """What stands before advice on models beside which no baselines learned: a live system's, or files'."""
    if result.kind == "run" or result.baselines or choice.verdict not in ("trial", "weigh", "stay"):
        return []
    return ["Whether these models have learned enough to be advised on is not known: no baselines in this result."]


def advice(
    result: Result, situation: Situation | None = None, measure: str = "slot", margin: float = MARGIN
) -> list[str]:
    """What follows from the numbers, in sentences, for the page."""
    asked = situation or Situation()
    choice = choose(result, asked, measure, margin)
    said = [*_unknown(result, choice), choice.why]
    if choice.verdict not in ("nothing", "unlearned") and (seen := what_a_user_sees(result.arms[0], asked, measure)):
        said.append(
            f"With {label(result.arms[0].spec)}, a user who asks again sees {percent(seen.total.mean)} changed "
            f"({MEASURES[measure].words}). Assumed: {asked}; give yours to `flicker recommend`."
        )
        said += [
            f"To lower it: {change.words}: {percent(change.seen.mean)} changed; price: {change.price}."
            for change in changes(result, asked, measure, margin)[:3]
        ]
    if len(result.arms) > 3 and choice.verdict == "trial":
        said.append("The best of many arms looks better than it is: repeat the choice with another `--seed`.")
    if result.kind == "run" and fleets(result) == 1 and choice.verdict != "nothing":
        said.append("One fleet shows one initialisation. Use `--fleets 3` or more before you decide.")
    if result.world.get("name") == "synthetic":
        said.append("This world is made up. Repeat the run on your own log with `--data`.")
    return said


@dataclass(frozen=True)
class RecommendFlags:
    """What a user sees who asks again, what lowers it and at which price, and the arm to choose.

    Exit code 0 with a choice, 1 when no arm keeps the budget, 3 when the run cannot tell.
    """

    results: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders of results: one, several seeds of one run, which are pooled, or a sweep of seeds."""
    situation: tyro.conf.OmitArgPrefixes[Situation] = field(default_factory=Situation)
    """How the recommender is served."""
    swap_budget: float | None = None
    """Share of results that may change when a user asks again, 0 to 1: the most accurate arm within it is named."""
    measure: str = "slot"
    """The swap measure."""
    margin: float = MARGIN
    """Log loss up to this share above the first arm's is accepted, where an interval shows it; 0 to 1."""

    def __post_init__(self) -> None:
        budget = self.swap_budget
        require(budget is None or 0 <= budget <= 1, "swap-budget", budget, "from 0 to 1")
        require(0 <= self.margin <= 1, "margin", self.margin, "from 0 to 1")
        require(bool(self.results), "results", "no folder", "name one, as in flicker recommend DIR")
        require_swaps(self.measure)


def recommend(flags: RecommendFlags, result: Result) -> tuple[list[str], int]:
    """What to say of the result (of all folders together), line by line, and the exit code."""
    situation, measure = flags.situation, flags.measure
    choice = choose(result, situation, measure, flags.margin, flags.swap_budget)
    lines = [*_unknown(result, choice), choice.why, f"Situation: {situation}."]
    lines.append(f"What a user sees on asking again, {MEASURES[measure].words}:")
    notes: list[str] = []
    for arm in result.arms:
        seen = what_a_user_sees(arm, situation, measure)
        lines.append(f"  {label(arm.spec)}: {_seen(seen)}{_accuracy(arm)}")
        notes += seen.notes if seen else []
        live = arm.measures.get("user_visible_slot_ratio" if measure == "slot" else "user_visible_swap_ratio")
        if live is not None and measure in ("slot", "slate"):
            lines.append(f"    users of the live system met {written(live)}, as they asked and as it was served")
        if why := too_little(arm, result):
            lines.append(f"    this model has learned too little to advise: {why}")
    if choice.verdict != "unlearned" and not silent(result):
        found = changes(result, situation, measure, flags.margin)
        lines += ["What lowers it, the cheapest first:"] if found else []
        lines += [f"  {change.words}: {written(change.seen)}; price: {change.price}" for change in found]
        missing = not_measured(result) if result.kind == "run" else []
        lines += [f"Not measured in this run: {'; '.join(missing)}."] if missing else []
    if result.kind != "run":
        notes.append("only results of `flicker run` measure more than one refresh")
    if not result.baselines:
        notes.append("no baselines in this result: whether its models learned enough is not known")
    if fleets(result) == 1:
        notes.append("one fleet: intervals hold for its initialisation")
    lines += [f"Note: {note}." for note in dict.fromkeys(notes)]
    return lines, choice.code


def _seen(seen: Seen | None) -> str:
    if seen is None:
        return "not measured"
    words = {"swaps": "another model", "refresh_swaps": "a refresh", "both_swaps": "both"}
    parts = ", ".join(f"{words[cause]} {number(part.mean)}" for cause, part in seen.parts.items())
    return f"{written(seen.total)} (by {parts})"


def _accuracy(arm: Arm) -> str:
    """Accuracy stands beside every share of swaps."""
    name = next((name for name in (*ACCURACY, *QUALITIES) if name in arm.measures), None)
    return f", {word(name).words} {written(arm.measures[name], 4)}" if name else ", accuracy not measured"
