"""The measured model and its queries: 8 fields of 16, an MLP of 256-128-64, 200 candidates, 10 MB a snapshot."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from protos.recommender_pb2 import RecommendRequest
from simulator.config import NO_NOISE, ExperimentConfig, ModelConfig
from simulator.models.engine import EngineName
from simulator.models.engines import Engines
from simulator.models.ranker import Ranker, Rankers
from simulator.models.specs import parse_arms
from simulator.randomness import generator
from simulator.types import Batch, Field, Ints, Rows, Schema
from simulator.world.features import Encoder
from trainer import publish


@dataclass(frozen=True)
class Sizes:
    """How large the model is, and how much is asked."""

    users: int = 80_000
    items: int = 50_000
    makers: int = 24_000
    """Values of a second item field."""
    model: ModelConfig = ModelConfig(dim=16, hidden=(256, 128, 64), norm="after")
    candidates: int = 200
    queries: int = 4_096
    """Distinct ones, asked in turn."""


SIZES = {
    "full": Sizes(),
    "quick": Sizes(
        users=100,
        items=80,
        makers=10,
        model=ModelConfig(dim=4, hidden=(8, 4), norm="after"),
        candidates=20,
        queries=50,
    ),
}
K, DUPLICATES = 10, 3
EVENTS = 20_000
"""Engagements from which candidates are retrieved."""
OWN = 0.02
"""Standard deviation of what sets duplicates and generations apart."""


@dataclass(frozen=True)
class World:
    """What is announced of it."""

    schema: Schema
    name: str = "synthetic"


class Model:
    """Weights, catalogue and queries, the same in every process."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes, self.schema = sizes, schema(sizes)
        self.config = ExperimentConfig(
            arms=("relu",), model=sizes.model, noise=NO_NOISE, duplicates=DUPLICATES, candidates=sizes.candidates
        )
        self.engines = Engines(self.schema, parse_arms(self.config.arms), self.config, threads=1)
        engine = self.engines.engines[0]
        self.engine, weights = engine, engine.weights
        draws = torch.Generator().manual_seed(0)
        weights.dense.add_(torch.randn(weights.dense.shape, generator=draws) * OWN)
        weights.table[:, 1:] += torch.randn(weights.table[:, 1:].shape, generator=draws) * OWN
        first = {field.name: self.schema.first_row(field.name) for field in self.schema.fields}
        users, items = np.arange(sizes.users), np.arange(sizes.items)
        user_rows = np.stack([first["user"] + users, first["country"] + users % 20], 1)
        makers, kinds = items % sizes.makers, items % 50
        item_rows = np.stack([first["item"] + items, first["maker"] + makers, first["kind"] + kinds], 1)
        self.encoder = Encoder(self.schema, user_rows.astype(np.int32), item_rows.astype(np.int32))
        self._context_rows = np.array([first[name] for name in ("device", "hour", "position")], np.int32)

    @cached_property
    def catalog(self) -> dict[str, np.ndarray]:
        """What is published beside the weights."""
        return publish.catalog(self, self._engagements(), self.sizes.candidates)

    def present(self, time: float) -> Ints:
        """All items."""
        return np.arange(self.sizes.items)

    def candidates(self, user: int) -> Ints:
        """[N] the items that are ranked for a user."""
        found: Ints = self.catalog["candidates"][self.catalog["segment"][user]]
        return found

    def features(self, user: int, context: list[int], items: Ints) -> Rows:
        """Table rows [N, S] of the candidates [N]."""
        return self.encoder.candidates(user, items, tuple((self._context_rows + context).tolist()))

    def queries(self) -> list[bytes]:
        """The bytes of each query."""
        draws = generator(0, "bench queries")
        count = self.sizes.queries
        users, context = draws.integers(self.sizes.users, size=count), draws.integers([4, 24, 1], size=(count, 3))
        return [
            RecommendRequest(query_id=n + 1, user=int(users[n]), context=context[n].tolist(), k=K).SerializeToString()
            for n in range(count)
        ]

    def parts(self, run: str, generation: int) -> dict[str, bytes]:
        """A generation's parts, as the trainer cuts them."""
        return publish.parts(self.engines, self.config, self, self._engagements(), run, generation)

    def about(self, generation: int) -> dict[str, Any]:
        """What is announced with it."""
        cut = {"generation": generation, "events": generation, "published": time.time(), "quality": {}}
        return publish.about(self.engines, self.config, World(self.schema), cut)

    def learn(self) -> None:
        """Change every weight a little, as learning does."""
        self.engine.weights.dense.mul_(1.001)
        self.engine.weights.table.mul_(1.001)

    def ranker(self, device: str = "cpu", spec: str = "relu") -> Ranker:
        """Of the first duplicate, as a replica makes it."""
        rows, model = (self.encoder.user_rows, self.encoder.item_rows), self.engine.model
        engine: EngineName = self.engine.name if device == "cpu" else "torch"
        return Rankers(device)(self.schema, spec, engine, model, self.engine.published(0), *rows)

    def _engagements(self) -> publish.Engagements:
        draws, recent = generator(0, "bench engagements"), publish.Engagements(EVENTS)
        users = draws.integers(self.sizes.users, size=EVENTS)
        items = (self.sizes.items * draws.random(EVENTS) ** 3).astype(np.int64)
        items[: self.sizes.candidates], items[-1] = np.arange(self.sizes.candidates), self.sizes.items - 1
        rows, clicked = np.zeros((EVENTS, self.schema.slots), np.int32), np.ones(EVENTS, np.float32)
        recent.add(Batch(users, items, np.zeros(EVENTS), rows, clicked))
        return recent


def build(sized: str) -> Model:
    """The model of that size: `full` or `quick`."""
    return Model(SIZES[sized])


def schema(sizes: Sizes) -> Schema:
    """Eight single-valued fields."""
    return Schema(
        (
            Field("user", "user", sizes.users),
            Field("country", "user", 20),
            Field("item", "item", sizes.items),
            Field("maker", "item", sizes.makers),
            Field("kind", "item", 50),
            Field("device", "context", 4),
            Field("hour", "context", 24),
            Field("position", "context", 10),
        )
    )
