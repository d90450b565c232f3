"""Training afresh: at each refresh new models learn the last generations, and serve unchanged until the next one.

Shapes: M models of the stack, n events of a chunk, S slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from simulator.config import NoiseConfig
from simulator.models.cures import Fresh
from simulator.models.duplicates import Duplicates
from simulator.models.learner import Learner
from simulator.models.ranking import score_events
from simulator.types import Batch, Doubles, Floats


@dataclass(frozen=True)
class Remembered:
    """A chunk that will be learned again."""

    generation: int
    number: int
    """Of the chunk since the beginning: it decides in which order each duplicate learns it."""
    chunk: Batch


class FreshLearner:
    """Like a Learner, for a stack whose arms are all trained afresh on equally many generations."""

    def __init__(self, stack: Duplicates, noise: NoiseConfig, *, seed: int) -> None:
        (cure,) = {arm.cure for arm in stack.arms}
        assert isinstance(cure, Fresh)
        self.stack, self._last, self._noise, self._seed = stack, cure.last, noise, seed
        self._learner = Learner(stack, noise, seed=seed)
        self.chunk_events = self._learner.chunk_events
        self._remembered: list[Remembered] = []
        self._generation, self._chunks = 0, 0
        self._seconds = np.zeros(len(stack))

    def learn(self, chunk: Batch) -> Floats:
        """Keep a chunk for the next refresh; returns the log-odds [M, n] that the served models give to its events."""
        self._remembered.append(Remembered(self._generation, self._chunks, chunk))
        self._chunks += 1
        if self._generation:
            return score_events(self.stack, chunk.features)
        return self._learner.learn(chunk)

    def refresh(self) -> None:
        """Train afresh on the last generations: all but the first one, whose models have learned it already."""
        self._generation += 1
        self._remembered = [each for each in self._remembered if each.generation >= self._generation - self._last]
        if self._generation == 1:
            return
        self._seconds += self._learner.take_seconds()
        self.stack.initialise(self._generation)
        self._learner = Learner(self.stack, self._noise, seed=self._seed)
        for each in self._remembered:
            self._learner.chunks = each.number
            self.check_finite(self._learner.learn(each.chunk), self._chunks * self.chunk_events)

    def check_finite(self, logits: Floats, events: int) -> None:
        """See Learner."""
        self._learner.check_finite(logits, events)

    def take_seconds(self) -> Doubles:
        """See Learner."""
        seconds, self._seconds = self._seconds + self._learner.take_seconds(), np.zeros(len(self.stack))
        return seconds

    def octets(self, arm: int) -> int:
        """See Learner; the events that are remembered, once for all models, aside."""
        return self._learner.octets(arm)

    def state(self) -> dict[str, Tensor]:
        """See Learner; what is remembered included."""
        state = self._learner.state()
        state["fresh.progress"] = torch.tensor([self._generation, self._chunks])
        for position, each in enumerate(self._remembered):
            name = f"fresh.{position}"
            state[f"{name}.number"] = torch.tensor([each.generation, each.number])
            state[f"{name}.features"] = torch.from_numpy(each.chunk.features.copy())
            state[f"{name}.label"] = torch.from_numpy(each.chunk.label.copy())
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """See Learner."""
        self._learner.restore(state)
        self._generation, self._chunks = (int(value) for value in state["fresh.progress"])
        self._remembered = []
        while (name := f"fresh.{len(self._remembered)}") + ".number" in state:
            generation, number = (int(value) for value in state[f"{name}.number"])
            chunk = _events(state[f"{name}.features"].numpy(), state[f"{name}.label"].numpy())
            self._remembered.append(Remembered(generation, number, chunk))


def _events(features: np.ndarray, label: Floats) -> Batch:
    """Events of which nothing else is known: all that learning needs."""
    nobody = np.zeros(len(label), np.int64)
    return Batch(nobody, nobody, nobody.astype(np.float64), features, label)
