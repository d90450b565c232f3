"""The fitted formula in words, and what it foretold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scaling_axes import Setting
from scaling_estimate import ReplicaEstimate, RunEstimate, prepare_counts, replica_counts
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
