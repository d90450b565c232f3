"""Figure 8: what cures with several networks buy, against what they cost; and what sticky routing leaves to be seen."""

from __future__ import annotations

from simulator.figures.claims import ensembles, routed
from simulator.figures.sweep import Sweep, ensemble, ensembles_of, favourite, has, is_activation, relative
from simulator.measures.intervals import exact
from simulator.report.charts import Axis, Figure, Line, Panel, Point, Table, chart, dots
from simulator.result import Arm
from simulator.words import COSTS, DASH, label, number, written

AGAINST = (
    ("lookups", "embedding look-ups"),
    ("train_seconds", "training time"),
    ("score_seconds", "time to score"),
)
"""Cost of an arm in result.json, and its words."""
ROUTINGS = ("random routing", "random, over a refresh", "sticky, over a refresh", "sticky routing")
"""What a user sees on asking again, in the order of cures.routed; the last is 0, since the same model answers."""
SLOWER = ("codistill", "antidistill")
"""Cures whose training time is not comparable."""
Series = tuple[str, list[tuple[str, Arm]]]
"""A name, and arms in order with what is written beside each."""


def costs(sweep: Sweep) -> Figure:
    """Figure 8: PD against look-ups, training time and latency; log loss is in the claim."""
    arms = {spec: arm for spec, arm in sweep.arms().items() if has(arm, "pd", "log_loss")}
    cures = {spec: arm for spec, arm in arms.items() if not is_activation(spec) and "#" not in spec}
    if not cures or not any("lookups" in arm.costs for arm in cures.values()):
        return Figure(8, "costs", "No ensembles or other costly cures in this sweep: nothing to weigh against SmeLU")
    smelu, bases = favourite(arms), sweep.bases()
    series: list[Series] = [("ReLU", [("", arms["relu"])])]
    series += [(label(smelu.spec), [("", smelu)])] if smelu else []
    for design in dict.fromkeys(made[0] for spec in arms if (made := ensemble(spec)) and made[0] in arms):
        several = [(str(m), arm) for m, arm in ensembles_of(arms, design)]
        series.append((f"{label(design)}, ensembles of m", [("", arms[design]), *several]))
    series += [(label(spec), [("", arm)]) for spec, arm in cures.items() if not ensemble(spec)]
    panels = [_against(series, bases, *what) for what in AGAINST if arms["relu"].costs.get(what[0])]
    note = "Costs and PD are ratios to one ReLU network; the lower left is better. Numbers are m."
    if routing := _routing(series, sweep.duplicates):
        panels.append(routing)
        note += (
            " A user who asks the same again is answered at random routing by any of the "
            f"{sweep.duplicates} duplicates, the same one in 1 of {sweep.duplicates} cases; at "
            "sticky routing always by the same: what is left then is what a refresh changes."
        )
    if any(spec.startswith(SLOWER) for spec in cures):
        note += (
            " Co-distilled and anti-distilled arms take a slower path here, two forward passes and a call for every "
            "mini-batch: their training time is this implementation's."
        )
    note += " " + sweep.drawn(sweep.compared())
    legend = [(look, name) for look, (name, _) in enumerate(series)]
    return Figure(8, "costs", ensembles(arms).say, panels, legend, note, cost_table(arms, bases))


def _against(series: list[Series], bases: dict[str, Arm], cost: str, word: str) -> Panel:
    """PD against one cost, both as ratios to ReLU of the same run."""
    drawn = []
    for look, (name, arms) in enumerate(series):
        points = [
            Point(exact(ratio), relative(arm, "pd"), text)
            for text, arm in arms
            if (ratio := arm.cost_ratio(bases[arm.spec], cost)) is not None
        ]
        drawn += [Line(name, points, look)] if points else []
    across = Axis(f"{word} / ReLU's", zero=True)
    return chart(f"costs-{cost}".replace("_", "-"), f"PD against {word}", drawn, across, Axis("PD / ReLU's", zero=True))


def _routing(series: list[Series], duplicates: int) -> Panel | None:
    """Pair swaps that the user sees on asking again, of ReLU, SmeLU and the largest ensemble."""
    lines = []
    for look, (name, arms) in enumerate(series[:3]):
        text, arm = arms[-1]
        if seen := routed(arm, duplicates):
            points = [Point(value, exact(0), routing) for routing, value in zip(ROUTINGS, seen, strict=True)]
            lines.append(Line(f"{name} = {text}" if text else name, points, look))
    return dots("costs-routing", "Pair swaps on asking again", lines, Axis("", zero=True)) if lines else None


NOTE = (
    "PD and log loss are ratios to ReLU with 95 % intervals paired with it; costs are ratios to ReLU of the same run. "
    "ReLU's row has the costs themselves: training time is the compute time of all its models of one run."
)


def cost_table(arms: dict[str, Arm], bases: dict[str, Arm]) -> Table:
    """A row for ReLU, for SmeLU as one would take it, for the linear model, for what ensembles are made of, and for
    every cure; `bases` is ReLU of each arm's run. A cost that no arm has is left out."""
    smelu, made = favourite(arms), [ensemble(spec) for spec in arms]
    plain = {"relu", "linear", *(one[0] for one in made if one)} | ({smelu.spec} if smelu else set())
    shown = [arm for spec, arm in arms.items() if spec in plain]
    shown += [arm for spec, arm in arms.items() if not is_activation(spec) and "#" not in spec]
    shown = sorted((arm for arm in shown if has(arm, "pd", "log_loss")), key=lambda arm: arm.spec != "relu")
    costs = [name for name in COSTS if name != "events_per_second" and any(name in arm.costs for arm in shown)]
    heads = ["", "PD", "log loss", *(COSTS[name][0] for name in costs)]
    rows = [
        [
            label(arm.spec),
            written(relative(arm, "pd"), 2),
            written(relative(arm, "log_loss"), 4),
            *(_cost(arm, bases[arm.spec], name) for name in costs),
        ]
        for arm in shown
    ]
    return Table(heads, rows, NOTE)


def _cost(arm: Arm, base: Arm, name: str) -> str:
    if arm.spec == "relu" and name in arm.costs:
        return COSTS[name][1](arm.costs[name])
    ratio = arm.cost_ratio(base, name)
    return DASH if ratio is None else f"× {number(ratio, 2)}"
