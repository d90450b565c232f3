"""Figure 8: what cures with several networks buy, against what they cost."""

from __future__ import annotations

from simulator.figures.chart import Axis, Line, Panel, Point, chart, exact
from simulator.figures.claims import ensembles, members
from simulator.figures.figure import Figure
from simulator.figures.sweep import Sweep, favourite, has, is_activation, relative
from simulator.report.result import Arm
from simulator.report.words import label

COSTS = (
    ("lookups", "embedding look-ups"),
    ("train_seconds", "training time"),
    ("score_seconds", "time to score"),
)
"""Cost of an arm in result.json, and its words."""


def costs(sweep: Sweep) -> Figure:
    """Figure 8: PD against look-ups, training time and latency; log loss is in the claim."""
    arms = {spec: arm for spec, arm in sweep.arms().items() if has(arm, "pd", "log_loss")}
    cures = {spec: arm for spec, arm in arms.items() if not is_activation(spec) and "#" not in spec}
    if not cures or not any("lookups" in arm.costs for arm in cures.values()):
        return Figure(8, "costs", "No ensembles or other costly cures in this sweep: nothing to weigh against SmeLU")
    smelu, bases = favourite(arms), sweep.bases()
    counted = [(m, arm) for spec, arm in cures.items() if (m := members(spec)) is not None]
    together = sorted(counted, key=lambda pair: pair[0])
    others = [arm for spec, arm in cures.items() if members(spec) is None]
    lines = [("ReLU", [("", arms["relu"])], 0)]
    lines.append(("ensembles", [("", arms["relu"]), *((str(m), arm) for m, arm in together)], 2))
    lines += [(label(arm.spec), [("", arm)], 3 + index) for index, arm in enumerate(others)]
    lines += [(label(smelu.spec), [("", smelu)], 1)] if smelu else []
    panels = [_against(lines, bases, *what) for what in COSTS if arms["relu"].costs.get(what[0])]
    legend = [(0, "ReLU"), (1, label(smelu.spec) if smelu else "SmeLU"), (2, "ReLU, ensembles of m")]
    legend += [(3 + index, label(arm.spec)) for index, arm in enumerate(others)]
    note = "Both axes are ratios to one ReLU network; the lower left is better. Numbers are m."
    return Figure(8, "costs", ensembles(arms).say, panels, legend, note)


def _against(lines: list[tuple[str, list[tuple[str, Arm]], int]], bases: dict[str, Arm], cost: str, word: str) -> Panel:
    """PD against one cost, both as ratios to ReLU of the same run."""
    drawn = []
    for name, arms, look in lines:
        points = [
            Point(exact(arm.costs[cost] / bases[arm.spec].costs[cost]), relative(arm, "pd"), text)
            for text, arm in arms
            if cost in arm.costs and bases[arm.spec].costs.get(cost)
        ]
        drawn += [Line(name, points, look)] if points else []
    across = Axis(f"{word} / ReLU's", zero=True)
    return chart(f"costs-{cost}".replace("_", "-"), f"PD against {word}", drawn, across, Axis("PD / ReLU's", zero=True))
