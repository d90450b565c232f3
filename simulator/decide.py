"""From results to decisions, in one place: what a user sees, what would lower it, which arm to try, whether a gate opens.

The page, `flicker recommend` and `flicker gate` all ask here, so that they cannot contradict each other. Three rules:

- Nothing is claimed but what an interval shows. An arm costs no accuracy where the whole interval of its log loss's
  ratio lies below a stated margin (non-inferiority), never because an interval is wide enough to include 1.
- A model that does not beat the base rate and popularity, or loses to a logistic regression, gets no advice.
- What counts is what a user sees in the situation at hand, not one cause of it.

**What a user sees** who asks again after a gap g, with a refresh every T that takes a roll-out R to reach all replicas,
and D independently trained models behind them. Between the two answers lie k = floor(g / T) refreshes, or one more with
probability g / T - k. During a roll-out two generations serve side by side: under random routing two answers less than R
apart differ in generation with a further probability (R - g)^3 / (3 R^2 T), g < R. Random routing meets another model with
probability 1 - 1/D, sticky routing never. So the expected share is a sum of the shares that a run measured by cause:
another duplicate at the same generation, the same one L refreshes later, another one L refreshes later; the limits of its
interval are the sums of theirs: never too narrow, whatever the causes share. tests/test_decide.py draws it by hand.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from simulator.config import require
from simulator.errors import FlickerError, SettingError
from simulator.measures.intervals import Interval, student_quantile
from simulator.measures.registry import ACCURACY, MEASURES, QUALITIES
from simulator.result import Arm, Result, read_result
from simulator.words import label, number, percent, plural, written

MARGIN = 0.005
"""A log loss at most this share above that of the first arm is as good, where an interval shows it."""
UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
DECISIVE = ("k", "candidates", "duplicates", "generations")
"""Settings that change what a swap ratio means, besides the world and the noise."""
MADE_UP = ("queries_per_generation",)
"""Those that do so on the synthetic world alone, where clicks on what is shown are learned."""
MOST_FLEETS = 1_000
PASSED, HELD_BACK, INCONCLUSIVE = 0, 1, 3
"""Exit codes; 2 is for what cannot be compared."""


def seconds(setting: str, text: str) -> float:
    """`90s`, `2m`, `1.5h`, `1d` in seconds. Raises SettingError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if not found:
        raise SettingError(setting, text, "a number and s, m, h or d, such as 10m")
    return float(found[1]) * UNITS[found[2]]


@dataclass(frozen=True)
class Situation:
    """How the recommender is served, and when its users come back."""

    models: int = 1
    """Independently trained models that serve; 1: all replicas hold copies of one."""
    routing: Literal["random", "sticky"] = "random"
    """Whether a user may meet another replica each time, or keeps one."""
    refresh_every: str = "1h"
    """Time between two refreshes, such as 30m or 1d."""
    rollout: str = "2m"
    """How long two generations serve side by side at a refresh; at most the time between two."""
    asks_again: str = "10m"
    """How long after the first answer a user asks again."""

    def __post_init__(self) -> None:
        require(self.models >= 1, "models", self.models, "at least 1")
        every, rollout, _ = self.times
        require(every > 0, "refresh-every", self.refresh_every, "more than 0")
        require(rollout <= every, "rollout", self.rollout, f"at most --refresh-every, {self.refresh_every}")

    @property
    def times(self) -> tuple[float, float, float]:
        """Seconds between refreshes, of a roll-out, and until a user asks again."""
        named = ("refresh-every", self.refresh_every), ("rollout", self.rollout), ("asks-again", self.asks_again)
        every, rollout, gap = (seconds(*one) for one in named)
        return every, rollout, gap

    def refreshes(self) -> dict[int, float]:
        """How many refreshes lie between two answers -> its probability."""
        every, rollout, gap = self.times
        whole, rest = divmod(gap / every, 1)
        if whole == 0 and self.routing == "random" and rollout > gap:
            rest += (rollout - gap) ** 3 / (3 * rollout**2 * every)
        return {int(whole): 1 - rest, int(whole) + 1: rest}

    def weights(self) -> dict[tuple[str, int], float]:
        """(cause, refreshes between) -> its probability, where it is not 0."""
        same = 1.0 if self.routing == "sticky" else 1 / self.models
        found: dict[tuple[str, int], float] = {}
        for lag, chance in self.refreshes().items():
            if lag:
                found["refresh_swaps", lag] = chance * same
            found["both_swaps" if lag else "swaps", lag] = chance * (1 - same)
        return {cause: weight for cause, weight in found.items() if weight > 0}

    def __str__(self) -> str:
        held = (
            "all replicas hold copies of one model" if self.models == 1 else f"{self.models} independent models serve"
        )
        return (
            f"{held}, {self.routing} routing, a refresh every {self.refresh_every} rolled out in {self.rollout}, users "
            f"ask again after {self.asks_again}"
        )


