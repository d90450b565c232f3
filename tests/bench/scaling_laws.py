"""Simple laws through measured points, and how well they fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.optimize import nnls

from simulator.types import Doubles

CLOSE = 0.1
"""A straight line that misses a point by more than this share of it is compared with other forms."""


Form = Literal["line", "square", "power"]
"""a + b x, a + b x^2, a x^b."""


@dataclass(frozen=True)
class Law:
    """One of the forms with its numbers."""

    form: Form
    a: float
    b: float
    r2: float = 0.0
    """1 - (squared residuals) / (squared deviations from the mean); 1 where all points are equal and met."""
    worst: float = 0.0
    """Largest residual as a share of its point."""

    def __call__(self, x: Doubles) -> Doubles:
        """Values [n] at [n]."""
        if self.form == "power":
            return np.asarray(self.a * x**self.b)
        return np.asarray(self.a + self.b * (x if self.form == "line" else x**2))


def fit(x: Sequence[float], y: Sequence[float]) -> Law:
    """A straight line; where that misses a point by more than CLOSE, whichever form misses least.

    A constant where there is one x only, or one y.
    """
    xs, ys = np.array(x, np.float64), np.array(y, np.float64)
    if len(set(x)) == 1 or len(set(y)) == 1:
        return _judged(Law("line", float(ys.mean()), 0.0), xs, ys)
    line = _judged(Law("line", *relative_line(xs, ys)), xs, ys)
    if line.worst <= CLOSE:
        return line
    exponent, level = np.polyfit(np.log(xs), np.log(ys), 1)
    others = Law("power", float(np.exp(level)), float(exponent)), Law("square", *relative_line(xs**2, ys))
    return min(line, *(_judged(law, xs, ys) for law in others), key=lambda law: law.worst)


def relative_line(x: Doubles, y: Doubles) -> tuple[float, float]:
    """a and b of a + b x with the least sum of squared relative residuals, as points span decades."""
    design = np.column_stack([np.ones_like(x), x]) / y[:, None]
    (a, b), *_ = np.linalg.lstsq(design, np.ones_like(y), rcond=None)
    return float(a), float(b)


def _judged(law: Law, x: Doubles, y: Doubles) -> Law:
    r2, worst = quality(law(x), y)
    return replace(law, r2=r2, worst=worst)


def quality(fitted: Doubles, y: Doubles) -> tuple[float, float]:
    """R squared and the largest relative error."""
    residuals, spread = ((fitted - y) ** 2).sum(), ((y - y.mean()) ** 2).sum()
    return (1 - residuals / spread if spread else float(not residuals)), float(np.abs(fitted / y - 1).max())


@dataclass(frozen=True)
class Sum:
    """y = the sum of non-negative coefficients times what is counted."""

    coefficients: tuple[float, ...]
    r2: float
    worst: float

    def __call__(self, counts: Sequence[float]) -> float:
        """The value for some counts, in the order of the coefficients."""
        return float(np.dot(self.coefficients, counts))


def fit_sum(counts: Sequence[Sequence[float]], y: Sequence[float]) -> Sum:
    """By least squares of relative residuals. Counts that cannot be told apart share what they explain."""
    design, ys = np.array(counts, np.float64), np.array(y, np.float64)
    scale = np.maximum(design.max(axis=0), 1e-300)
    found, _ = nnls(design / scale / ys[:, None], np.ones_like(ys))
    coefficients = found / scale
    return Sum(tuple(map(float, coefficients)), *quality(design @ coefficients, ys))
