"""docs/scaling.md and its figures from what was measured; the fitted formula in words, and what it foretold."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from string import Template
from typing import Any

import machine
import numpy as np
from scaling_axes import LIVE, Plan, Setting, served
from scaling_estimate import (
    Point,
    Points,
    ReplicaEstimate,
    RunEstimate,
    prepare_counts,
    replica_counts,
    replica_estimate,
    run_estimate,
)
from scaling_laws import Law, Sum
from scaling_panels import MEGA, Axis, digits, draw, law_table, law_words, learning_panels, serving_panels

QUERIES, PER_GENERATION = 500, 50
"""Of a run, unless its flags say otherwise."""


@dataclass(frozen=True)
class Whole:
    """A run from its command to its report."""

    setting: Setting
    said: dict[str, Any]

    def __post_init__(self) -> None:
        # generations are whole shuffle windows: a run may have fewer than it was asked for
        object.__setattr__(self, "setting", replace(self.setting, generations=int(self.said["generations"])))


def ranked(whole: Whole) -> float:
    """Candidates that each model ranks: new and repeated queries per generation, the last ones before and after."""
    queries = 2 * QUERIES + PER_GENERATION * (2 * whole.setting.generations - 3)
    return float(queries * whole.setting.candidates)


def formula(run: RunEstimate, replica: ReplicaEstimate) -> dict[str, str]:
    """What the template's table says."""
    pieces = {
        "saving": run.saving,
        "measuring": run.measuring,
        "compare": run.compare,
        "measure": run.measure,
        "replica_memory": replica.memory,
        "replica_prepare": replica.prepare,
    }
    fits: dict[str, Sum | Law] = {**pieces, "learn": run.learn, "replica_query": replica.query}
    return {
        "saving": added(run.saving, ("", "E", "M V"), size),
        "measuring": added(run.measuring, ("", "E", "M V", "M N"), size),
        "beside": size(run.beside),
        "start": span(run.start),
        "world": span(run.world.coefficients[1]),
        "learn": law_words(run.learn, 1e6, "V"),
        "rank": span(run.rank),
        "checkpoint": span(run.checkpoint.coefficients[1]),
        "compare": added(run.compare, ("", "A", "A P", "A P N"), span),
        "measure": added(run.measure, ("", "A", "A P", "M N²"), span),
        "replica_memory": added(replica.memory, ("", "E", "A V", "A I"), size),
        "replica_prepare": added(replica.prepare, ("", "E", "A V", "A I", "A I where I > 65,536"), span),
        "replica_query": law_words(replica.query, 1e6, "N"),
        **{f"{name}_fit": f"R² {fit.r2:.4f}, largest error {fit.worst:.0%}" for name, fit in fits.items()},
    }


def added(law: Sum, names: tuple[str, ...], shown: Callable[[float], str]) -> str:
    """The terms of a sum that are not zero."""
    terms = [(shown(value), name) for value, name in zip(law.coefficients, names, strict=True) if value > 0]
    return " + ".join(f"{value} x {name}" if name else value for value, name in terms)


def span(seconds: float) -> str:
    """With the unit that suits it."""
    scale, unit = next(((s, u) for s, u in ((1, "s"), (1e3, "ms"), (1e6, "µs")) if seconds * s >= 0.5), (1e9, "ns"))
    return f"{digits(seconds * scale)} {unit}"


def size(number: float) -> str:
    """Bytes, with the unit that suits them."""
    return f"{digits(number / MEGA)} MB" if number >= MEGA else f"{digits(number)} B"


def checked(run: RunEstimate, replica: ReplicaEstimate, held: Whole, beside: dict[str, Any], rows: int) -> str:
    """Rows of the table: foretold, measured, error."""
    setting, said = held.setting, held.said
    parts, counts = run.parts(setting, rows, said["learned"], ranked(held)), replica_counts(setting, rows)
    query = float(replica.query(np.array(float(setting.candidates))))
    compared = [
        ("run: peak memory", run.memory(setting, rows) / MEGA, said["peak"] / MEGA, "MB"),
        ("run: learning, CPU", parts["learning"], said["learn"], "s"),
        ("run: all of it, CPU", sum(parts.values()), said["cpu"], "s"),
        ("replica: peak memory", replica.memory(counts) / MEGA, beside["peak"]["refresh"] / MEGA, "MB"),
        (
            "replica: to prepare a generation, CPU",
            replica.prepare(prepare_counts(setting, rows)),
            beside["cpu"]["refresh"],
            "s",
        ),
        ("replica: one query, CPU", 1e6 * query, 1e6 * beside["cpu"]["one"], "µs"),
    ]
    return "\n".join(
        f"| {name} | {digits(guess)} {unit} | {digits(found)} {unit} | {guess / found - 1:+.0%} |"
        for name, guess, found, unit in compared
    )


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
