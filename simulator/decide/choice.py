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
from simulator.decide.situation import ExpectedChange, Situation, seen_ratio, what_a_user_sees
from simulator.measures.registry import ACCURACY, MEASURES, QUALITIES
from simulator.measures.words import label, number, percent, word, written
from simulator.result import Arm, Result
from simulator.types import Interval

MARGIN = 0.005
"""A log loss at most this share above that of the first arm is as good, where an interval shows it."""


@dataclass(frozen=True)
class Change:
    """Something to change, the share of results that then change, and the price."""

    words: str
    expected: Interval
    price: str
    free: bool
    """Whether it costs neither accuracy nor compute."""


def price(arm: Arm, base: Arm, margin: float) -> str:
    """The price of an arm relative to another: accuracy, compute, personalisation."""
    parts = [accuracy_price(arm, base, margin)]
    costs = {"train_seconds": "training time", "score_seconds": "scoring time", "model_bytes": "memory"}
    for name, words in costs.items():
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
    """Changes that lower what users of the first arm see: free ones first, then by their effect."""
    base = result.arms[0]
    current = what_a_user_sees(base, situation, measure)
    if current is None:
        return []
    found_changes = []
    for words, alternative, refreshes_in_one, cost_text in _serving(situation):
        expected = what_a_user_sees(base, alternative, measure, older=refreshes_in_one)
        if expected is not None and expected.total.mean < current.total.mean:
            found_changes.append(Change(words, expected.total, cost_text, refreshes_in_one == 1))
    for arm in result.arms[1:]:
        expected = what_a_user_sees(arm, situation, measure)
        if not repeats(arm, base) and not too_little(arm, result) and expected is not None:
            ratio = seen_ratio(arm, base, situation, measure)
            if compared(ratio) == "less":
                words = f"{label(arm.spec)} instead of {label(base.spec)}"
                found_changes.append(Change(words, expected.total, price(arm, base, margin), False))
    return sorted(found_changes, key=lambda change: (not change.free, change.expected.mean))


def _serving(current: Situation) -> list[tuple[str, Situation, int, str]]:
    """Other ways to serve the same models: words, situation, how many refreshes are one then, price."""
    every = 2 * current.times[0]
    slower = f"{every:.15g}s" if every % 3_600 else f"{every / 3_600:.15g}h"  # never with an exponent
    fewer_models_price = "none in accuracy or personalisation, and fewer models to train"
    sticky_price = "none in accuracy or personalisation; how evenly replicas are loaded is not measured"
    late_price = "models are older when they serve: what that costs in accuracy is not measured; half the publishing"
    less_often = f"refresh half as often (--refresh-every {slower})"
    ways = [(less_often, replace(current, refresh_every=slower), 2, late_price)]
    if current.routing == "random":
        ways.append(("sticky routing (--routing sticky)", replace(current, routing="sticky"), 1, sticky_price))
    if current.models > 1:
        ways.append(("serve copies of one model (--models 1)", replace(current, models=1), 1, fewer_models_price))
    return ways


def not_measured(result: Result) -> list[str]:
    """Cures that no arm of the run has: arms to add to the next one."""
    base = result.arms[0]
    is_custom = base.spec.startswith("torch:")
    specs = [arm.spec for arm in result.arms]
    base_spec = base.spec.partition("#")[0]

    def has_any(*marks: str) -> bool:
        return any(mark in spec for spec in specs for mark in marks)

    def setting(spec: str, text: str) -> str:
        return f"{spec}{',' if ':' in spec else ':'}{text}"

    missing = []
    if not has_any("smelu", "gelu", "swish", "softplus") and (is_custom or base_spec.startswith("relu")):
        smooth = f"{base_spec},relu=smelu:beta=1" if is_custom else "smelu:beta=0.25"
        missing.append(f"a smooth activation (`{smooth}`)")
    if not has_any("norm=none") and base.design.get("norm") in ("before", "after"):
        missing.append(f"dropping the layer norm (`{setting(base_spec, 'norm=none')}`)")
    if not has_any("ensemble:") and ",relu=" not in base_spec:
        missing.append(f"an ensemble (`ensemble:{setting(base_spec, 'm=3')}`)")
    return missing


@dataclass(frozen=True)
class Choice:
    """The decision on the arms of a result."""

    verdict: Literal["trial", "weigh", "stay", "unclear", "unlearned", "over", "nothing"]
    reason: str
    arm: Arm | None = None
    """The chosen arm, if there is one."""

    @property
    def code(self) -> int:
        """Exit code."""
        return {"over": REFUSED, "unclear": INCONCLUSIVE, "unlearned": INCONCLUSIVE}.get(self.verdict, DECIDED)