@dataclass(frozen=True)
class Seen:
    """The expected share of results that change when a user asks again."""

    total: Interval
    parts: dict[str, Interval]
    """By cause."""
    notes: list[str]
    """What was interpolated, or taken from fewer refreshes than lie between."""


def what_a_user_sees(arm: Arm, situation: Situation, measure: str, *, older: int = 1) -> Seen | None:
    """Of an arm; `older`: a refresh here is as long as so many of those measured. None where a cause was not measured."""
    parts: dict[str, Interval] = {}
    notes: list[str] = []
    for (cause, lag), weight in situation.weights().items():
        found = at_lag(arm, cause, lag * older, measure, notes)
        if found is None:
            return None
        before = parts.get(cause, Interval(0, 0, 0))
        parts[cause] = _plus(before, found, weight)
    total = Interval(0, 0, 0)
    for part in parts.values():
        total = _plus(total, part, 1)
    return Seen(total, parts, list(dict.fromkeys(notes)))


def at_lag(arm: Arm, cause: str, lag: int, measure: str, notes: list[str]) -> Interval | None:
    """A swap measure so many refreshes later, on a straight line between the lags that were measured."""
    if lag == 0:
        return arm.measures.get(f"{cause}.{measure}")
    known = {1: arm.measures.get(f"{cause}.{measure}")}
    known |= {n: arm.measures.get(f"{cause.replace('swaps', 'lags')}.{n}.{measure}") for n in (2, 4, 8)}
    points = {n: value for n, value in known.items() if value is not None}
    if not points:
        return None
    if lag in points:
        return points[lag]
    below, above = max((n for n in points if n < lag), default=0), min((n for n in points if n > lag), default=0)
    if not below or not above:
        notes.append(f"{lag} refreshes lie between, {max(points)} at most were measured: the truth is likely more")
        return points[below or above]
    notes.append(f"{lag} refreshes lie between: interpolated between {below} and {above}")
    share = (lag - below) / (above - below)
    return _plus(_plus(Interval(0, 0, 0), points[below], 1 - share), points[above], share)


def _plus(one: Interval, other: Interval, weight: float) -> Interval:
    return Interval(*(a + weight * b for a, b in zip(_limits(one), _limits(other), strict=True)))


def _limits(value: Interval) -> tuple[float, float, float]:
    return value.mean, value.low, value.high


def compared(ratio: Interval | None) -> Literal["less", "more", "unclear"]:
    """Which side of 1 a ratio is on, its whole interval considered."""
    if ratio is not None and ratio.high < 1:
        return "less"
    return "more" if ratio is not None and ratio.low > 1 else "unclear"


def ratio_to(arm: Arm, base: Arm, name: str) -> Interval | None:
    """The result's ratio of a measure to `base`, its first arm, else that of two independent estimates; None for x/0."""
    if arm is base:
        return Interval(1, 1, 1)
    given = arm.ratios.get(name.removeprefix("swaps.").replace("_swaps.", "_"))
    if given is not None or name not in arm.measures or name not in base.measures:
        return given
    return independent_ratio(arm.measures[name], base.measures[name])


def independent_ratio(new: Interval, old: Interval) -> Interval | None:
    """new / old of two independent estimates, its half-widths on the log scale added in squares; None for x/0."""
    if old.mean == 0:
        return None
    if new.mean == 0:
        return Interval(0, 0, 0)

    def apart(far: float, near: float) -> float:
        return math.log(far / near) if near > 0 else math.inf

    mean = new.mean / old.mean
    below = math.hypot(apart(new.mean, new.low), apart(old.high, old.mean))
    above = math.hypot(apart(new.high, new.mean), apart(old.mean, old.low))
    return Interval(mean, mean * math.exp(-below), mean * math.exp(min(above, 300.0)))


