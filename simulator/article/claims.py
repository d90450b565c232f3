"""Each claim of the article on one world: yes, no, or not shown, by the margins of docs/protocol.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from simulator.article.grid import CONDITION_RATES
from simulator.article.table import Family, Units, WorldCells, matched, ratio, times
from simulator.measures.words import label, number, written
from simulator.types import Interval

Verdict = Literal["yes", "no", "partly", "not shown", "not run"]
NO_WORSE = 1.005
"""A log loss is no worse where the interval of its ratio ends below it."""
AS_GOOD = 1.002
"""What may be chosen has at most this progressive log loss, as a ratio to ReLU's."""
SAME = {"pd": (0.95, 1.05), "log_loss": (0.998, 1.002)}
RIVALS = ("swish", "gelu", "softplus")
NORMS = ("before", "after", "weight")
RATE = re.compile(r"[,:]lr=[^,#]+")


@dataclass(frozen=True)
class Finding:
    """The verdict on one claim, and its numbers."""

    verdict: Verdict
    summary: str


NOT_RUN = Finding("not run", "its settings were not run on this world")


def design(spec: str) -> str:
    """A spec without its learning rate: `smelu:beta=1,lr=0.08` -> `smelu:beta=1`."""
    return RATE.sub("", spec)


def family(world: WorldCells, group: str, *designs: str) -> dict[str, Units]:
    """Every setting of some designs, at all rates."""
    return {spec: units for spec, units in world.groups.get(group, {}).items() if design(spec) in designs}


def designs(world: WorldCells, group: str, name: str) -> list[str]:
    """Designs of an activation by its strength alone, ascending: `smelu:beta=0.1`, `smelu:beta=0.25` ..."""
    specs = dict.fromkeys(map(design, world.groups.get(group, {})))
    return [spec for spec in specs if re.fullmatch(rf"{name}(:beta=[\d.]+)?", spec)]


def of_norm(world: WorldCells, name: str, norm: str) -> list[str]:
    """Designs of an activation under a norm, but for the limit of a large beta."""
    specs = dict.fromkeys(map(design, world.groups.get("norms", {})))
    return [spec for spec in specs if spec.startswith(name) and spec.endswith(f"norm={norm}") and "=100," not in spec]


def at_best_rate(world: WorldCells, group: str, name: str, rates: Sequence[str] = ()) -> Units:
    """The units of a design at its own rate: that of least early log loss, mean over units, of `rates` or of all;
    empty where not run."""
    candidates = [
        units
        for spec, units in family(world, group, name).items()
        if all("early_loss" in values for values in units.values())
        and (not rates or any(f"lr={rate}" in re.split("[:,]", spec) for rate in rates))
    ]
    return min(candidates, key=lambda units: np.mean([one["early_loss"] for one in units.values()]), default={})


def relu(world: WorldCells) -> Units:
    """ReLU without a norm, at its own rate: the reference of ratios."""
    return at_best_rate(world, "activations", "relu")


def choice(world: WorldCells) -> tuple[str, Units]:
    """SmeLU's setting as the protocol chooses it on the part before; ReLU where none is as accurate."""
    base, candidates = relu(world), []
    for name in designs(world, "activations", "smelu"):
        units = at_best_rate(world, "activations", name)
        loss, pd = (ratio(units, base, part) for part in ("part_loss", "part_pd"))
        if loss and pd and loss.mean <= AS_GOOD:
            candidates.append((pd.mean, name, units))
    return min(candidates, key=lambda candidate: candidate[0])[1:] if candidates else ("relu", base)


def _pd_and_loss(units: Units, base: Units) -> tuple[Interval, Interval] | None:
    pd, loss = ratio(units, base, "pd"), ratio(units, base, "log_loss")
    return (pd, loss) if pd and loss else None


