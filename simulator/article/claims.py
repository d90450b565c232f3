"""Each claim of the article on one world: yes, no, or not shown, by the margins of docs/protocol.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from simulator.article.frontier import Family, matched
from simulator.article.grid import CONDITION_RATES
from simulator.article.table import Units, World, ratio, times
from simulator.measures.intervals import Interval
from simulator.words import label, number, written

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
    """What the numbers say to one claim."""

    verdict: Verdict
    say: str


NOT_RUN = Finding("not run", "its settings were not run on this world")


def design(spec: str) -> str:
    """A spec without its learning rate: `smelu:beta=1,lr=0.08` -> `smelu:beta=1`."""
    return RATE.sub("", spec)


def family(world: World, group: str, *designs: str) -> dict[str, Units]:
    """Every setting of some designs, at all rates."""
    return {spec: units for spec, units in world.groups.get(group, {}).items() if design(spec) in designs}


def designs(world: World, group: str, name: str) -> list[str]:
    """Those of an activation by its strength alone, ascending: `smelu:beta=0.1`, `smelu:beta=0.25` ..."""
    found = dict.fromkeys(map(design, world.groups.get(group, {})))
    return [one for one in found if re.fullmatch(rf"{name}(:beta=[\d.]+)?", one)]


def own_rate(world: World, group: str, name: str, rates: Sequence[str] = ()) -> Units:
    """The units of a design at its own rate: that of least early log loss, mean over units, of `rates` or of all;
    empty where not run."""
    every = [
        units
        for spec, units in family(world, group, name).items()
        if all("early_loss" in one for one in units.values())
        and (not rates or any(f"lr={rate}" in re.split("[:,]", spec) for rate in rates))
    ]
    return min(every, key=lambda units: float(np.mean([one["early_loss"] for one in units.values()])), default={})


def relu(world: World) -> Units:
    """ReLU without a norm, at its own rate: what ratios refer to."""
    return own_rate(world, "activations", "relu")


def choice(world: World) -> tuple[str, Units]:
    """SmeLU's setting as the protocol chooses it on the part before; ReLU where none is as accurate."""
    base, found = relu(world), []
    for name in designs(world, "activations", "smelu"):
        units = own_rate(world, "activations", name)
        loss, pd = (ratio(units, base, part) for part in ("part_loss", "part_pd"))
        if loss and pd and loss.mean <= AS_GOOD:
            found.append((pd.mean, name, units))
    return min(found, key=lambda one: one[0])[1:] if found else ("relu", base)


def _pd_and_loss(own: Units, base: Units) -> tuple[Interval, Interval] | None:
    pd, loss = ratio(own, base, "pd"), ratio(own, base, "log_loss")
    return (pd, loss) if pd and loss else None


def halved(world: World) -> Finding:
    """Claim 1."""
    name, units = choice(world)
    found = _pd_and_loss(units, relu(world))
    if found is None:
        return NOT_RUN
    if name == "relu":
        return Finding("no", f"no SmeLU is within {100 * (AS_GOOD - 1):.1f} % of ReLU's log loss on the part before")
    pd, loss = found
    say = f"{label(name)}: PD {times(pd)}, log loss {times(loss, 3)}"
    if pd.high < 0.5 and loss.high < NO_WORSE:
        return Finding("yes", say)
    return Finding("no" if pd.low > 0.5 else "not shown", say)


def rivals(world: World) -> Finding:
    """Claim 2."""
    plain = family(world, "activations", "relu")
    own = family(world, "activations", *designs(world, "activations", "smelu"))
    if not plain or not own:
        return NOT_RUN
    said, lower, higher = [], 0, 0
    for name in RIVALS:
        found = matched(own, family(world, "activations", *designs(world, "activations", name)), plain)
        said.append(f"{label(name)} {times(found.ratio) if found else 'not comparable'}")
        lower += found is not None and found.ratio.high < 1
        higher += found is not None and found.ratio.low > 1
    say = "PD at equal log loss, to " + ", ".join(said)
    return Finding(_counted(lower, higher, len(RIVALS)), say)