def independent_difference(new: Interval, old: Interval) -> Interval:
    """new - old of two independent estimates, with its 95 % interval: half-widths in squares (Zou and Donner 2008)."""
    mean = new.mean - old.mean
    below = math.hypot(new.mean - new.low, old.high - old.mean)
    above = math.hypot(new.high - new.mean, old.mean - old.low)
    return Interval(mean, mean - below, mean + above)


def seen_ratio(arm: Arm, base: Arm, situation: Situation, measure: str) -> Interval | None:
    """What a user of one arm sees as a ratio to another: the ratios by cause, weighed by what each has in the other's."""
    own, its = (what_a_user_sees(one, situation, measure) for one in (arm, base))
    if own is None or its is None or its.total.mean == 0:
        return None
    found, paired = Interval(0, 0, 0), all(lag <= 1 for _, lag in situation.weights())
    for cause, part in its.parts.items():
        ratio = ratio_to(arm, base, f"{cause}.{measure}") if paired else independent_ratio(own.parts[cause], part)
        if ratio is None:
            return independent_ratio(own.total, its.total)
        found = _plus(found, ratio, part.mean / its.total.mean)
    return found


def fleets(run: Result) -> int:
    """How many independent fleets its intervals cover; one where the result does not say."""
    value = run.config.get("fleets")
    return value if isinstance(value, int) else 1


def silent(result: Result) -> bool:
    """Whether all duplicates of all arms agreed exactly."""
    names = ("pd", *(f"swaps.{name}" for name in MEASURES))
    return all(arm.measures[name].high == 0 for arm in result.arms for name in names if name in arm.measures)


def repeats(arm: Arm, base: Arm) -> bool:
    """Whether two arms are independent sets of one design, as in an A/A run."""
    return arm is not base and arm.spec.partition("#")[0] == base.spec.partition("#")[0]


def best(result: Result) -> Arm:
    """The arm to talk about beside the first: fewest pair swaps among those whose log loss is not shown to be higher.

    Another design goes before a second set of the first one's (`relu#2`).
    """
    base, others = result.arms[0], result.arms[1:]
    others = [arm for arm in others if not repeats(arm, base)] or others
    fair = [arm for arm in others if compared(ratio_to(arm, base, "log_loss")) != "more"]
    nothing = Interval(math.inf, math.inf, math.inf)
    return min(fair or others or [base], key=lambda arm: arm.measures.get("swaps.pair", nothing).mean)


def too_little(arm: Arm, result: Result) -> str:
    """Why a model has learned too little to advise, empty where it has not, or where nothing is known."""
    auc, loss = arm.measures.get("auc"), arm.measures.get("log_loss")
    if auc is not None and auc.low <= 0.5:
        return f"AUC {written(auc, 3)} is not shown to be above that of guessing"
    for name, accuracy in result.baselines.items():
        its = accuracy.get("log_loss")
        if loss is None or its is None:
            continue
        ratio = arm.against.get(name, {}).get("log_loss") or independent_ratio(loss, its)
        said = f"log loss {number(loss.mean, 4)} is {{}} {OF_BASELINE.get(name, name)}, {number(its.mean, 4)}"
        if name == "logistic":
            if compared(ratio) == "more":
                return said.format("above that of")
        elif compared(ratio) != "less":
            return said.format("not shown to be below that of")
    return ""


