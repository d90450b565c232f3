"""Small batches whose every event can be told from every other."""

from __future__ import annotations

import numpy as np

from simulator.types import Batch


def batch(first: int, n: int, slots: int = 4, rows: int = 1000) -> Batch:
    """`n` events numbered from `first` on: the number is the time of the event and follows from its other columns."""
    number = np.arange(first, first + n)
    features = (number[:, None] * 7 + np.arange(slots)) % rows
    features[0, 0] = rows - 1
    return Batch(
        user=number % 200,
        item=number * 3 % 250,
        time=number.astype(np.float64),
        features=features.astype(np.int32),
        label=(number % 5 == 0).astype(np.float32),
    )


def same(one: Batch, other: Batch) -> bool:
    """Whether two batches hold equal values of equal dtype and shape."""
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return all(
        a is b if a is None else a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b) for a, b in pairs
    )


def numbers(batches: list[Batch]) -> list[int]:
    """The numbers of all events, in order."""
    return [int(time) for one in batches for time in one.time]
