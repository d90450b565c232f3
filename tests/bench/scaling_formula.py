"""The fitted formula in words, and what it foretold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scaling_axes import Setting
from scaling_estimate import ReplicaEstimate, RunEstimate, replica_counts
from scaling_laws import Law, Sum
from scaling_panels import MEGA, digits, law_words

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
    memory, seconds = ("MB", MEGA, "B", 1.0), ("s", 1.0, "µs", 1e-6)
    return {
        "saving": added(run.saving, ("", "E", "M V"), *memory),
        "measuring": added(run.measuring, ("", "E", "M V", "M N"), *memory),
        "beside": digits(run.beside / MEGA),
        "start": digits(run.start),
        "world": digits(run.world.coefficients[1] * 1e6),
        "learn": law_words(run.learn, 1e6, "V"),
        "rank": digits(run.rank * 1e6),
        "checkpoint": digits(run.checkpoint.coefficients[1] * 1e9),
        "compare": added(run.compare, ("", "M", "M N", "A P N"), *seconds),
        "measure": added(run.measure, ("", "M", "M N", "A P N"), *seconds),
        "replica_memory": added(replica.memory, ("", "E", "A V", "A I"), *memory),
        "replica_prepare": added(replica.prepare, ("", "E", "A V", "A I"), "ms", 1e-3, "ns", 1e-9),
        "replica_query": law_words(replica.query, 1e6, "N"),
        **{f"{name}_fit": f"R² {fit.r2:.4f}, largest error {fit.worst:.0%}" for name, fit in fits.items()},
    }


def added(law: Sum, names: tuple[str, ...], unit: str, scale: float, small: str, each: float) -> str:
    """The terms of a sum that are not zero; the constant in `unit`, the others in the small one."""
    terms = []
    for coefficient, name in zip(law.coefficients, names, strict=True):
        if name and coefficient > 0:
            terms.append(f"{digits(coefficient / each)} {small} x {name}")
        elif coefficient > 0:
            terms.append(f"{digits(coefficient / scale)} {unit}")
    return " + ".join(terms)


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
        ("replica: to prepare a generation, CPU", replica.prepare(counts), beside["cpu"]["refresh"], "s"),
        ("replica: one query, CPU", 1e6 * query, 1e6 * beside["cpu"]["one"], "µs"),
    ]
    return "\n".join(
        f"| {name} | {digits(guess)} {unit} | {digits(found)} {unit} | {guess / found - 1:+.0%} |"
        for name, guess, found, unit in compared
    )