OF_BASELINE = {"constant": "the base rate", "popularity": "item popularity", "logistic": "a logistic regression"}


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
    if ratio.high < 1:
        verdict = "shown to be lower"
    elif ratio.high <= 1 + margin:
        verdict = f"shown to be within {within}"
    elif ratio.low > 1:
        verdict = "shown to be higher"
    else:
        verdict = f"not shown to be within {within}"
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
    half = f"{every:g}s" if every % 3_600 else f"{every / 3_600:g}h"
    one = "none in accuracy or personalisation, and fewer models to train"
    keep = "none in accuracy or personalisation; how evenly replicas are loaded is not measured"
    late = "models are older when they serve: what that costs in accuracy is not measured; half the publishing"
    return [
        *([("serve copies of one model (--models 1)", replace(now, models=1), 1, one)] if now.models > 1 else []),
        *(
            [("sticky routing (--routing sticky)", replace(now, routing="sticky"), 1, keep)]
            if now.routing == "random"
            else []
        ),
        (f"refresh half as often (--refresh-every {half})", replace(now, refresh_every=half), 2, late),
    ]


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
        found.append(f"a smooth activation (`{plain + ',relu=smelu:beta=1' if own else 'smelu:beta=1'}`)")
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
        return {"over": HELD_BACK, "unclear": INCONCLUSIVE, "unlearned": INCONCLUSIVE}.get(self.verdict, PASSED)


