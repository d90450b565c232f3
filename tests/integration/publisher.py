"""Generations made without learning: what a trainer would publish, whenever a test wants it."""

from __future__ import annotations

import time

import torch

from simulator.config import NO_NOISE, ModelConfig, SyntheticConfig
from simulator.experiment import open_world
from simulator.models.duplicates import Duplicates, parse_arms
from simulator.randomness import generator
from simulator.store.protocol import Store
from simulator.world.stream import SyntheticWorld
from trainer.publish import Engagements, about, parts

ARMS = ("relu", "smelu:beta=1")
USERS, ITEMS, CANDIDATES, DUPLICATES = 500, 400, 128, 3
MODEL = ModelConfig(dim=8, hidden=(32, 16), batch=128)
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
        arms = parse_arms(ARMS)
        self.stack = Duplicates(world.schema, arms, MODEL, NO_NOISE, fleets=1, duplicates=DUPLICATES, seed=0)
        self._engagements = Engagements(10_000)
        while self._engagements.trail().items < ITEMS:
            self._engagements.add(next(self._batches))

    def publish(self) -> int:
        """The next generation: other weights for every duplicate, partly other candidates."""
        self.generation += 1
        draws = generator(0, "test generation", self.generation).normal(0, OWN, self.stack.embedding.shape)
        self.stack.embedding += torch.from_numpy(draws).float()
        self.stack.embedding[:, 0] = 0  # padding
        self._engagements.add(next(self._batches))
        made = parts(self.stack, self.world.encoder, self._engagements.trail(), CANDIDATES)
        cut = {"generation": self.generation, "events": self.generation * EVENTS, "published": time.time()}
        self.store.publish(self.generation, made, about(self.stack, "synthetic", cut | {"quality": {}}))
        return self.generation
