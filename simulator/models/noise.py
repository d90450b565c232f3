"""What differs between duplicates, each source with its own switch and its own draws.

Every draw is derived from (seed, source, copy, fleet, duplicate, chunk or step), never from what came before, so a
resumed run draws the same, and matched duplicates of two arms see the same noise. Threads that race (`racing`) draw
nothing: what they do is up to the machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from simulator.config import NoiseConfig
from simulator.randomness import generator
from simulator.types import Floats, Ints


@dataclass(frozen=True)
class ModelIdentity:
    """Identity of one model of an arm. Models of different arms with equal identities share all draws."""

    fleet: int
    duplicate: int
    copy: int = 0
    """Of the arm: 0 for the first set of a spec, 1 for an independent second one, ..."""
    part: int = 0
    """Which of the models that the arm's cure makes a served one of; they differ in their initial weights alone."""


class Noise:
    """The draws of one run's noise."""

    def __init__(self, config: NoiseConfig, seed: int) -> None:
        self.config, self.seed = config, seed

    def _draws(self, source: str, member: ModelIdentity, *index: int) -> np.random.Generator:
        return generator(self.seed, source, member.copy, member.fleet, member.duplicate, *index)

    def order(self, member: ModelIdentity, chunk: int, events: int, batch: int) -> Ints:
        """The order [events] in which a duplicate learns a chunk (a shuffle window) of the log."""
        order = np.arange(events)
        if self.config.window:
            order = self._draws("order", member, chunk).permutation(events)
        if self.config.reductions:  # same events in each mini-batch, summed in another order
            draws = self._draws("reductions", member, chunk)
            for start in range(0, events, batch):
                order[start : start + batch] = draws.permutation(order[start : start + batch])
        return order

    def lost(self, member: ModelIdentity, chunk: int, batches: int) -> np.ndarray:
        """[batches] whether the duplicate never learns that mini-batch."""
        if not self.config.lost:
            return np.zeros(batches, bool)
        return self._draws("lost", member, chunk).random(batches) < self.config.lost

    def delays(self, member: ModelIdentity, chunk: int, batches: int) -> Ints:
        """[batches] how many mini-batches later its gradient is applied."""
        if not self.config.delay:
            return np.zeros(batches, np.int64)
        return self._draws("delay", member, chunk).integers(0, self.config.delay, batches, endpoint=True)

    def left_out(self, member: ModelIdentity, chunk: int, labels: Floats) -> Ints:
        """Places of engagements among the labels [n] of a chunk, in the order of the log, that the duplicate alone does
        not learn. "Leave-one-out" of arXiv 2201.12686, which also replaces and inserts single interactions; here all
        are early, so that there is time to see what becomes of it."""
        places = np.flatnonzero(labels > 0)
        count = 0 if chunk or not member.duplicate else min(self.config.changed, len(places))
        return self._draws("changed", member).choice(places, count, replace=False)

    def rounding(self, member: ModelIdentity, chunk: int) -> np.random.Generator:
        """The draws for stochastic rounding during one chunk."""
        return self._draws("rounding", member, chunk)


def round_to_bfloat16(values: Tensor, draws: np.random.Generator) -> Tensor:
    """Stochastic rounding to a neighbouring bfloat16, with odds that keep the expectation; float32 in and out.

    A bfloat16 is the upper half of a float32's bits: add a uniform 16-bit number to the lower half, then cut it off.
    """
    dither = torch.from_numpy(draws.integers(0, 1 << 16, values.numel(), dtype=np.int32)).to(values.device)
    bits = values.contiguous().view(torch.int32).flatten() + dither
    return (bits & -65536).view(torch.float32).view(values.shape)
