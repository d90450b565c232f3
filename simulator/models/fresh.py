"""Training from scratch: at a refresh new models learn the last generations, and serve unchanged until the next one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from simulator.models.cures import Fresh
from simulator.models.duplicates import Duplicates
from simulator.models.engine import Costs
from simulator.types import Batch, Doubles, Floats, Query, Rows


@dataclass(frozen=True)
class KeptChunk:
    """A chunk that is kept to be learned again."""

    generation: int
    number: int
    """The chunk's number since the start, which seeds the order in which each duplicate learns it."""
    chunk: Batch


class FreshEngine:
    """An Engine around that of an arm which is trained afresh."""

    def __init__(self, engine: Duplicates) -> None:
        assert isinstance(engine.arm.cure, Fresh)
        self._engine, self._last = engine, engine.arm.cure.last
        self.name, self.arm, self.model, self.chunk_events = engine.name, engine.arm, engine.model, engine.chunk_events
        self.identity = engine.identity
        self._kept: list[KeptChunk] = []
        self._generation = self._chunks = 0

    @property
    def scoring_seconds(self) -> Doubles:
        """See Engine."""
        return self._engine.scoring_seconds

    def learn(self, chunk: Batch) -> Floats:
        """Keep a chunk for the next refresh; returns the log-odds [S, n] that the served models give to its events."""
        self._kept.append(KeptChunk(self._generation, self._chunks, chunk))
        self._chunks += 1
        if self._generation:
            return self._engine.score_events(chunk.features)
        return self._engine.learn(chunk)

    def refresh(self) -> None:
        """Train afresh on the last generations: all but the first one, whose models have learned it already."""
        self._generation += 1
        self._kept = [chunk for chunk in self._kept if chunk.generation >= self._generation - self._last]
        if self._generation == 1:
            return
        self._engine.initialise(self._generation)
        for chunk in self._kept:
            self._engine.chunks = chunk.number
            self._engine.learn(chunk.chunk)

    def score_events(self, features: Rows) -> Floats:
        """See Engine."""
        return self._engine.score_events(features)

    def score_queries(self, queries: list[Query]) -> Floats:
        """See Engine."""
        return self._engine.score_queries(queries)

    def published(self, duplicate: int) -> dict[str, Tensor]:
        """See Engine."""
        return self._engine.published(duplicate)

    def costs(self, candidates: int) -> Costs:
        """See Engine; the events that are remembered, once for all models, aside."""
        return self._engine.costs(candidates)

    def take_seconds(self) -> Doubles:
        """See Engine."""
        return self._engine.take_seconds()

    def state(self) -> dict[str, Tensor]:
        """See Engine; what is remembered included."""
        state = self._engine.state()
        state["fresh.progress"] = torch.tensor([self._generation, self._chunks])
        for position, remembered in enumerate(self._kept):
            name = f"fresh.{position}"
            state[f"{name}.number"] = torch.tensor([remembered.generation, remembered.number])
            state[f"{name}.features"] = torch.from_numpy(remembered.chunk.features.copy())
            state[f"{name}.label"] = torch.from_numpy(remembered.chunk.label.copy())
            if remembered.chunk.weight is not None:
                state[f"{name}.weight"] = torch.from_numpy(remembered.chunk.weight.copy())
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """See Engine."""
        self._engine.restore(state)
        self._generation, self._chunks = (int(value) for value in state["fresh.progress"])
        self._kept = []
        while (name := f"fresh.{len(self._kept)}") + ".number" in state:
            generation, number = (int(value) for value in state[f"{name}.number"])
            weight = state[f"{name}.weight"].numpy() if f"{name}.weight" in state else None
            chunk = _events(state[f"{name}.features"].numpy(), state[f"{name}.label"].numpy(), weight)
            self._kept.append(KeptChunk(generation, number, chunk))


def _events(features: Rows, label: Floats, weight: Floats | None) -> Batch:
    """Events with only the columns that learning needs."""
    zeros = np.zeros(len(label), np.int64)
    return Batch(zeros, zeros, zeros.astype(np.float64), features, label, weight)