def choose(result: Result, situation: Situation, measure: str, margin: float, budget: float | None = None) -> Choice:
    """The arm to try, for the page and for `recommend` alike.

    With a budget: the first arm where it keeps it, else the most accurate arm that is shown to keep it. Without: the arm
    that is shown to lower most what a user sees at no more than the margin of log loss, if there is one.
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
        return Choice(
            "unclear", f"This result does not hold the {MEASURES[measure].words} that the situation asks for."
        )
    fair = [arm for arm in others if not repeats(arm, base) and arm.spec in views and not too_little(arm, result)]
    if budget is not None:
        return _within(result, fair, views, measure, margin, budget)
    if not fair:
        if any(repeats(arm, base) for arm in others):
            why = "Both arms are one design: a ratio of about 1 is what should come out. Any other is chance."
        elif others:
            why = "No other arm has learned enough to be compared with."
        else:
            why = f"Add an arm to compare with, such as `--arms {base.spec} smelu:beta=1`."
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
    if ratio is None:
        return "unclear"
    return "no" if ratio.high <= 1 + margin else "yes" if ratio.low > 1 else "unclear"


def _within(
    result: Result, fair: list[Arm], views: dict[str, Seen], measure: str, margin: float, budget: float
) -> Choice:
    """The choice where a budget is given."""
    base, words = result.arms[0], f"{MEASURES[measure].words} on asking again"
    inside = [arm for arm in (base, *fair) if views[arm.spec].total.high <= budget]
    if base in inside:
        return Choice("stay", f"Stay with {label(base.spec)}: its {words} are within {number(budget)}.", base)
    if not inside:
        calmest = min((base, *fair), key=lambda arm: views[arm.spec].total.mean)
        least = f"{written(views[calmest.spec].total)}, {label(calmest.spec)}"
        if views[calmest.spec].total.mean <= budget:
            return Choice(
                "unclear",
                f"No arm is shown to keep {words} within {number(budget)}: the least is {least}: more "
                "fleets and queries would tell.",
            )
        return Choice(
            "over", f"No arm keeps {words} within {number(budget)}: the least is {least}; see what else lowers it."
        )
    rank = {"no": 0, "unclear": 1, "yes": 2}

    def order(arm: Arm) -> tuple[int, float]:
        ratio = ratio_to(arm, base, "log_loss")
        return rank[_loses(arm, base, margin)], ratio.mean if ratio else math.inf

    arm = min(inside, key=order)
    said = f"{words} {written(views[arm.spec].total)} within {number(budget)}, {accuracy_price(arm, base, margin)}"
    loses = _loses(arm, base, margin)
    if loses == "unclear":
        return Choice("unclear", f"Run more fleets before you choose {label(arm.spec)}: {said}.")
    verb = "is worth a trial" if loses == "no" else "keeps the budget at a price"
    return Choice("trial" if loses == "no" else "weigh", f"{label(arm.spec)} {verb}: {said}.", arm)


def advice(
    result: Result, situation: Situation | None = None, measure: str = "slot", margin: float = MARGIN
) -> list[str]:
    """What follows from the numbers, in sentences, for the page."""
    asked = situation or Situation()
    choice = choose(result, asked, measure, margin)
    said = [choice.why]
    if choice.verdict not in ("nothing", "unlearned") and (seen := what_a_user_sees(result.arms[0], asked, measure)):
        said.append(
            f"Of {label(result.arms[0].spec)}, a user who asks again sees {percent(seen.total.mean)} changed "
            f"({MEASURES[measure].words}). Assumed: {asked}; give yours to `flicker recommend`."
        )
        said += [
            f"Cheap to try: {change.words}: {percent(change.seen.mean)} changed; price: {change.price}."
            for change in changes(result, asked, measure, margin)[:3]
        ]
    if len(result.arms) > 3 and choice.verdict == "trial":
        said.append("The best of many arms looks better than it is: repeat the choice with another `--seed`.")
    if result.kind == "run" and fleets(result) == 1 and choice.verdict != "nothing":
        said.append("One fleet shows one initialisation. Use `--fleets 3` or more before you decide.")
    if result.world.get("name") == "synthetic":
        said.append("This world is made up. Repeat the run on your own log with `--data`.")
    return said


def swap_measure(name: str) -> None:
    """Raises SettingError where there is no swap measure of that name."""
    known = [each.name for each in MEASURES.values() if each.swap]
    require(name in known, "measure", name, f"one of {', '.join(known)}")


@dataclass(frozen=True)
class RecommendFlags:
    """What a user sees who asks again, what lowers it and at which price, and the arm to choose.

    Exit code 0 with a choice, 1 when no arm keeps the budget, 3 when the run cannot tell.
    """

    result: Annotated[Path, tyro.conf.Positional]
    """Folder of a finished run."""
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
        swap_measure(self.measure)


def recommend(flags: RecommendFlags) -> tuple[list[str], int]:
    """What to say, line by line, and the exit code. Raises ResultError for a folder that cannot be read."""
    result, situation, measure = read_result(flags.result), flags.situation, flags.measure
    choice = choose(result, situation, measure, flags.margin, flags.swap_budget)
    lines = [choice.why, f"Situation: {situation}.", f"What a user sees on asking again, {MEASURES[measure].words}:"]
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
    if choice.verdict not in ("unlearned", "nothing"):
        found = changes(result, situation, measure, flags.margin)
        lines += ["What lowers it, the cheapest first:"] if found else []
        lines += [f"  {change.words}: {written(change.seen)}; price: {change.price}" for change in found]
        missing = not_measured(result)
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
    found = {name: arm.measures[name] for name in ("log_loss", *QUALITIES) if name in arm.measures}
    words = {name: each.words for held in (ACCURACY, QUALITIES) for name, each in held.items()}
    return "".join(f", {words[name]} {written(value, 4)}" for name, value in list(found.items())[:1])


@dataclass(frozen=True)
class GateFlags:
    """Pass a candidate, hold it back, or say that the runs cannot tell. For a release pipeline.

    Without --these it speaks about training: another fleet could have come out. Each side then needs two fleets or more,
    and small increases five. With --these it speaks about these very models, of which other users could have asked:
    two files are enough. Several folders a side (other seeds) are one estimate. They may differ in arms, model, fleets
    and device; world, noise and what is asked must be the same, on the made-up world the seeds of both sides too.

    Exit code 0 when it passes, 1 when it is held back, 3 when it cannot be told, with one line that says why; 2 when the
    results cannot be compared.
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
        both = "give --baseline DIR and --max-swap-increase X, or --max-swaps X alone"
        increase = self.max_swap_increase is not None
        require(
            increase == bool(self.baseline) != (self.max_swaps is not None), "baseline", self.baseline or "(none)", both
        )
        swap_measure(self.measure)

    @property
    def allowed(self) -> float:
        """The increase that is accepted; without a baseline the ratio itself."""
        return self.max_swap_increase or self.max_swaps or 0.0


@dataclass(frozen=True)
class Side:
    """A swap ratio, estimated from one or more results together."""

    mean: float
    fleets: int
    spread: float | None
    """Variance between fleets; None where one fleet is all there is."""
    users: float
    """Half the width of the 95 % interval that other users alone would give."""

    def half_width(self, fleets: int | None = None) -> float:
        """Half the width of the 95 % interval over fleets and users, with so many fleets; those there are unless said."""
        n = fleets or self.fleets
        if self.spread is None or n < 2:
            return math.inf
        return math.hypot(student_quantile(0.975, n - 1) * math.sqrt(self.spread / n), self.users)

    def interval(self, these: bool) -> Interval:
        """With limits from 0 to 1."""
        half = self.users if these else self.half_width()
        return Interval(self.mean, max(self.mean - half, 0.0), min(self.mean + half, 1.0))


