"""Relative prediction difference as it is defined, of probabilities."""

from __future__ import annotations

import numpy as np


def relative_pd(p1: np.ndarray, p2: np.ndarray) -> np.ndarray:
    """2 |p1 - p2| / (p1 + p2) [n], 0 where both are 0."""
    total = p1 + p2
    return np.divide(2 * np.abs(p1 - p2), total, out=np.zeros_like(total, np.float64), where=total > 0)