def _counted(good: int, bad: int, every: int) -> Verdict:
    if good == every:
        return "yes"
    return "partly" if good else "no" if bad else "not shown"


def u_shape(world: World) -> Finding:
    """Claim 3."""
    base, found = relu(world), []
    for name in designs(world, "activations", "smelu"):
        if loss := ratio(own_rate(world, "activations", name), base, "log_loss"):
            found.append((name, loss))
    if len(found) < 3:
        return NOT_RUN
    (name, least), (last, most) = min(found, key=lambda one: one[1].mean), found[-1]
    say = f"least at {label(name)}: log loss {times(least, 3)}; {label(last)} {times(most, 3)}"
    dips, rises = least.high < 1, most.low > 1
    return Finding("yes" if dips and rises else "no" if rises else "not shown", say)


def limit(world: World) -> Finding:
    """Claim 4."""
    found = _pd_and_loss(
        own_rate(world, "norms", "smelu:beta=100,norm=after"), own_rate(world, "norms", "linear:norm=after")
    )
    if found is None:
        return NOT_RUN
    ratios = dict(zip(("pd", "log_loss"), found, strict=True))
    say = f"SmeLU (beta = 100) to no activation: PD {times(found[0])}, log loss {times(found[1], 4)}"
    if all(SAME[name][0] < one.low and one.high < SAME[name][1] for name, one in ratios.items()):
        return Finding("yes", say)
    off = any(one.high < SAME[name][0] or one.low > SAME[name][1] for name, one in ratios.items())
    return Finding("no" if off else "not shown", say)


def depth_pays(world: World) -> Finding:
    """Claim 5."""
    found = _pd_and_loss(own_rate(world, "activations", "linear"), relu(world))
    if found is None:
        return NOT_RUN
    pd, loss = found
    say = f"additive: log loss {times(loss, 3)}, PD {times(pd)}"
    return Finding("yes" if loss.low > 1 else "no" if loss.high < 1 else "not shown", say)


def ensembles(world: World) -> Finding:
    """Claim 6: lower PD with more networks; and what SmeLU does for the cost of one, beside three."""
    base, (name, smooth) = relu(world), choice(world)
    several = [own_rate(world, "cures", f"ensemble:relu:m={m}") for m in (3, 5)]
    pds = [pd for one in several if (pd := ratio(one, base, "pd"))]
    if len(pds) < len(several):
        return NOT_RUN
    say = f"3 networks: PD {times(pds[0])}, 5: {times(pds[1])}"
    if any(pd.high >= 1 for pd in pds):
        return Finding("not shown", say)
    beside = ratio(smooth, several[0], "pd")
    if name == "relu" or beside is None:
        return Finding("partly", f"{say}; no SmeLU was chosen")
    return Finding("yes" if beside.high < SAME["pd"][1] else "partly", f"{say}; {label(name)} to 3: {times(beside)}")


def _beside(words: str, found: tuple[Interval, Interval]) -> str:
    return f"{words} {number(found[0].mean, 2)} / {number(found[1].mean, 3)}"


def equal_cost(world: World) -> Finding:
    """Claim 7."""
    named = {"3 narrow networks": "ensemble:relu:m=3,narrow", "longer embeddings": "relu:dim=48"}
    ratios = {words: _pd_and_loss(own_rate(world, "cures", name), relu(world)) for words, name in named.items()}
    found = {words: both for words, both in ratios.items() if both}
    helped = any(pd.high < 1 and loss.high < NO_WORSE for pd, loss in found.values())
    failed = all(pd.low > 1 or loss.low > 1 for pd, loss in found.values())
    say = "PD / log loss: " + ", ".join(_beside(words, both) for words, both in found.items())
    return Finding("no" if helped else "yes" if failed else "not shown", say) if found else NOT_RUN