def halved(world: WorldCells) -> Finding:
    """Claim 1."""
    name, units = choice(world)
    ratios = _pd_and_loss(units, relu(world))
    if ratios is None:
        return NOT_RUN
    if name == "relu":
        return Finding("no", f"no SmeLU is within {100 * (AS_GOOD - 1):.1f} % of ReLU's log loss on the part before")
    pd, loss = ratios
    summary = f"{label(name)}: PD {times(pd)}, log loss {times(loss, 3)}"
    if pd.high < 0.5 and loss.high < NO_WORSE:
        return Finding("yes", summary)
    return Finding("no" if pd.low > 0.5 else "not shown", summary)


def rivals(world: WorldCells) -> Finding:
    """Claim 2."""
    relu_family = family(world, "activations", "relu")
    smelu = family(world, "activations", *designs(world, "activations", "smelu"))
    if not relu_family or not smelu:
        return NOT_RUN
    parts, lower, higher = [], 0, 0
    for name in RIVALS:
        match = matched(smelu, family(world, "activations", *designs(world, "activations", name)), relu_family)
        parts.append(f"{label(name)} {times(match.ratio) if match else 'not comparable'}")
        lower += match is not None and match.ratio.high < 1
        higher += match is not None and match.ratio.low > 1
    summary = "PD at equal log loss, to " + ", ".join(parts)
    return Finding(_verdict(lower, higher, len(RIVALS)), summary)


def _verdict(confirmed: int, refuted: int, total: int) -> Verdict:
    if confirmed == total:
        return "yes"
    return "partly" if confirmed else "no" if refuted else "not shown"


def u_shape(world: WorldCells) -> Finding:
    """Claim 3."""
    base, losses = relu(world), []
    for name in designs(world, "activations", "smelu"):
        if loss := ratio(at_best_rate(world, "activations", name), base, "log_loss"):
            losses.append((name, loss))
    if len(losses) < 3:
        return NOT_RUN
    (name, minimum), (largest_beta, at_largest) = min(losses, key=lambda entry: entry[1].mean), losses[-1]
    summary = f"least at {label(name)}: log loss {times(minimum, 3)}; {label(largest_beta)} {times(at_largest, 3)}"
    dips, rises = minimum.high < 1, at_largest.low > 1
    return Finding("yes" if dips and rises else "no" if rises else "not shown", summary)


def limit(world: WorldCells) -> Finding:
    """Claim 4."""
    smooth, linear = (at_best_rate(world, "norms", f"{name}norm=after") for name in ("smelu:beta=100,", "linear:"))
    ratios = _pd_and_loss(smooth, linear)
    if ratios is None:
        return NOT_RUN
    summary = f"SmeLU (beta = 100) to no activation: PD {times(ratios[0])}, log loss {times(ratios[1], 4)}"
    limits = list(zip(ratios, SAME.values(), strict=True))
    if all(low < one.low and one.high < high for one, (low, high) in limits):
        return Finding("yes", summary)
    differs = any(one.high < low or one.low > high for one, (low, high) in limits)
    return Finding("no" if differs else "not shown", summary)


def depth_pays(world: WorldCells) -> Finding:
    """Claim 5."""
    ratios = _pd_and_loss(at_best_rate(world, "activations", "linear"), relu(world))
    if ratios is None:
        return NOT_RUN
    pd, loss = ratios
    summary = f"additive: log loss {times(loss, 3)}, PD {times(pd)}"
    return Finding("yes" if loss.low > 1 else "no" if loss.high < 1 else "not shown", summary)


def ensembles(world: WorldCells) -> Finding:
    """Claim 6: lower PD with more networks; and what SmeLU does for the cost of one, beside three."""
    base, (name, smooth) = relu(world), choice(world)
    by_size = [at_best_rate(world, "cures", f"ensemble:relu:m={m}") for m in (3, 5)]
    pds = [pd for of_size in by_size if (pd := ratio(of_size, base, "pd"))]
    if len(pds) < len(by_size):
        return NOT_RUN
    summary = f"3 networks: PD {times(pds[0])}, 5: {times(pds[1])}"
    if any(pd.high >= 1 for pd in pds):
        return Finding("not shown", summary)
    to_three = ratio(smooth, by_size[0], "pd")
    if name == "relu" or to_three is None:
        return Finding("partly", f"{summary}; no SmeLU was chosen")
    verdict: Verdict = "yes" if to_three.high < SAME["pd"][1] else "partly"
    return Finding(verdict, f"{summary}; {label(name)} to 3: {times(to_three)}")


