"""Generations made without learning: what a trainer would publish, whenever a test wants it."""

from __future__ import annotations

import time

import torch

from simulator.config import NO_NOISE, ExperimentConfig, ModelConfig, SyntheticConfig
from simulator.models.engines import Engines
from simulator.models.specs import parse_arms
from simulator.randomness import generator
from simulator.store.protocol import Store
from simulator.world.open import open_world
from simulator.world.stream import SyntheticWorld
from trainer.publish import Engagements, about, parts

ARMS = ("relu", "smelu:beta=1")
USERS, ITEMS, CANDIDATES, DUPLICATES = 500, 400, 128, 3
CONFIG = ExperimentConfig(
    arms=ARMS,
    model=ModelConfig(dim=8, hidden=(32, 16), batch=128),
    noise=NO_NOISE,
    duplicates=DUPLICATES,
    candidates=CANDIDATES,
)
OWN = 0.02
"""Standard deviation of what each generation adds to each duplicate's embeddings: swaps some items, not all."""
EVENTS = 2_000
"""Events of the world between two generations, from which candidates are retrieved."""


class Publisher:
    """The newest generation of one run, and the next."""

    def __init__(self, store: Store) -> None:
        self.store, self.generation = store, 0
        world = open_world(SyntheticConfig(events=200_000, users=USERS, items=ITEMS), seed=0)
        assert isinstance(world, SyntheticWorld)
        self.world, self._batches = world, world.batches(EVENTS, 0)
        self.engines = Engines(world.schema, parse_arms(ARMS), CONFIG)
        self._engagements = Engagements(10_000)

    def publish(self) -> int:
        """The next generation: other weights for every duplicate, partly other candidates."""
        self.generation += 1
        draws = generator(0, "test generation", self.generation)
        for engine in self.engines.engines:
            table = engine.weights.table
            table += torch.from_numpy(draws.normal(0, OWN, table.shape)).float()
            table[:, 0] = 0  # padding
        self._engagements.add(next(self._batches))
        whose = self.store.run, self.generation
        made = parts(self.engines, CONFIG, self.world, self._engagements, *whose)
        cut = {"generation": self.generation, "events": self.generation * EVENTS, "published": time.time()}
        self.store.publish(self.generation, made, about(self.engines, CONFIG, self.world, cut | {"quality": {}}))
        return self.generation