def distilled(world: World) -> Finding:
    """Claim 8."""
    base, said, good, bad = relu(world), [], 0, 0
    for name in ("codistill:relu:m=2", "antidistill:relu:m=3", "anchor:relu", "average:relu"):
        if found := _pd_and_loss(own_rate(world, "cures", name), base):
            pd, loss = found
            fine = pd.high < 1 and loss.high < NO_WORSE
            worse = pd.low > 1 or loss.low > NO_WORSE
            good, bad = good + fine, bad + worse
            said.append(_beside(label(name).removeprefix("ReLU, "), found))
    return Finding(_counted(good, bad, len(said)), "PD / log loss: " + ", ".join(said)) if said else NOT_RUN


CONDITIONS = {"own": "own start", "shuffled": "window 128", "both": "both"}


def conditions(world: World) -> Finding:
    """Claim 9: what happens to SmeLU's ratio to ReLU, without a norm, at the rates that conditions were run at."""
    smelu, base = "smelu:beta=0.25", own_rate(world, "activations", "relu", CONDITION_RATES)
    usual = ratio(own_rate(world, "activations", smelu, CONDITION_RATES), base, "pd")
    there = {words: own_rate(world, group, "relu") for group, words in CONDITIONS.items()}
    gains = [ratio(own_rate(world, group, smelu), there[words], "pd") for group, words in CONDITIONS.items()]
    known, raised = [one for one in gains if one], [ratio(units, base, "pd") for units in there.values()]
    if usual is None or len(known) < len(CONDITIONS):
        return NOT_RUN
    lost = sum(one.low > usual.high for one in known)
    shown = ", ".join(f"{words} {written(one, 2)}" for words, one in zip(CONDITIONS.values(), known, strict=True))
    say = (
        f"SmeLU / ReLU: usual {number(usual.mean, 2)}, {shown}; ReLU's PD × {_each([one for one in raised if one], 2)}"
    )
    if lost:
        return Finding("yes" if lost == len(known) else "partly", say)
    return Finding("no" if all(one.high < 1 for one in known) else "not shown", say)


def sources(world: World) -> dict[str, dict[str, Units]]:
    """Source of noise -> spec -> units."""
    return {name.removeprefix("noise "): arms for name, arms in world.groups.items() if name.startswith("noise ")}


def each_source(world: World) -> Finding:
    """Claim 10."""
    found = {name: [one["pd"] for one in arms.get("relu", {}).values()] for name, arms in sources(world).items()}
    quiet = found.pop("nothing", None)
    if quiet is None or not found:
        return NOT_RUN
    least, most = (choose(found, key=lambda name: float(np.mean(found[name]))) for choose in (min, max))
    differ = all(min(values) > 0 for values in found.values())
    say = (
        f"without noise {'exactly 0' if max(quiet) == 0 else 'NOT 0'}; of {len(found)} sources least {least} "
        f"{number(float(np.mean(found[least])))}, most {most} {number(float(np.mean(found[most])))}"
    )
    return Finding("yes" if differ and max(quiet) == 0 else "no", say)


def asynchronous(world: World) -> Finding:
    """Claim 11."""
    said, good, bad = [], 0, 0
    for name, words in (("delay", "delayed updates"), ("racing", "racing threads")):
        arms = sources(world).get(name, {})
        if found := ratio(arms.get("smelu:beta=0.25", {}), arms.get("relu", {}), "pd"):
            said.append(f"{words} {times(found)}")
            good, bad = good + (found.high < 1), bad + (found.low > 1)
    return Finding(_counted(good, bad, len(said)), "SmeLU's PD to ReLU's: " + ", ".join(said)) if said else NOT_RUN


def norm_ratios(world: World, norm: str) -> dict[str, tuple[Interval, Interval]]:
    """PD and log loss of ReLU under a norm to without, by condition."""
    own = {
        "same start": (own_rate(world, "norms", f"relu:norm={norm}"), relu(world)),
        "own start": (own_rate(world, "own", f"relu:norm={norm}"), own_rate(world, "own", "relu")),
        "wide": tuple(own_rate(world, "wide", f"relu:norm={one},hidden=256x128x64") for one in (norm, "none")),
    }
    return {words: found for words, (there, none) in own.items() if (found := _pd_and_loss(there, none))}