def _pd_and_loss_text(words: str, ratios: tuple[Interval, Interval]) -> str:
    return f"{words} {number(ratios[0].mean, 2)} / {number(ratios[1].mean, 3)}"


def equal_cost(world: WorldCells) -> Finding:
    """Claim 7."""
    ratios = {
        words: both
        for words, name in {"3 narrow networks": "ensemble:relu:m=3,narrow", "longer embeddings": "relu:dim=48"}.items()
        if (both := _pd_and_loss(at_best_rate(world, "cures", name), relu(world)))
    }
    helped = any(pd.high < 1 and loss.high < NO_WORSE for pd, loss in ratios.values())
    failed = all(pd.low > 1 or loss.low > 1 for pd, loss in ratios.values())
    summary = "PD / log loss: " + ", ".join(_pd_and_loss_text(words, both) for words, both in ratios.items())
    return Finding("no" if helped else "yes" if failed else "not shown", summary) if ratios else NOT_RUN


def distilled(world: WorldCells) -> Finding:
    """Claim 8."""
    base, parts, confirmed, refuted = relu(world), [], 0, 0
    for name in ("codistill:relu:m=2", "antidistill:relu:m=3", "anchor:relu", "average:relu"):
        if ratios := _pd_and_loss(at_best_rate(world, "cures", name), base):
            pd, loss = ratios
            helps = pd.high < 1 and loss.high < NO_WORSE
            hurts = pd.low > 1 or loss.low > NO_WORSE
            confirmed, refuted = confirmed + helps, refuted + hurts
            parts.append(_pd_and_loss_text(label(name).removeprefix("ReLU, "), ratios))
    return Finding(_verdict(confirmed, refuted, len(parts)), "PD / log loss: " + ", ".join(parts)) if parts else NOT_RUN


CONDITIONS = {"own": "own start", "shuffled": "window 128", "both": "both"}


def conditions(world: WorldCells) -> Finding:
    """Claim 9: SmeLU's ratio to ReLU, without a norm, at the rates that conditions were run at."""
    smelu, base = "smelu:beta=0.25", at_best_rate(world, "activations", "relu", CONDITION_RATES)
    usual = ratio(at_best_rate(world, "activations", smelu, CONDITION_RATES), base, "pd")
    relu_units = {words: at_best_rate(world, group, "relu") for group, words in CONDITIONS.items()}
    gains = [ratio(at_best_rate(world, group, smelu), relu_units[words], "pd") for group, words in CONDITIONS.items()]
    measured, raised = list(filter(None, gains)), [ratio(units, base, "pd") for units in relu_units.values()]
    if usual is None or len(measured) < len(CONDITIONS):
        return NOT_RUN
    lost = sum(interval.low > usual.high for interval in measured)
    gained = ", ".join(f"{words} {written(one, 2)}" for words, one in zip(CONDITIONS.values(), measured, strict=True))
    relu_pd = _joined_means(filter(None, raised), 2)
    summary = f"SmeLU / ReLU: usual {number(usual.mean, 2)}, {gained}; ReLU's PD × {relu_pd}"
    if lost:
        return Finding("yes" if lost == len(measured) else "partly", summary)
    return Finding("no" if all(interval.high < 1 for interval in measured) else "not shown", summary)


def sources(world: WorldCells) -> dict[str, dict[str, Units]]:
    """Source of noise -> spec -> units."""
    return {name.removeprefix("noise "): arms for name, arms in world.groups.items() if name.startswith("noise ")}


