"""What the tests of the synthetic world share."""

from __future__ import annotations

import numpy as np
from scipy.stats import chi2

from simulator.config import SyntheticConfig
from simulator.types import Batch, Ints
from simulator.world.stream import SyntheticWorld

CONFIG = SyntheticConfig(events=120_000, users=400, items=300, drift=0.5, turnover=0.4)


def same(a: Batch, b: Batch) -> bool:
    pairs = ((a.user, b.user), (a.item, b.item), (a.time, b.time), (a.features, b.features), (a.label, b.label))
    return all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in pairs)


def value(world: SyntheticWorld, batch: Batch, field: str) -> Ints:
    """Values of a single-valued field, read back from the table rows."""
    return batch.features[:, world.schema.slot_range(field)][:, 0].astype(np.int64) - world.schema.first_row(field)


def truth(world: SyntheticWorld, batch: Batch) -> np.ndarray:
    return world.probability(batch.user, batch.item, batch.features[:, -3:], batch.time).astype(np.float64)


def assert_frequencies(label: np.ndarray, probability: np.ndarray, cells: np.ndarray) -> None:
    """Chi-square of observed against expected clicks per cell; a true model fails once in a million seeds."""
    observed, expected = np.bincount(cells, label), np.bincount(cells, probability)
    variance = np.bincount(cells, probability * (1 - probability))
    used = variance > 5
    assert used.sum() >= 5
    statistic = ((observed - expected)[used] ** 2 / variance[used]).sum()
    assert chi2.sf(statistic, used.sum()) > 1e-6