def no_norm(world: World) -> Finding:
    """Claim 12, of the layer norm after the activation and before it; unit weights stand in the figure."""
    said, good, bad, every = [], 0, 0, 0
    for norm in ("after", "before"):
        found = norm_ratios(world, norm)
        if not found:
            return NOT_RUN
        pds, losses = ([one[place] for one in found.values()] for place in (0, 1))
        every += len(found)
        good += sum(pd.low > 1 and loss.low > 1 for pd, loss in found.values())
        bad += sum(pd.high < 1 or loss.high < 1 for pd, loss in found.values())
        said.append(f"{norm} PD {_each(pds, 2)}, log loss {_each(losses, 3)}")
    return Finding(_counted(good, bad, every), f"{' / '.join(found)}: " + "; ".join(said))


def _each(values: Sequence[Interval], places: int) -> str:
    return "/".join(number(one.mean, places) for one in values)


def at_a_refresh(world: World) -> Finding:
    """Claim 13."""
    name, units = choice(world)
    found = ratio(units, relu(world), "refresh_pair")
    if found is None or name == "relu":
        return NOT_RUN if found is None else Finding("not shown", "no SmeLU was chosen")
    say = f"{label(name)}: pair swaps at a refresh {times(found)}"
    return Finding("yes" if found.high < 1 else "no" if found.low > 1 else "not shown", say)


def again(world: World) -> Finding:
    """Claim 14."""
    one, two = (world.units("again", spec) for spec in ("relu", "relu#2"))
    found = {name: ratio(two, one, name) for name in ("pd", "pair", "log_loss")}
    known = {name: value for name, value in found.items() if value}
    if len(known) < len(found):
        return NOT_RUN
    off = [name for name, value in known.items() if not value.low <= 1 <= value.high]
    say = f"PD {times(known['pd'])}, pair swaps {times(known['pair'])}, log loss {times(known['log_loss'], 3)}"
    return Finding("no" if len(off) > 1 else "partly" if off else "yes", say)


@dataclass(frozen=True)
class Claim:
    """What the article, or what we found before, says; the figure that shows it."""

    words: str
    figure: str
    decide: Callable[[World], Finding]


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
    Claim("The same arm twice differs by chance alone (A/A)", "matched", again),
)


@dataclass(frozen=True)
class Prediction:
    """What the part before said of the choice, and what the end showed."""

    name: str
    predicted: Interval
    found: Interval
    between: Interval
    """Found / predicted, paired."""

    @property
    def holds(self) -> bool:
        """Whether nothing but chance is between the two."""
        return self.between.low <= 1 <= self.between.high


def prediction(world: World, measure: str = "pd", part: str = "part_pd") -> Prediction | None:
    """Of the choice's ratio to ReLU; None where it was not run, or ReLU was chosen."""
    name, units = choice(world)
    base = relu(world)
    early, late = ratio(units, base, part), ratio(units, base, measure)
    if name == "relu" or early is None or late is None:
        return None
    ratios = {
        unit: {"late": units[unit][measure] / base[unit][measure], "early": units[unit][part] / base[unit][part]}
        for unit in units.keys() & base.keys()
    }
    between = ratio(ratios, ratios, "late", "early")
    return Prediction(name, early, late, between) if between else None


def families(world: World) -> dict[str, Family]:
    """Words -> every setting of what is compared with ReLU without a norm at equal log loss."""
    found: dict[str, Family] = {}
    for name in ("smelu", *RIVALS):
        found[label(name)] = family(world, "activations", *designs(world, "activations", name))
    for norm in NORMS:
        found[f"ReLU, norm {norm}"] = family(world, "norms", f"relu:norm={norm}")
        betas = [one for one in dict.fromkeys(map(design, world.groups.get("norms", {}))) if one.startswith("smelu")]
        found[f"SmeLU, norm {norm}"] = family(
            world, "norms", *(one for one in betas if one.endswith(f"norm={norm}") and "beta=100," not in one)
        )
    return {words: own for words, own in found.items() if own}


def known(worlds: Iterable[World]) -> list[tuple[Claim, list[Finding]]]:
    """Every claim on every world."""
    held = list(worlds)
    return [(claim, [claim.decide(world) for world in held]) for claim in CLAIMS]