def choose(result: Result, situation: Situation, measure: str, margin: float, budget: float | None = None) -> Choice:
    """The arm to try, for the page and for `recommend` alike.

    With a budget: the most accurate arm that is shown to keep it, the first one unless another is shown to be more
    accurate. Without: the arm that is shown to lower most what a user sees at no more than the margin of log loss.
    """
    base, *rest = result.arms
    if silent(result):
        hint = "Switch on a source of noise (leave out `--preset no_noise`) to see how the arms differ."
        return Choice("nothing", hint)
    if cause := too_little(base, result):
        reason = f"{label(base.spec)}: this model has learned too little to advise: {cause}"
        return Choice("unlearned", f"{reason}. Try more events, or another learning rate (`lr=tuned`).")
    expected = {arm.spec: change for arm in result.arms if (change := what_a_user_sees(arm, situation, measure))}
    if base.spec not in expected:
        needed = f"{MEASURES[measure].words} over a refresh, or between models that serve,"
        hint = " `flicker gate DIR --these --max-swaps X` judges these very models." if result.kind == "compare" else ""
        return Choice("unclear", f"What a user sees needs {needed} and this result lacks them.{hint}")
    others = [arm for arm in rest if not repeats(arm, base) and arm.spec in expected]
    comparable = [arm for arm in others if not too_little(arm, result)]
    if budget is not None:
        return _within(result, comparable, expected, measure, margin, budget)
    if not comparable:
        if any(repeats(arm, base) for arm in rest):
            cause = "Both arms are one design: a ratio of about 1 is what should come out. Any other is chance."
        elif rest:
            cause = "No other arm has learned enough to be compared with."
        elif result.kind == "compare":
            cause = "Add files of another design to compare with, named in a column `arm`."
        else:
            cause = f"Add an arm to compare with, such as `--arms {base.spec} smelu:beta=0.25`."
        return Choice("nothing", cause)
    ratios = {arm.spec: seen_ratio(arm, base, situation, measure) for arm in comparable}
    lower = [arm for arm in comparable if compared(ratios[arm.spec]) == "less"]
    lower.sort(key=lambda arm: expected[arm.spec].total.mean)
    non_inferior = [arm for arm in lower if _loses(arm, base, margin) == "no"]
    undecided = [arm for arm in lower if _loses(arm, base, margin) == "unclear"]
    if arm := next(iter(non_inferior or undecided or lower), None):
        ratio = f"a user sees {written(ratios[arm.spec], 2)} times as many changes of results"
        effect = f"{ratio}, {accuracy_price(arm, base, margin)}"
        if arm in non_inferior:
            return Choice("trial", f"{label(arm.spec)} is worth a trial in your model: {effect}.", arm)
        if arm in undecided:
            return Choice("unclear", f"Run more fleets before a trial of {label(arm.spec)}: {effect}.")
        reason = f"Weigh the changes that {label(arm.spec)} saves against the log loss it costs: {effect}."
        return Choice("weigh", reason)
    if all(compared(ratio) == "more" for ratio in ratios.values()):
        return Choice("stay", f"Stay with {label(base.spec)}: a user sees more changes with every other arm.", base)
    hint = "more fleets and more queries narrow the intervals"
    return Choice("unclear", f"No arm is shown to lower what a user sees: {hint}.")


def _loses(arm: Arm, base: Arm, margin: float) -> Literal["yes", "no", "unclear"]:
    """Whether an arm's log loss is shown to be higher, or within the margin (non-inferior)."""
    ratio = ratio_to(arm, base, "log_loss")
    if ratio is None or not (ratio.known or arm is base):
        return "unclear"
    return "no" if ratio.high <= 1 + margin else "yes" if ratio.low > 1 else "unclear"


