"""Queries per second that one duplicate ranks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from engine import no_native
from figures import Figure, speed
from interleave import interleave
from learning import make_chunks, sized_engine
from sizes import Size

from simulator.config import NO_NOISE
from simulator.models.native_engine import NativeEngine
from simulator.models.torch_engine import TorchEngine
from simulator.types import slate


def measure(size: Size) -> list[Figure]:
    """One query after the other: score its candidates, sort them, cut the slate."""
    kind = TorchEngine if no_native() else NativeEngine
    engine = sized_engine(kind, replace(size, duplicates=1), "relu", NO_NOISE)
    features = np.concatenate([chunk.features for chunk in make_chunks(size)])
    items = np.arange(size.candidates)

    def rank(number: int) -> None:
        for query in range(size.queries):
            start = (number * size.queries + query) * size.candidates % (len(features) - size.candidates)
            slate(engine.score_events(features[start : start + size.candidates])[0], items, k=10)

    passes = interleave("ranking", {"ranking": rank}, size.rounds, size.warm_up)
    return [speed(f"one duplicate ranks {size.candidates} candidates", "queries/s", passes["ranking"], size.queries)]
