"""Scores and slates: every duplicate ranks the candidates of every query.

Shapes: M models, Q queries, N candidates, K slate length, n events.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from simulator.models.duplicates import Duplicates
from simulator.types import Doubles, Floats, Ints, Query, Rows, Slate, order

EVENTS_PER_PASS = 2_048
"""Events scored at once on a CPU: what a pass touches stays in the cache."""
SCORES_PER_PASS = 1 << 20
"""Log-odds computed at once on a GPU, by all models together: enough to fill it. With the default model each one takes
2.4 kB of memory on the way."""


def score_events(stack: Duplicates, features: Rows, seconds: Doubles | None = None) -> Floats:
    """Log-odds [M, n] that every model of the stack gives to events with table rows [n, S]; nothing is learned.

    To `seconds` [M] is added what each model took: of one core on a CPU, of the device on a GPU.
    """
    rows = torch.from_numpy(features).to(stack.device)
    size = events_per_pass(stack.device, stack.slabs[0].stop)  # every slab of a stack is of one size
    clock = time.thread_time if stack.device.type == "cpu" else time.perf_counter

    def score_slab(number: int) -> Tensor:
        slab, begun = stack.slabs[number], clock()
        parts = [stack.logits(slab, rows[None, start : start + size]) for start in range(0, len(rows), size)]
        joined = torch.cat(parts, 1).cpu()
        if seconds is not None:
            seconds[slab] += (clock() - begun) / len(joined)
        return joined

    scores: Floats = stack.each_slab(score_slab).numpy()
    return scores


def events_per_pass(device: torch.device, models: int) -> int:
    """How many events the models of a slab score at once."""
    return EVENTS_PER_PASS if device.type == "cpu" else max(EVENTS_PER_PASS, SCORES_PER_PASS // models)


def score_queries(stack: Duplicates, queries: list[Query], seconds: Doubles | None = None) -> Floats:
    """Log-odds [M, Q, N] of the candidates of queries with equally many candidates; `seconds` as above."""
    scores = score_events(stack, np.concatenate([query.features for query in queries]), seconds)
    return scores.reshape(len(scores), len(queries), -1)


def slate(scores: Floats, items: Ints, k: int, ranked: Ints | None = None) -> Slate:
    """The top k of one query's candidates (scores [N], items [N]); `ranked` is their order [N], where it is known."""
    best = (order(scores, items) if ranked is None else ranked)[:k]
    return Slate(items[best], scores[best])
