"""Taste vectors of users, items and contexts: what is shown of them explains a part, the rest is their own."""

from __future__ import annotations

import numpy as np

from simulator.types import Floats, Ints

TASTES = 8
"""Length of a taste vector; every entry has mean 0 and variance 1 over the population."""
EXPLAINED = 0.5
"""Share of the variance of tastes that observable features explain. A model learns the rest from the id alone."""


def normal(rng: np.random.Generator, count: int) -> Floats:
    """[count, TASTES] independent standard normal entries."""
    return rng.standard_normal((count, TASTES), dtype=np.float32)


def explained(rng: np.random.Generator, observables: list[tuple[Ints, int]]) -> Floats:
    """[n, TASTES] the part of tastes that follows from the observables, variance 1.

    `observables` holds (values [n] or [n, slots], vocabulary) pairs. Each value has a random vector. In a multi-valued
    observable -1 marks an empty slot. Sums of m vectors are divided by sqrt(m), so that the variance stays 1.
    """
    total = np.zeros((len(observables[0][0]), TASTES), np.float32)
    for values, vocabulary in observables:
        slots = values.reshape(len(values), -1)  # [n, slots]
        vectors = np.concatenate([normal(rng, vocabulary), np.zeros((1, TASTES), np.float32)])  # -1 finds the zeros
        filled = (slots >= 0).sum(1, keepdims=True)
        total += vectors[slots].sum(1) / np.sqrt(filled, dtype=np.float32)
    return np.asarray(total / np.sqrt(len(observables)), np.float32)