NOTHING = Side(0.0, MOST_FLEETS, 0.0, 0.0)
"""What a candidate without a baseline is held against."""


def pooled(runs: list[tuple[Result, Arm]], measure: str) -> Side:
    """One estimate from results that are alike but for their seeds.

    Every fleet weighs the same: its variance is that within results and between their means together, (N - 1) degrees of
    freedom from N fleets. On one log all results were asked by the same users, whose part then does not shrink; on made-up
    worlds of several seeds users are others, and their parts add in squares.
    """
    sizes, means, inner, users = [], [], [], []
    for run, arm in runs:
        swaps, these = _swaps(arm, measure), _these(run, arm, measure)
        half, own, count = _half(swaps), _half(these), fleets(run)
        sizes.append(count)
        means.append(swaps.mean)
        users.append(own)
        t = student_quantile(0.975, count - 1) if count > 1 else math.inf
        inner.append(count * (count - 1) * max(half**2 - own**2, 0.0) / t**2 if count > 1 else 0.0)
    total = sum(sizes)
    mean = sum(n * m for n, m in zip(sizes, means, strict=True)) / total
    squares = sum(inner) + sum(n * (m - mean) ** 2 for n, m in zip(sizes, means, strict=True))
    parts = [n * u / total for n, u in zip(sizes, users, strict=True)]
    shared = not runs[0][0].world.get("has_truth")
    return Side(mean, total, squares / (total - 1) if total > 1 else None, sum(parts) if shared else math.hypot(*parts))


def _half(value: Interval) -> float:
    """Half of an interval's width, whichever side of it was cut off at a limit."""
    return max(value.high - value.mean, value.mean - value.low)


def _these(run: Result, arm: Arm, measure: str) -> Interval:
    """The swap ratio of these very models: other users are all that could have been drawn."""
    found = arm.measures.get(f"swaps_these.{measure}")
    if found is None and run.kind == "run":
        raise FlickerError(
            f"arm {arm.spec}: no {MEASURES[measure].words} of these very models in its result: run it anew"
        )
    return found or _swaps(arm, measure)


def gate(flags: GateFlags) -> tuple[list[str], int]:
    """What to say, in one line, and the exit code.

    It passes where the whole 95 % interval of the increase lies within the allowance, and is held back where it lies
    above: each is wrong at most about once in forty. Else it is inconclusive, however large or small the increase: a gate
    that passed what a small run cannot tell would open the surer the less was measured.

    Raises ResultError, or SettingError where the results do not measure the same.
    """
    sides = []
    for folders, spec, setting in (
        (flags.result, flags.arm, "arm"),
        (flags.baseline, flags.baseline_arm, "baseline-arm"),
    ):
        runs = [(run, _arm(run, spec, setting)) for run in map(read_result, folders)]
        _require_different(runs, folders, "result" if setting == "arm" else "baseline")
        sides.append(runs)
    new_runs, old_runs = sides
    for (run, _), folder in zip(new_runs[1:], flags.result[1:], strict=True):
        require_alike(new_runs[0][0], run, folder, "result")
    for (run, _), folder in zip(old_runs, flags.baseline, strict=True):
        require_alike(new_runs[0][0], run, folder, "baseline")
    if old_runs and new_runs[0][0].world.get("has_truth"):
        _require_same_worlds(new_runs, old_runs)
    new = pooled(new_runs, flags.measure)
    old = pooled(old_runs, flags.measure) if old_runs else NOTHING
    mean, half = new.mean - old.mean, math.hypot(*(s.users if flags.these else s.half_width() for s in (new, old)))
    increase = Interval(mean, mean - half, mean + half)
    line = _line(flags, [new, old], sides, increase)
    if increase.low > flags.allowed:
        return [f"held back: {line}"], HELD_BACK
    if increase.high <= flags.allowed:
        return [f"passed: {line}"], PASSED
    verdicts = {"pass": ("passed, inconclusive", PASSED), "hold": ("held back, inconclusive", HELD_BACK)}
    verdict, code = verdicts.get(flags.inconclusive, ("inconclusive", INCONCLUSIVE))
    return [f"{verdict}: {line}: {_more([new, old], abs(flags.allowed - mean), flags.these)}"], code


