"""How users of the synthetic world respond: the true click probability, position bias, and the draw of clicks.

Shapes: n impressions, H hidden units.
"""

from __future__ import annotations

import math

import numpy as np

from simulator.types import Doubles, Floats, Integers, Ints, Reals

HIDDEN = 24
GAIN = 2.5
"""Spread of the input of the hidden units: large enough that tanh bends."""
SPREAD = 2.0
"""Standard deviation of the true log-odds over impressions."""
BASE_RATE = 0.4
"""Mean true click probability over impressions, before position bias; the default bias leaves 0.27 of them clicked."""


class TrueClickModel:
    """True log-odds = level + SPREAD x (sqrt((1 - x) / 2) x (of user + of item and context) + sqrt(x) x match).

    x is the share `interaction`. `match` is the inner product of the tastes of user and item, each about its mean over
    impressions: the user x item interaction, with no part of either alone. The other two are
    random tanh networks. All three have variance 1 over impressions, and do not correlate, since items are drawn
    independently of who comes when: so x is the share of the variance of the log-odds that is user x item, which no
    additive model can learn.

    All is drawn once, and standardised on a sample of impressions: worlds of different seeds are equally hard.
    """

    def __init__(
        self, rng: np.random.Generator, user: Floats, item: Floats, context: Floats, interaction: float
    ) -> None:
        """Tastes [n, TASTES] of a sample of impressions, at least some thousands."""
        spread_alone, spread_match = (SPREAD * math.sqrt(share) for share in ((1 - interaction) / 2, interaction))
        self._of_user = _Network(rng, user, spread_alone)
        self._of_item = _Network(rng, np.concatenate([item, context], axis=1), spread_alone)
        self._means, self._scale, self._level = (user.mean(0), item.mean(0)), np.float32(1), np.float32(0)
        self._scale = np.float32(spread_match / self._match(user, item).std())
        self._level = np.float32(_level(self.log_odds(user, item, context).astype(np.float64)))

    def log_odds(self, user: Floats, item: Floats, context: Floats) -> Floats:
        """[n] from tastes [n, TASTES] each."""
        additive = self._of_user(user) + self._of_item(np.concatenate([item, context], axis=1))
        return np.asarray(additive + self._match(user, item) + self._level, np.float32)

    def probability(self, user: Floats, item: Floats, context: Floats) -> Floats:
        """[n] true probability of a click at an examined position, from tastes [n, TASTES] each."""
        return np.asarray(1 / (1 + np.exp(-self.log_odds(user, item, context))), np.float32)

    def shares(self, user: Floats, item: Floats, context: Floats) -> dict[str, float]:
        """Shares of the variance of the log-odds that user, item and context have alone, user and item together
        beyond that (user x item), and all else (rest), over the tastes [n, TASTES] of impressions in random order.

        By their definition (Sobol, "Sensitivity estimates for nonlinear models", 1993): the covariance of log-odds
        that have a part in common and all else drawn anew is the variance that follows from this part.
        """
        parts = user, item, context
        log_odds = self.log_odds(*parts)

        def common(*shared: int) -> float:
            inputs = [part if number in shared else np.roll(part, number + 1, 0) for number, part in enumerate(parts)]
            return float(np.cov(log_odds, self.log_odds(*inputs))[0, 1] / log_odds.var())

        by_part = {"user": common(0), "item": common(1), "context": common(2)}
        by_part["user x item"] = common(0, 1) - by_part["user"] - by_part["item"]
        return by_part | {"rest": 1 - sum(by_part.values())}

    def _match(self, user: Floats, item: Floats) -> Floats:
        of_user, of_item = self._means
        return np.asarray(np.einsum("nt,nt->n", (user - of_user) * self._scale, item - of_item), np.float32)


class _Network:
    """A random tanh network of one output, drawn once."""

    def __init__(self, rng: np.random.Generator, sample: Floats, spread: float) -> None:
        """`spread` is the standard deviation over the sample [n, inputs]."""
        inputs = sample.shape[1]
        self._hidden = rng.standard_normal((inputs, HIDDEN), dtype=np.float32) * np.float32(GAIN / math.sqrt(inputs))
        self._output = rng.standard_normal(HIDDEN, dtype=np.float32)
        self._output *= np.float32(spread / self(sample).std())

    def __call__(self, inputs: Floats) -> Floats:
        """[n] from [n, inputs]."""
        return np.asarray(np.tanh(inputs @ self._hidden) @ self._output, np.float32)


def examination(position: Integers, bias: float) -> Doubles:
    """[n] probability that the item at a position (first = 1) is looked at: position ** -bias.

    A click needs both: the examination hypothesis of Richardson et al., "Predicting Clicks", WWW 2007.
    """
    return np.asarray(position.astype(np.float64) ** -bias, np.float64)


def logit(probability: Reals) -> Floats:
    """[n] log-odds of probabilities [n], of at most 1 - 1e-7 and at least 1e-7: what float32 can tell from 1."""
    p = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.log(p / (1 - p)).astype(np.float32)


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
