"""Sampled negatives: a log that records engagements only gets items that the user was, presumably, not taken by.

Each negative comes with probability 1/2 from the items of the trailing `recent` engagements (popular items come up
more often), else uniformly from the items seen so far. Both ranges end with the engagement itself, so nothing of the
future is used. Accidental positives, items that the user did or will engage with, are not rejected: doing so would
need the future, and among thousands of items they are rare.
Shapes: n engagements, M negatives for each.
"""

from __future__ import annotations

import numpy as np

from simulator.randomness import generator
from simulator.types import Ints


def negatives(items: Ints, trail: Ints, known: int, recent: int, count: int, seed: int, block: int) -> Ints:
    """Items [n, M] not engaged with, for the engaged `items` [n] of one block of the log.

    `trail`: items of the last `recent` engagements before the block (fewer near the start). `known`: distinct items
    before the block. The draws depend on (seed, block) alone, and row i on the rows before it alone.
    """
    draws = generator(seed, "negatives", block).random((len(items), count, 3))
    history = np.concatenate([trail, items])
    now = len(trail) + np.arange(len(items))[:, None]
    oldest = np.maximum(0, now - recent + 1)
    popular = history[oldest + (draws[:, :, 0] * (now - oldest + 1)).astype(np.int64)]
    seen = np.maximum(known, np.maximum.accumulate(items) + 1)[:, None]
    uniform = (draws[:, :, 1] * seen).astype(np.int64)
    items_drawn: Ints = np.where(draws[:, :, 2] < 0.5, popular, uniform)
    return items_drawn
