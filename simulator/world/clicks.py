"""How users of the synthetic world respond: the true click probability, position bias, and the draw of clicks.

Shapes: n impressions, H hidden units.
"""

from __future__ import annotations

import math

import numpy as np

from simulator.types import Doubles, Floats, Ints
from simulator.world.population import TASTES

HIDDEN = 48
GAIN = 2.5
"""Spread of the input of the hidden units: large enough that tanh bends and tastes interact."""
SPREAD = 2.0
"""Standard deviation of the true log-odds over impressions."""
BASE_RATE = 0.4
"""Mean true click probability over impressions, before position bias; the default bias leaves 0.27 of them clicked."""


class ClickModel:
    """True log-odds = level + SPREAD x standardised random tanh network of (user, item, context) tastes.

    The network is drawn once. Its output is standardised, and the level set, on a sample of impressions, so that worlds
    of different seeds are equally hard.
    """

    def __init__(self, rng: np.random.Generator, user: Floats, item: Floats, context: Floats) -> None:
        """Tastes [n, TASTES] of a sample of impressions, at least some thousands."""
        inputs = 3 * TASTES
        self._hidden = rng.standard_normal((inputs, HIDDEN), dtype=np.float32) * np.float32(GAIN / math.sqrt(inputs))
        self._output = rng.standard_normal(HIDDEN, dtype=np.float32)
        self._level = np.float32(0)
        raw = self.log_odds(user, item, context)
        self._output *= np.float32(SPREAD / raw.std())
        raw = self.log_odds(user, item, context)
        self._level = np.float32(_level(raw.astype(np.float64)))

    def log_odds(self, user: Floats, item: Floats, context: Floats) -> Floats:
        """[n] from tastes [n, TASTES] each."""
        hidden = np.concatenate([user, item, context], axis=1) @ self._hidden  # [n, H]
        np.tanh(hidden, out=hidden)
        return np.asarray(hidden @ self._output + self._level, np.float32)

    def probability(self, user: Floats, item: Floats, context: Floats) -> Floats:
        """[n] true probability of a click at an examined position, from tastes [n, TASTES] each."""
        return np.asarray(1 / (1 + np.exp(-self.log_odds(user, item, context))), np.float32)


def examination(position: Ints, bias: float) -> Doubles:
    """[n] probability that the item at a position (first = 1) is looked at: position ** -bias.

    A click needs both: the examination hypothesis of Richardson et al., "Predicting Clicks", WWW 2007.
    """
    return np.asarray(position.astype(np.float64) ** -bias, np.float64)


def draw_clicks(rng: np.random.Generator, probability: Floats, position: Ints, bias: float) -> Floats:
    """[n] 1 or 0: clicks on impressions with true probability [n] shown at positions [n]."""
    return (rng.random(len(probability)) < probability * examination(position, bias)).astype(np.float32)


def _level(raw: Doubles) -> float:
    """The constant c for which the mean of sigmoid(raw + c) is BASE_RATE, by bisection."""
    low, high = -30.0 - raw.max(), 30.0 - raw.min()
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.mean(1 / (1 + np.exp(-raw - middle))) < BASE_RATE else (low, middle)
    return float((low + high) / 2)
