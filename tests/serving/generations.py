"""Small generations with real weights, published as a trainer does, and what must be answered from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from protos.recommender_pb2 import RecommendRequest
from simulator.config import ExperimentConfig, ModelConfig, SyntheticConfig
from simulator.models.engines import Engines
from simulator.models.specs import parse_arms
from simulator.store.protocol import Registry
from simulator.types import Floats, Ints
from simulator.world.stream import SyntheticWorld
from trainer import publish

ARMS = ("relu", "smelu:beta=1")
DUPLICATES, CANDIDATES = 3, 40
WORLD = SyntheticWorld(SyntheticConfig(events=3_000, users=50, items=120), seed=3)
CONTEXT = [field for field in WORLD.schema.fields if field.side == "context"]


CONFIG = ExperimentConfig(
    arms=ARMS, model=ModelConfig(dim=4, hidden=(12, 6)), duplicates=DUPLICATES, candidates=CANDIDATES, seed=5
)


def stack_of(generation: int, **changes: Any) -> Engines:
    """Duplicates whose parameters are all away from their start, and differ between generations."""
    config = replace(CONFIG, model=replace(CONFIG.model, **changes))
    stack, noise = Engines(WORLD.schema, parse_arms(ARMS), config, threads=1), torch.Generator().manual_seed(generation)
    for engine in stack.engines:
        weights = engine.weights
        weights.dense.add_(torch.randn(weights.dense.shape, generator=noise) * 0.3)
        weights.table[:, 1:] += torch.randn(weights.table[:, 1:].shape, generator=noise) * 0.3
    return stack


def engagements() -> publish.Engagements:
    """What the candidates are retrieved from."""
    recent = publish.Engagements(1_000)
    for batch in WORLD.batches(500):
        recent.add(batch)
    return recent


RECENT = engagements()


def parts_of(stack: Engines, generation: int, run: str = "default") -> dict[str, bytes]:
    """The parts of a generation."""
    return publish.parts(stack, CONFIG, WORLD, RECENT, run, generation)


def about_of(stack: Engines, generation: int) -> dict[str, Any]:
    """What is announced with it."""
    cut = {"generation": generation, "events": generation * 100, "published": 1_000.0 + generation, "quality": {}}
    return publish.about(stack, CONFIG, WORLD, cut)


def publish_generation(registry: Registry, generation: int, stack: Engines | None = None, names: str = "") -> Engines:
    """Publish a generation, whose names have this digest; returns its stack."""
    stack = stack or stack_of(generation)
    about = about_of(stack, generation) | {"names": names}
    registry.publish(generation, parts_of(stack, generation, registry.run), about)
    return stack


def retrieved(user: int) -> Ints:
    """The candidates of the user's segment."""
    tables = publish.catalog(WORLD, RECENT, CANDIDATES)
    found: Ints = tables["candidates"][tables["segment"][user]]
    return found


def plain_scores(stack: Engines, arm: int, duplicate: int, query: RecommendRequest) -> tuple[Ints, Floats]:
    """A query's candidates and their log-odds, by the whole network."""
    items = np.array(query.candidates, np.int64) if query.candidates else retrieved(query.user)
    values = list(query.context) or [0] * len(CONTEXT)
    context = tuple(WORLD.schema.first_row(f.name) + value for f, value in zip(CONTEXT, values, strict=True))
    scores = stack.score_events(WORLD.encoder.candidates(query.user, items, context))
    return items, scores[arm * DUPLICATES + duplicate]