def each_source(world: WorldCells) -> Finding:
    """Claim 10."""
    by_source = {name: [one["pd"] for one in arms.get("relu", {}).values()] for name, arms in sources(world).items()}
    quiet = by_source.pop("nothing", None)
    if quiet is None or not by_source:
        return NOT_RUN
    quietest, loudest = (choose(by_source, key=lambda name: float(np.mean(by_source[name]))) for choose in (min, max))
    differ = all(min(values) > 0 for values in by_source.values())
    summary = (
        f"without noise {'exactly 0' if max(quiet) == 0 else 'NOT 0'}; of {len(by_source)} sources least {quietest} "
        f"{number(float(np.mean(by_source[quietest])))}, most {loudest} {number(float(np.mean(by_source[loudest])))}"
    )
    return Finding("yes" if differ and max(quiet) == 0 else "no", summary)


def asynchronous(world: WorldCells) -> Finding:
    """Claim 11."""
    parts, confirmed, refuted = [], 0, 0
    for name, words in (("delay", "delayed updates"), ("racing", "racing threads")):
        arms = sources(world).get(name, {})
        if pd_ratio := ratio(arms.get("smelu:beta=0.25", {}), arms.get("relu", {}), "pd"):
            parts.append(f"{words} {times(pd_ratio)}")
            confirmed, refuted = confirmed + (pd_ratio.high < 1), refuted + (pd_ratio.low > 1)
    summary = "SmeLU's PD to ReLU's: " + ", ".join(parts)
    return Finding(_verdict(confirmed, refuted, len(parts)), summary) if parts else NOT_RUN


def norm_ratios(world: WorldCells, norm: str) -> dict[str, tuple[Interval, Interval]]:
    """PD and log loss of ReLU under a norm to without, by condition."""
    pairs = {
        "same start": (at_best_rate(world, "norms", f"relu:norm={norm}"), relu(world)),
        "own start": (at_best_rate(world, "own", f"relu:norm={norm}"), at_best_rate(world, "own", "relu")),
        "wide": tuple(at_best_rate(world, "wide", f"relu:norm={kind},hidden=256x128x64") for kind in (norm, "none")),
    }
    return {words: ratios for words, pair in pairs.items() if (ratios := _pd_and_loss(*pair))}


def no_norm(world: WorldCells) -> Finding:
    """Claim 12, of the layer norm after the activation and before it; unit weights stand in the figure."""
    parts, confirmed, refuted, total = [], 0, 0, 0
    for norm in ("after", "before"):
        ratios = norm_ratios(world, norm)
        if not ratios:
            return NOT_RUN
        pds, losses = ([pair[place] for pair in ratios.values()] for place in (0, 1))
        total += len(ratios)
        confirmed += sum(pd.low > 1 and loss.low > 1 for pd, loss in ratios.values())
        refuted += sum(pd.high < 1 or loss.high < 1 for pd, loss in ratios.values())
        parts.append(f"{norm} PD {_joined_means(pds, 2)}, log loss {_joined_means(losses, 3)}")
    return Finding(_verdict(confirmed, refuted, total), f"{' / '.join(ratios)}: " + "; ".join(parts))


def _joined_means(values: Iterable[Interval], places: int) -> str:
    return "/".join(number(value.mean, places) for value in values)


def at_a_refresh(world: WorldCells) -> Finding:
    """Claim 13."""
    name, units = choice(world)
    swap_ratio = ratio(units, relu(world), "refresh_pair")
    if swap_ratio is None or name == "relu":
        return NOT_RUN if swap_ratio is None else Finding("not shown", "no SmeLU was chosen")
    summary = f"{label(name)}: pair swaps at a refresh {times(swap_ratio)}"
    return Finding("yes" if swap_ratio.high < 1 else "no" if swap_ratio.low > 1 else "not shown", summary)


