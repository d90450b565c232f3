"""Panels of accuracy, which stand beside swaps and beside training alike."""

from __future__ import annotations

from panels import arms, timeseries

LOG_LOSS = (
    "Mean of -log of the probability given to what happened, in nats, over the last generation's events, each "
    "predicted before it was learned; mean over duplicates. Lower is better. A constant model never swaps anything: a "
    "cure counts only if this does not rise."
)
AUC = timeseries(
    "Who tells clicks apart better? AUC",
    "Probability that a clicked event is scored above one that was not, over the last generation's events, each "
    "predicted before it was learned; mean over duplicates. Higher is better, 0.5 is chance. The axis does not start "
    "at 0.",
    "none",
    arms("flicker_progressive_auc"),
    start=None,
)
CALIBRATION = timeseries(
    "Are the probabilities right? Calibration",
    "Mean prediction / mean label over the last generation's events, each predicted before it was learned; mean over "
    "duplicates. 1 is right, above it too many clicks are predicted. The axis does not start at 0.",
    "none",
    arms("flicker_calibration"),
    ("text", (1, "green")),
    start=None,
)
