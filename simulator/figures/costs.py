"""Figure 8: what cures with several networks buy, against what they cost."""

from __future__ import annotations

from simulator.figures.chart import Axis, Line, Panel, Point, chart, exact
from simulator.figures.claims import ensembles, members
from simulator.figures.figure import Figure
from simulator.figures.runs import calmest
from simulator.figures.sweep import Sweep, has, is_activation, relative
from simulator.report.result import Arm
from simulator.report.words import label

COSTS = (
    ("lookups", "embedding look-ups"),
    ("train_seconds", "training time"),
    ("score_seconds", "time to score"),
    ("model_bytes", "memory of a model"),
)
"""Cost of an arm in result.json, and its words."""


def costs(sweep: Sweep) -> Figure:
    """Figure 8: PD and log loss against look-ups, training time and latency."""
    arms = {spec: arm for spec, arm in sweep.arms().items() if has(arm, "pd", "log_loss")}
    cures = {spec: arm for spec, arm in arms.items() if not is_activation(spec) and "#" not in spec}
    if not cures or not any("lookups" in arm.costs for arm in cures.values()):
        return Figure(8, "costs", "No ensembles or other costly cures in this sweep: nothing to weigh against SmeLU")
    base, smelu = arms["relu"], calmest(arms)
    together = sorted((m, arm) for spec, arm in cures.items() if (m := members(spec)) is not None)
    others = [arm for spec, arm in cures.items() if members(spec) is None]
    panels = [panel for what in COSTS if (panel := _against(base, smelu, together, others, *what))]
    legend = [(0, "ReLU"), (1, label(smelu.spec) if smelu else "SmeLU"), (2, "ReLU networks, averaged: m = 2 ...")]
    legend += [(3 + index, label(arm.spec)) for index, arm in enumerate(others)]
    note = "Both axes are ratios to one ReLU network; the lower left is better. Numbers are m."
    return Figure(8, "costs", ensembles(arms).say, panels, legend, note)


def _against(
    base: Arm, smelu: Arm | None, together: list[tuple[int, Arm]], others: list[Arm], cost: str, word: str
) -> Panel | None:
    """PD against one cost; None where the sweep has no such cost."""
    if not base.costs.get(cost):
        return None

    def point(arm: Arm, text: str = "") -> Point:
        return Point(exact(arm.costs[cost] / base.costs[cost]), relative(arm, "pd"), text)

    lines = [Line("ReLU", [point(base)], 0)]
    many = [point(arm, str(m)) for m, arm in together if cost in arm.costs]
    lines += [Line("averaged", [point(base), *many], 2)] if many else []
    lines += [Line(label(arm.spec), [point(arm)], 3 + i) for i, arm in enumerate(others) if cost in arm.costs]
    lines += [Line("SmeLU", [point(smelu)], 1)] if smelu and cost in smelu.costs else []
    across = Axis(f"{word} / ReLU's", zero=True)
    return chart(f"costs-{cost}".replace("_", "-"), f"PD against {word}", lines, across, Axis("PD / ReLU's", zero=True))
