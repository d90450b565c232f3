"""The table of figure 8: what every cure buys in PD and log loss, and what it costs in parameters, time and memory."""

from __future__ import annotations

from collections.abc import Callable

from simulator.figures.figure import Table
from simulator.figures.sweep import ensemble, favourite, has, is_activation, relative
from simulator.report.result import Arm
from simulator.report.words import DASH, count, duration, label, number, size, written

Costs = tuple[tuple[str, str, Callable[[float], str]], ...]
COSTS: Costs = (
    ("parameters", "parameters", count),
    ("lookups", "look-ups per query", count),
    ("train_seconds", "training time", duration),
    ("score_seconds", "scoring time", lambda seconds: f"{number(1e3 * seconds)} ms"),
    ("model_bytes", "memory in serving", lambda octets: size(octets) if octets >= 1e7 else f"{octets / 1e6:.2g} MB"),
    ("train_bytes", "memory in training", lambda octets: size(octets) if octets >= 1e7 else f"{octets / 1e6:.2g} MB"),
)
"""Cost of an arm in result.json, its heading, and how ReLU's own is written."""
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
    costs = [cost for cost in COSTS if any(cost[0] in arm.costs for arm in shown)]
    heads = ["", "PD", "log loss", *(heading for _, heading, _ in costs)]
    rows = [
        [
            label(arm.spec),
            written(relative(arm, "pd"), 2),
            written(relative(arm, "log_loss"), 4),
            *(_cost(arm, bases[arm.spec], name, write) for name, _, write in costs),
        ]
        for arm in shown
    ]
    return Table(heads, rows, NOTE)


def _cost(arm: Arm, base: Arm, name: str, write: Callable[[float], str]) -> str:
    if arm.spec == "relu" and name in arm.costs:
        return write(arm.costs[name])
    ratio = arm.cost_ratio(base, name)
    return DASH if ratio is None else f"× {number(ratio, 2)}"
