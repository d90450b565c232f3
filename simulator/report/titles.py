"""Titles of the pictures: each is a claim that is computed from the numbers it stands above."""

from __future__ import annotations

from itertools import pairwise

from simulator.report.finding import compared, ratio_to, silent, talked_about
from simulator.report.result import Arm, Result
from simulator.report.words import label, number, percent

JUMP = 0.25
"""A gradient that changes by more than this between two neighbouring samples is called a jump."""


def swaps(result: Result) -> str:
    """Title of the swap pictures: how often asking twice changes what comes first."""
    if silent(result):
        return "Not one slate differs between duplicates"
    shown = [arm for arm in talked_about(result) if "swaps.top1" in arm.measures]
    parts = [f"in {percent(arm.measures['swaps.top1'].mean)} of queries with {label(arm.spec)}" for arm in shown]
    return "Another duplicate changes the first item " + ", ".join(parts) if parts else "Swaps by measure and cause"


def differences(result: Result) -> str:
    """Title of the PD pictures: how much of PD can reorder anything."""
    if silent(result):
        return "Predictions of duplicates do not differ at all"
    parts = []
    for arm in talked_about(result):
        part, whole = arm.measures.get("pd_ranking"), arm.measures["pd"]
        rest = f", {number(part.mean)} without the common shift" if part else ""
        parts.append(f"{label(arm.spec)} has PD {number(whole.mean)}{rest}")
    return "; ".join(parts)


def generations(result: Result) -> str:
    """Title of the pictures over time: first against last generation of the first arm."""
    spec = result.arms[0].spec
    series = [g.arms[spec]["swaps.pair"].mean for g in result.generations if "swaps.pair" in g.arms.get(spec, {})]
    if len(series) < 2:
        return "One generation only: nothing to follow over time"
    first, last = series[0], series[-1]
    if max(series) == 0:
        return "Duplicates agree exactly in every generation"
    verb = "rise" if last > 1.1 * first else "fall" if last < 0.9 * first else "stay about level"
    return f"Pair swaps of {label(spec)} {verb} over the run: {percent(first)} at first, {percent(last)} at the end"


def plane(result: Result) -> str:
    """Title of the PD-against-loss plane: is one arm lowest on both axes, and beyond doubt?"""
    if len(result.arms) == 1:
        return "One arm is one point: add arms to see a trade-off"
    steady = min(result.arms, key=lambda arm: arm.measures["pd"].mean)
    accurate = min(result.arms, key=lambda arm: arm.measures["log_loss"].mean)
    if len({arm.measures["pd"].mean for arm in result.arms}) == 1:
        return f"All arms have the same PD; {label(accurate.spec)} has the lowest log loss"
    clear = _clearly_lowest(result, steady, "pd") and _clearly_lowest(result, accurate, "log_loss")
    doubt = "" if clear else ", but the intervals of ratios include 1"
    if steady is accurate:
        return f"{label(steady.spec)} has both the lowest PD and the lowest log loss{doubt}"
    return f"A trade-off: {label(steady.spec)} has the lowest PD, {label(accurate.spec)} the lowest log loss{doubt}"


def _clearly_lowest(result: Result, arm: Arm, name: str) -> bool:
    """Whether an arm is below the first one beyond doubt; of the first arm, whether all others are above it."""
    base, *others = result.arms
    if arm is base:
        return all(compared(ratio_to(other, base, name)) == "more" for other in others)
    return compared(ratio_to(arm, base, name)) == "less"


def activations(result: Result) -> str:
    """Title of the activation pictures: the largest step of the gradient between two neighbouring samples."""
    parts = []
    for arm in talked_about(result):
        if arm.activation is not None:
            step = max(abs(after - before) for before, after in pairwise(arm.activation.gradient))
            what = f"jumps by {number(step, 1)}" if step > JUMP else "has no jump"
            parts.append(f"the gradient of {label(arm.spec)} {what}")
    text = "; ".join(parts) or "activations"
    return text[0].upper() + text[1:]