def _within(
    result: Result,
    comparable: list[Arm],
    expected: dict[str, ExpectedChange],
    measure: str,
    margin: float,
    budget: float,
) -> Choice:
    """The choice where a budget is given."""
    base, words = result.arms[0], f"{MEASURES[measure].words} on asking again"
    totals = [(arm, expected[arm.spec].total) for arm in (base, *comparable)]
    candidates = [arm for arm, total in totals if total.high <= budget and (total.known or total.mean == 0)]
    more_accurate = [arm for arm in candidates if compared(ratio_to(arm, base, "log_loss")) == "less"]
    if base in candidates and not more_accurate:
        return Choice("stay", f"Stay with {label(base.spec)}: its {words} are within {number(budget)}.", base)
    if not candidates:
        steadiest, lowest = min(totals, key=lambda arm_and_total: arm_and_total[1].mean)
        summary = f"{words} within {number(budget)}: the least is {written(lowest)}, {label(steadiest.spec)}"
        if lowest.mean <= budget:
            return Choice("unclear", f"No arm is shown to keep {summary}: more fleets and queries would tell.")
        return Choice("over", f"No arm keeps {summary}; see what else lowers it.")
    rank = {"no": 0, "unclear": 1, "yes": 2}

    def order(arm: Arm) -> tuple[int, float]:
        ratio = ratio_to(arm, base, "log_loss")
        return rank[_loses(arm, base, margin)], ratio.mean if ratio else math.inf

    arm = min(more_accurate or candidates, key=order)
    seen = f"{words} {written(expected[arm.spec].total)}"
    summary = f"{seen} within {number(budget)}, {accuracy_price(arm, base, margin)}"
    loses = _loses(arm, base, margin)
    if loses == "unclear":
        return Choice("unclear", f"Run more fleets before you choose {label(arm.spec)}: {summary}.")
    verb = "is worth a trial" if loses == "no" else "keeps the budget at a price"
    return Choice("trial" if loses == "no" else "weigh", f"{label(arm.spec)} {verb}: {summary}.", arm)


def _unknown(result: Result, choice: Choice) -> list[str]:
    """A warning before advice on models without baselines: a live system's, or files'."""
    if result.kind == "run" or result.baselines or choice.verdict not in ("trial", "weigh", "stay"):
        return []
    return ["Whether these models have learned enough to be advised on is not known: no baselines in this result."]


def advice(
    result: Result, situation: Situation | None = None, measure: str = "slot", margin: float = MARGIN
) -> list[str]:
    """Advice that follows from the numbers, in sentences, for the page."""
    served = situation or Situation()
    choice = choose(result, served, measure, margin)
    sentences = [*_unknown(result, choice), choice.reason]
    if choice.verdict not in ("nothing", "unlearned") and (
        expected := what_a_user_sees(result.arms[0], served, measure)
    ):
        sentences.append(
            f"With {label(result.arms[0].spec)}, a user who asks again sees {percent(expected.total.mean)} changed "
            f"({MEASURES[measure].words}). Assumed: {served}; give yours to `flicker recommend`."
        )
        sentences += [
            f"To lower it: {change.words}: {percent(change.expected.mean)} changed; price: {change.price}."
            for change in changes(result, served, measure, margin)[:3]
        ]
    if len(result.arms) > 3 and choice.verdict == "trial":
        sentences.append("The best of many arms looks better than it is: repeat the choice with another `--seed`.")
    if result.kind == "run" and fleets(result) == 1 and choice.verdict != "nothing":
        sentences.append("One fleet shows one initialisation. Use `--fleets 3` or more before you decide.")
    if result.world.get("name") == "synthetic":
        sentences.append("This world is made up. Repeat the run on your own log with `--data`.")
    return sentences


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
    """Lines on the result (of all folders together), and the exit code."""
    situation, measure = flags.situation, flags.measure
    choice = choose(result, situation, measure, flags.margin, flags.swap_budget)
    lines = [*_unknown(result, choice), choice.reason, f"Situation: {situation}."]
    lines.append(f"What a user sees on asking again, {MEASURES[measure].words}:")
    notes: list[str] = []
    for arm in result.arms:
        expected = what_a_user_sees(arm, situation, measure)
        lines.append(f"  {label(arm.spec)}: {_seen(expected)}{_accuracy(arm)}")
        notes += expected.notes if expected else []
        live = arm.measures.get("user_visible_slot_ratio" if measure == "slot" else "user_visible_swap_ratio")
        if live is not None and measure in ("slot", "slate"):
            lines.append(f"    users of the live system met {written(live)}, as they asked and as it was served")
        if reason := too_little(arm, result):
            lines.append(f"    this model has learned too little to advise: {reason}")
    if choice.verdict != "unlearned" and not silent(result):
        found_changes = changes(result, situation, measure, flags.margin)
        lines += ["What lowers it, the cheapest first:"] if found_changes else []
        lines += [f"  {change.words}: {written(change.expected)}; price: {change.price}" for change in found_changes]
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


def _seen(expected: ExpectedChange | None) -> str:
    if expected is None:
        return "not measured"
    words = {"swaps": "another model", "refresh_swaps": "a refresh", "both_swaps": "both"}
    parts = ", ".join(f"{words[cause]} {number(part.mean)}" for cause, part in expected.parts.items())
    return f"{written(expected.total)} (by {parts})"


def _accuracy(arm: Arm) -> str:
    """Accuracy stands beside every share of swaps."""
    name = next((name for name in (*ACCURACY, *QUALITIES) if name in arm.measures), None)
    return f", {word(name).words} {written(arm.measures[name], 4)}" if name else ", accuracy not measured"
