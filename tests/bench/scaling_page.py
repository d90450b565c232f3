"""docs/scaling.md and its figures from what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from string import Template
from typing import Any

import machine
from scaling_axes import LIVE, Plan, Setting, served
from scaling_drawing import draw
from scaling_estimate import Point, Points, replica_estimate, run_estimate
from scaling_formula import Whole, checked, formula, ranked
from scaling_panels import Axis, law_table, learning_panels, serving_panels

TEMPLATE = Path(__file__).with_name("scaling.md.in")


def write(plan: Plan, kept: dict[str, Any], docs: Path) -> list[Path]:
    """Fit, draw, fill in the template; the paths that were written."""
    axes = learning_axes(plan, kept["points"]["learning"])
    publishing, serving = (serving_axes(plan, kept["points"][kind]) for kind in ("publish", "replica"))
    learning, replicas = learning_panels(axes), serving_panels(serving, publishing)
    paths = [docs / "scaling-learning.svg", docs / "scaling-serving.svg", docs / "scaling.md"]
    draw([panel.drawn() for panel in learning], 4, paths[0])
    draw([panel.drawn() for panel in replicas], 4, paths[1])
    values = about(plan, kept) | estimates(plan, kept, axes, serving)
    values |= {"learning_laws": law_table(learning), "serving_laws": law_table(replicas)}
    below = paths[2].read_text().partition(LIVE)[1:] if paths[2].exists() else ()
    paths[2].write_text(Template(TEMPLATE.read_text()).substitute(values) + "".join(below))
    return paths


def learning_axes(plan: Plan, points: dict[str, list[Point]]) -> dict[str, Axis]:
    """Each axis with its settings and what their processes said."""
    return {axis: [(s, points[named(s)]) for s in settings] for axis, settings in plan.learning().items()}


def serving_axes(plan: Plan, points: dict[str, list[Point]]) -> dict[str, Axis]:
    """The same of serving."""
    return {axis: [(s, points[named(s)]) for s in settings] for axis, settings in plan.serving().items()}


def named(setting: Setting) -> str:
    """As scaling.key names it."""
    return json.dumps(setting.__dict__)


def medians(said: list[Point]) -> dict[str, Any]:
    """Of each number over the repeats."""
    first = said[0]
    return {
        name: medians([one[name] for one in said]) if isinstance(value, dict) else median(one[name] for one in said)
        for name, value in first.items()
    }


def about(plan: Plan, kept: dict[str, Any]) -> dict[str, str]:
    """Where, when and how it was measured."""
    described, base = machine.describe(), plan.base
    return {
        "machine": f"{described['cpu']}, {described['cores']} cores, {described['instructions']}; Python "
        f"{described['python']}, PyTorch {described['torch']}, NumPy {described['numpy']}",
        "date": kept["date"],
        "minutes": f"{kept['seconds'] / 60:.0f}",
        "load": f"{kept['load'][0]:.1f} to {kept['load'][1]:.1f}",
        "repeats": str(len(next(iter(kept["points"]["learning"].values())))),
        "at_once": {1: "one after another"}.get(kept["at_once"], f"{kept['at_once']} side by side"),
        "base_entities": f"{base.entities:,}",
        "base_arms": str(base.arms),
        "base_duplicates": str(base.duplicates),
        "base_candidates": str(base.candidates),
        "hash_rows": str(plan.hash_rows),
        "hidden": str(base.config.model.hidden[0]),
    }


def estimates(plan: Plan, kept: dict[str, Any], axes: dict[str, Axis], serving: dict[str, Axis]) -> dict[str, str]:
    """The formula with its numbers, and the combination that it never saw."""
    published = {name: int(said[0]["rows"]) for name, said in kept["points"]["publish"].items()}
    replicas = [(s, p | {"rows": published[named(s)]}) for s, p in every(serving)]
    base, held = (Whole(s, medians(kept["points"]["run"][named(s)])) for s in plan.whole().values())
    rows = published[named(served(plan.base))]
    run = run_estimate(every(axes)).calibrated(base.setting, base.said, ranked(base), rows)
    replica = replica_estimate(replicas, [(s, medians(said)) for s, said in serving["candidates"]])
    beside = named(served(plan.held_out))
    found = medians(kept["points"]["replica"][beside])
    return formula(run, replica) | {
        "checked": checked(run, replica, held, found, published[beside]),
        "held_command": " ".join(["flicker run", *plan.held_out.flags]),
        "held_models": str(plan.held_out.models),
        "held_rows": f"{published[beside]:,}",
    }


def every(axes: dict[str, Axis]) -> Points:
    """All settings once, the base point first."""
    found = {setting: medians(said) for settings in axes.values() for setting, said in settings}
    return list(found.items())
