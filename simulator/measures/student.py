"""Student's t quantile without SciPy, for the intervals."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

GRID = 20_001
"""Points of the numerical integral: the error is below 2e-5 of the quantile."""


@lru_cache(maxsize=1024)
def student_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t with `freedom` >= 1 degrees of freedom, for probability in [0.5, 0.999].

    With t = sqrt(freedom) tan(a) the density is proportional to cos(a)^(freedom - 1) on |a| < pi/2. Above 10,000
    degrees of freedom the quantile is the normal one to four digits, and 10,000 are used.
    """
    assert 0.5 <= probability <= 0.999 and freedom >= 1
    freedom = min(freedom, 10_000.0)
    angle = np.linspace(0, math.pi / 2, GRID)
    density = np.cos(angle) ** (freedom - 1)
    area = np.concatenate([[0], (density[1:] + density[:-1]).cumsum()])
    return math.sqrt(freedom) * math.tan(float(np.interp((2 * probability - 1) * area[-1], area, angle)))