def _line(flags: GateFlags, sides: list[Side], runs: list[list[tuple[Result, Arm]]], increase: Interval) -> str:
    """What was measured, over what, and the accuracy beside it."""
    new, *old = (side for side in sides if side is not NOTHING)
    what = f"{MEASURES[flags.measure].words} {_written(new, flags.these)}"
    if old:
        shown = written(increase) if math.isfinite(increase.high) else number(increase.mean)
        what += f" against {_written(old[0], flags.these)}: increase {shown}"
    losses = [[arm.measures["log_loss"].mean for _, arm in side if "log_loss" in arm.measures] for side in runs]
    means = " against ".join(number(sum(side) / len(side), 4) for side in losses if side)
    who = "these models" if flags.these else " and ".join(plural(side.fleets, "fleet") for side in (new, *old))
    return f"{what}, {number(flags.allowed)} allowed, by {who}" + (f"; log loss {means}" if means else "")


def _written(side: Side, these: bool) -> str:
    return written(side.interval(these)) if these or side.spread is not None else number(side.mean)


def _more(sides: list[Side], distance: float, these: bool) -> str:
    """What would make an inconclusive gate conclusive, if the estimates stay where they are."""
    if these or math.hypot(*(side.users for side in sides)) >= distance:
        return "other users could change that: ask more --queries"
    known = [side.spread for side in sides if side.spread is not None and side is not NOTHING]
    if not known:
        return "one fleet says nothing about training: run about 2 more fleets of each"
    sides = [replace(side, spread=max(known)) if side.spread is None else side for side in sides]
    for more in range(1, MOST_FLEETS):
        if math.hypot(*(side.half_width(side.fleets + more) for side in sides)) <= distance:
            return f"run about {more} more {'fleet' if more == 1 else 'fleets'} of each"
    return f"more than {MOST_FLEETS:,} fleets would be needed, so near the allowance does it lie"


def _require_different(runs: list[tuple[Result, Arm]], folders: tuple[Path, ...], setting: str) -> None:
    """Raises SettingError where one result is given twice: the same draws again are no more evidence."""
    known: dict[Any, Path] = {}
    for (run, _), folder in zip(runs, folders, strict=True):
        mark = run.config.get("seed", folder.resolve()) if run.kind == "run" else folder.resolve()
        if mark in known:
            raise SettingError(setting, folder, f"the same seed as {known[mark]}: give runs of different --seed")
        known[mark] = folder


def _require_same_worlds(new: list[tuple[Result, Arm]], old: list[tuple[Result, Arm]]) -> None:
    """Raises SettingError where two sides did not see the same made-up worlds: each is drawn from its seed."""
    worlds = [sorted((run.config.get("seed", 0), fleets(run)) for run, _ in side) for side in (new, old)]
    if len(new) == len(old) == 1:
        worlds = [[(seed, 0) for seed, _ in side] for side in worlds]
    if worlds[0] != worlds[1]:
        mine, its = (", ".join(str(seed) for seed, _ in side) for side in worlds)
        raise SettingError(
            "baseline", f"seed {its}", f"the candidate's is {mine}: run both with the same --seed and --fleets"
        )


def require_alike(candidate: Result, other: Result, folder: Path, setting: str) -> None:
    """Raises SettingError for the first setting by which the numbers of two results do not mean the same.

    `folder` is that of the other. Arms, model, fleets, device and seed may differ.
    """
    new, old = _meaning(candidate), _meaning(other)
    for name in new | old:
        mine, its = (held.get(name, "not recorded") for held in (new, old))
        if mine != its:
            flag = "data" if name.startswith("world's") else name.rpartition(".")[2].replace("_", "-")
            hint = f"run both with the same --{flag}" + (", or both without" if flag == "data" else "")
            its, mine = ("not set" if value is None else value for value in (its, mine))
            raise SettingError(setting, folder, f"its {name} is {its}, the candidate's {mine}: {hint}")


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
        raise FlickerError(f"arm {arm.spec}: no {MEASURES[measure].words} in its result: use another --measure")
    return found
