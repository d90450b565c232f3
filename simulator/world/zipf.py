"""Zipf's law: the member of rank r (first = 1) is drawn with probability proportional to r ** -exponent."""

from __future__ import annotations

import numpy as np

from simulator.types import Doubles, Ints


class Zipf:
    """Draws numbers 0 .. count - 1; which number has which rank is itself random, so that numbers tell nothing."""

    def __init__(self, rng: np.random.Generator, count: int, exponent: float) -> None:
        weight = rng.permutation(np.arange(1, count + 1, dtype=np.float64) ** -exponent)
        self.share: Doubles = weight / weight.sum()
        """[count] probability of each number."""
        self._cumulative: Doubles = np.cumsum(self.share)
        self._cumulative[-1] = 1.0  # rounding must not leave a gap at the end

    def draw(self, uniform: Doubles) -> Ints:
        """[n] numbers from [n] uniform draws in [0, 1), by inversion of the cumulative distribution."""
        return self._cumulative.searchsorted(uniform, side="right")
