"""Queries per second that one duplicate ranks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from figures import Figure, speed
from interleave import interleave
from learning import make_chunks, make_stack
from sizes import Size

from simulator.config import NO_NOISE
from simulator.models.ranking import score_events, slate


def measure(size: Size) -> list[Figure]:
    """One query after the other: score its candidates, sort them, cut the slate."""
    stack = make_stack(replace(size, duplicates=1), "relu", NO_NOISE)
    features = np.concatenate([chunk.features for chunk in make_chunks(size)])
    items = np.arange(size.candidates)

    def rank(number: int) -> None:
        for query in range(size.queries):
            start = (number * size.queries + query) * size.candidates % (len(features) - size.candidates)
            slate(score_events(stack, features[start : start + size.candidates])[0], items, k=10)

    passes = interleave("ranking", {"ranking": rank}, size.rounds, size.warm_up)
    return [speed(f"one duplicate ranks {size.candidates} candidates", "queries/s", passes["ranking"], size.queries)]
