"""Prediction difference (PD): how far two models' click probabilities lie apart, per example.

A constant model has PD 0: never show PD without accuracy beside it. Averages over examples, and over the pairs of
duplicates, are the caller's, so that sums per user can go to `intervals`.
"""

from __future__ import annotations

import numpy as np

from simulator.types import Doubles, Reals

MAX_LOG_ODDS = 700.0
"""Log-odds above which exp would overflow; PD is below 1e-300 there."""


def ranking_pd(logits1: Reals, logits2: Reals) -> Doubles:
    """The part of relative PD [..., n] that can change a ranking, of log-odds [..., n] on the same examples; in [0, 2].

    With m1, m2 the means over the n examples and m = (m1 + m2) / 2, it is the PD of sigmoid(logits1 - m1 + m) and
    sigmoid(logits2 - m2 + m). Two models that differ by a constant in log-odds rank alike: it is 0. What is left of
    `pd_of_logits` is what the common shift (calibration) adds; it may be below 0 for an example. Log-odds are finite.
    """
    x1, x2 = np.asarray(logits1, np.float64), np.asarray(logits2, np.float64)
    half_shift = (x1.mean(axis=-1, keepdims=True) - x2.mean(axis=-1, keepdims=True)) / 2
    return pd_of_logits(x1 - half_shift, x2 + half_shift)


def pd_of_logits(logits1: Reals, logits2: Reals) -> Doubles:
    """Relative PD 2 |p1 - p2| / (p1 + p2) [..., n], from 0 to 2, of log-odds a, b [..., n], which may be extreme.

    Source: Shamir and Lin, arXiv 2202.06499. The form relative to the mean of the two is half of it.
    With h = tanh(|a - b| / 2) it is 2 h / (1 + (1 + h) e^min(a, b)).

    It follows from p = 1 / (1 + e^-x). Nothing cancels, however near the two are, and nothing underflows: for two rare
    events it is 2 h.
    """
    x1, x2 = np.asarray(logits1, np.float64), np.asarray(logits2, np.float64)
    h = np.tanh(np.abs(x1 - x2) / 2)
    lower = np.minimum(np.minimum(x1, x2), MAX_LOG_ODDS)
    return np.asarray(2 * h / (1 + (1 + h) * np.exp(lower)))
