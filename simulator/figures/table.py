"""The article's claims, one row each, decided on every world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from simulator.figures import claims, cures
from simulator.figures.conditions import each_source, gain_conditions
from simulator.figures.doubt import Finding
from simulator.figures.sweep import Sweep

CLAIMS: tuple[tuple[str, int, Callable[[Sweep], Finding]], ...] = (
    (
        "Smooth activations at least halve PD, at no worse ranking loss and log loss",
        1,
        lambda sweep: claims.halving(sweep.arms()),
    ),
    (
        "SmeLU lies on or below Swish, GELU and Softplus over some range of the plane",
        1,
        lambda sweep: claims.below_rivals(sweep.arms()),
    ),
    ("Log loss is U-shaped in beta", 2, lambda sweep: claims.u_shape(sweep.arms())),
    ("Too much smoothness tends to the linear model", 2, lambda sweep: claims.limit(sweep.arms())),
    (
        "Ensembles lower PD too, for m times the look-ups; SmeLU does without",
        8,
        lambda sweep: cures.ensembles(sweep.arms()),
    ),
    ("Heavy shuffling or own initialisation loses the gain; normalisation matters", 6, gain_conditions),
    ("Each source of noise alone makes duplicates differ; without any they are equal", 7, each_source),
    ("Beside it: sticky routing hides duplicates, not refreshes", 8, cures.sticky),
    ("Beside it: the same arm twice (A/A) differs by chance alone", 1, lambda sweep: claims.floor(sweep.arms())),
)
"""Claim, the figure that shows it, and how it is decided."""


@dataclass(frozen=True)
class Row:
    """One claim and what each world says to it."""

    claim: str
    figure: int
    findings: list[Finding]


def table(sweeps: list[Sweep]) -> list[Row]:
    """Every claim on every sweep, in the order given."""
    return [Row(claim, figure, [decide(sweep) for sweep in sweeps]) for claim, figure, decide in CLAIMS]
