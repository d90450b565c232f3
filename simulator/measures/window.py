"""Sums over a sliding time window, for gauges of the present.

Shapes: M sums kept side by side.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from simulator.types import Doubles

BUCKETS = 60
"""Parts of a window: values leave it in sixtieths."""


class WindowSums:
    """M sums over the last `width` seconds, to within a sixtieth of the width.

    Time is an argument (any clock that does not run backwards). Nothing is ever subtracted, so that a sum over what is
    in the window is as exact as a sum can be, and exactly zero when nothing is.
    """

    def __init__(self, width: float, sums: int) -> None:
        """`width` in seconds, more than 0; `sums` = M."""
        assert width > 0
        self._bucket = width / BUCKETS
        self._parts: deque[tuple[int, Doubles]] = deque()  # number of the bucket, its sums; ascending
        self._sums = sums

    def add(self, time: float, values: Doubles) -> None:
        """Add values [M] at `time` in seconds; one that runs backwards counts as now."""
        number = int(time // self._bucket)
        if not self._parts or number > self._parts[-1][0]:
            self._parts.append((number, np.zeros(self._sums)))
        self._parts[-1][1][:] += values
        self._forget(time)

    def sums(self, time: float) -> Doubles:
        """Sums [M] of what was added in the window that ends at `time`."""
        self._forget(time)
        return np.sum([values for _, values in self._parts], axis=0) if self._parts else np.zeros(self._sums)

    def _forget(self, time: float) -> None:
        oldest = int(time // self._bucket) - BUCKETS
        while self._parts and self._parts[0][0] <= oldest:
            self._parts.popleft()
