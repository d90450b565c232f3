"""Panels of accuracy, which stand beside swaps and beside training alike."""

from __future__ import annotations

from panels import Json, arms, timeseries

LOG_LOSS = (
    "Mean of -log of the probability given to what happened, in nats, over the last generation's events, each "
    "predicted before it was learned; mean over duplicates. Lower is better. A constant model never swaps anything: a "
    "cure counts only if this does not rise."
)


def auc(size: tuple[int, int] = (8, 8)) -> Json:
    """Quality of ranking."""
    return timeseries(
        "Who tells clicks apart better? AUC",
        "Probability that a clicked event is scored above one that was not, over the last generation's events, each "
        "predicted before it was learned; mean over duplicates. Higher is better, 0.5 is chance. The axis does not "
        "start at 0.",
        "none",
        arms("flicker_progressive_auc"),
        size=size,
        start=None,
    )


def calibration(size: tuple[int, int] = (8, 8)) -> Json:
    """Quality of probabilities."""
    return timeseries(
        "Are the probabilities right? Calibration",
        "Mean prediction / mean label over the last generation's events, each predicted before it was learned; mean "
        "over duplicates. 1 is right, above it too many clicks are predicted. The axis does not start at 0.",
        "none",
        arms("flicker_calibration"),
        ("text", (1, "green")),
        size,
        start=None,
    )
