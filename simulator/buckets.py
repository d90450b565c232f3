"""Where predictions differ: PD by how likely the models think an engagement is, and by how popular the item is.

Shapes as in simulator/comparison.py; n held-out events.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from simulator.comparison import Comparison
from simulator.types import Doubles, Floats, Ints, World

BUCKETS = 5
"""At most so many, of about equally many events each."""
CHUNK = 65_536


def learned_counts(world: World, learned: int) -> Ints:
    """[items] in how many of the first `learned` events each item was shown."""
    counts = np.zeros(world.items, np.int64)
    for batch in world.batches(CHUNK, 0, learned):
        counts += np.bincount(batch.item, minlength=world.items)
    return counts


def mean_score(comparison: Comparison, arm: int, logits: Floats) -> Doubles:
    """[n] probability of an engagement: the mean of all the arm's models."""
    own = logits[comparison.shape.models(arm).ravel()].astype(np.float64)
    return np.asarray((0.5 + 0.5 * np.tanh(own / 2)).mean(axis=0))


def pd_by(comparison: Comparison, arm: int, logits: Floats, values: Doubles) -> list[dict[str, Any]]:
    """PD in buckets of events by a value [n]: its limits (the last one belongs to it), share of events, PD [interval].

    `logits` [M, n]. Equal values share a bucket, so there may be fewer than BUCKETS; none is empty.
    """
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BUCKETS + 1)))
    bucket = np.searchsorted(edges[1:-1], values, side="right")
    found = []
    for number in np.unique(bucket):
        inside = bucket == number
        estimate = comparison.pd_among(arm, logits, inside)
        found.append(
            {
                "low": float(values[inside].min()),
                "high": float(values[inside].max()),
                "share": float(inside.mean()),
                "pd": estimate.interval().as_dict(),
            }
        )
    return found