def same_arm_twice(world: WorldCells) -> Finding:
    """Claim 14."""
    first, second = (world.units("again", spec) for spec in ("relu", "relu#2"))
    pd, pair, loss = (ratio(second, first, name) for name in ("pd", "pair", "log_loss"))
    if not (pd and pair and loss):
        return NOT_RUN
    excluding_one = sum(not value.low <= 1 <= value.high for value in (pd, pair, loss))
    summary = f"PD {times(pd)}, pair swaps {times(pair)}, log loss {times(loss, 3)}"
    return Finding("no" if excluding_one > 1 else "partly" if excluding_one else "yes", summary)


@dataclass(frozen=True)
class Claim:
    """A claim of the article, or of an earlier run of ours; the figure that shows it."""

    words: str
    figure: str
    decide: Callable[[WorldCells], Finding]


CLAIMS = (
    Claim("A smooth activation halves PD at no worse accuracy", "frontiers", halved),
    Claim("SmeLU has less PD than Swish, GELU and Softplus at equal log loss", "matched", rivals),
    Claim("Log loss is U-shaped in beta", "beta", u_shape),
    Claim("The limit of a large beta is the model without activation", "beta", limit),
    Claim("Depth pays: the additive model predicts worse", "frontiers", depth_pays),
    Claim("Ensembles lower PD; SmeLU does so for the cost of one", "costs", ensembles),
    Claim("Of equal cost, ensembles do not", "costs", equal_cost),
    Claim("Distillation and averaging lower PD at no worse log loss", "costs", distilled),
    Claim("Own initialisation or heavy shuffling loses SmeLU's gain", "conditions", conditions),
    Claim("Each source of noise alone makes duplicates differ", "sources", each_source),
    Claim("SmeLU helps where training is asynchronous", "sources", asynchronous),
    Claim("ReLU without layer norm has less PD and less log loss", "norms", no_norm),
    Claim("A smooth activation changes less at a refresh", "seen", at_a_refresh),
    Claim("The same arm twice differs by chance alone (A/A)", "matched", same_arm_twice),
)


@dataclass(frozen=True)
class Prediction:
    """The prediction for the choice from the part before, and the result at the end."""

    name: str
    predicted: Interval
    actual: Interval
    between: Interval
    """Found / predicted, paired."""

    @property
    def holds(self) -> bool:
        """Whether nothing but chance is between the two."""
        return self.between.low <= 1 <= self.between.high


def prediction(world: WorldCells) -> Prediction | None:
    """Of the PD of the choice, as a ratio to ReLU's; None where it was not run, or ReLU was chosen."""
    (name, units), base = choice(world), relu(world)
    early, late = ratio(units, base, "part_pd"), ratio(units, base, "pd")
    if name == "relu" or early is None or late is None:
        return None
    places = {"early": "part_pd", "late": "pd"}
    ratios = {
        unit: {place: units[unit][measure] / base[unit][measure] for place, measure in places.items()}
        for unit in units.keys() & base.keys()
    }
    between = ratio(ratios, ratios, "late", "early")
    return Prediction(name, early, late, between) if between else None


def families(world: WorldCells) -> dict[str, Family]:
    """Words -> every setting of what is compared with ReLU without a norm at equal log loss."""
    by_words: dict[str, Family] = {
        label(name): family(world, "activations", *designs(world, "activations", name)) for name in ("smelu", *RIVALS)
    }
    for norm in NORMS:
        for name, words in (("relu", "ReLU"), ("smelu", "SmeLU")):
            by_words[f"{words}, norm {norm}"] = family(world, "norms", *of_norm(world, name, norm))
    return {words: members for words, members in by_words.items() if members}


def decide_all(worlds: Iterable[WorldCells]) -> list[tuple[Claim, list[Finding]]]:
    """Every claim on every world."""
    all_worlds = list(worlds)
    return [(claim, [claim.decide(world) for world in all_worlds]) for claim in CLAIMS]
