"""A generation as parts: the weights of each duplicate, and the catalogue that ranks for all of them alike.

    duplicate/R   safetensors: what arm number A published of duplicate R, as `A.table` [V, D] and `A.dense` [P]; of a
                  module of the user's `A.NAME` for each entry of its state
    catalog       safetensors: `user_rows` [U, Su], `item_rows` [I, Si], `segment` [U + 1] (the last is that of a user
                  whom the world has not), `candidates` [G, N] best first

Each says in its header of which run and generation it is, and which part. How the log calls users and items is shared
by all of them (store/arrays.py): `about` has its digest. Of several trainers each publishes the duplicates that it
teaches; the first has the catalogue, too.

Shapes: A arms, V table rows, D embedding length, P dense parameters, U users, I items, G segments, N candidates,
n engagements, H items of a user's history.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from simulator.config import ExperimentConfig
from simulator.models.engines import Engines
from simulator.result import differences
from simulator.store.arrays import label
from simulator.store.protocol import WHOLE, Shard, StoreError
from simulator.types import Batch, Integers, Ints, Rows
from simulator.world.replay import ReplayWorld
from simulator.world.retrieval import retrieve
from simulator.world.stream import SyntheticWorld
from trainer.progressive import quality_of

CATALOG = "catalog"
STRANGERS = -1
"""Segment of unknown users: nobody in it has clicked, so it gets the most popular items overall."""
NO_HISTORY: Rows = np.empty((0, 0), np.int32)


class Engagements:
    """The trailing engagements of the log, from which candidates are retrieved, and each user's history."""

    def __init__(self, capacity: int, history: Rows = NO_HISTORY) -> None:
        """Keeps the last `capacity`, and in `history` [U, H] those of each user, latest first, -1 where none is."""
        self._capacity, self.history = capacity, history
        self.user: Ints = np.empty(0, np.int64)
        """[n] oldest first."""
        self.item: Ints = np.empty(0, np.int64)
        self.time = 0.0
        """Of the last event, seconds."""

    def add(self, events: Batch) -> None:
        """The next events of the log, engagements or not."""
        clicked = events.label == 1
        user, item = events.user[clicked], events.item[clicked]
        self.user = np.concatenate([self.user, user])[-self._capacity :]
        self.item = np.concatenate([self.item, item])[-self._capacity :]
        self.time = float(events.time[-1])
        if self.history.shape[1]:
            remember(self.history, user, item)

    def state(self) -> dict[str, Tensor]:
        """All of it, as named tensors."""
        kept: dict[str, Integers] = {"user": self.user, "item": self.item, "history": self.history}
        tensors = {f"engagements.{name}": torch.from_numpy(array.copy()) for name, array in kept.items()}
        return tensors | {"engagements.time": torch.tensor([self.time], dtype=torch.float64)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        kept = (state[f"engagements.{name}"].numpy() for name in ("user", "item", "history"))
        self.user, self.item, self.history = kept
        self.time = float(state["engagements.time"])


def remember(history: Rows, user: Ints, item: Ints) -> None:
    """Put engagements [n], oldest first, in front of their users' histories [U, H], in place."""
    order = np.argsort(user, kind="stable")[::-1]  # of each user the latest first
    user, item = user[order], item[order]
    users, first, counts = np.unique(user, return_index=True, return_counts=True)
    depth = history.shape[1]
    came_from = np.arange(depth) - counts[:, None]
    old = np.take_along_axis(history[users], np.maximum(came_from, 0), axis=1)
    history[users] = np.where(came_from < 0, -1, old)
    place = np.arange(len(user)) - np.repeat(first[::-1], counts[::-1])
    near = place < depth
    history[user[near], place[near]] = item[near]


def duplicate_part(number: int) -> str:
    """Name of the part that holds one duplicate of every arm."""
    return f"duplicate/{number}"


def parts(
    engines: Engines,
    config: ExperimentConfig,
    world: SyntheticWorld | ReplayWorld,
    recent: Engagements,
    run: str,
    generation: int,
    shard: Shard = WHOLE,
) -> dict[str, bytes]:
    """A shard's parts of a generation: its duplicates' weights, of the only fleet; the first one's candidates, too (all
    present items, if fewer than asked)."""
    assert config.fleets == 1
    contents: dict[str, bytes] = {}
    if shard.number == 0:
        tables = catalog(world, recent, config.candidates)
        contents[CATALOG] = safetensors.numpy.save(tables, label(run, generation, CATALOG))
    for number in shard.of(config.duplicates):
        part = duplicate_part(number)
        contents[part] = safetensors.torch.save(engines.published(number), label(run, generation, part))
    return contents


def catalog(world: SyntheticWorld | ReplayWorld, recent: Engagements, count: int) -> dict[str, np.ndarray]:
    """What a replica knows of users, their histories included, and items, and what it ranks for a user's segment."""
    encoder = world.encoder
    segments = np.append(encoder.segments, STRANGERS)
    distinct, segment = np.unique(segments, return_inverse=True)
    present = world.present(recent.time)
    users = encoder.user_rows
    return {
        "user_rows": encoder.with_history(users.copy(), recent.history) if encoder.history else users,
        "item_rows": encoder.item_rows,
        "segment": segment.astype(np.int64),
        "candidates": retrieve(segments[recent.user], recent.item, present, distinct, count),
    }


def about(
    engines: Engines, config: ExperimentConfig, world: SyntheticWorld | ReplayWorld, cut: Mapping[str, Any]
) -> dict[str, Any]:
    """Metadata of a generation; `cut` holds `generation`, `events`, `published`, `scores`, `names`,
    `settings` (a digest of all that decides the numbers)."""
    return json.loads(  # type: ignore[no-any-return]  # as every store gives it back: lists, no tuples
        json.dumps(
            {
                "arms": [engine.arm.label for engine in engines.engines],
                "specs": [engine.arm.function for engine in engines.engines],
                "engines": [engine.name for engine in engines.engines],
                "modules": [engine.identity for engine in engines.engines],
                "models": [asdict(engine.model) for engine in engines.engines],
                "duplicates": config.duplicates,
                "fields": [asdict(field) for field in world.schema.fields],
                "world": world.name,
                **cut,
            }
        )
    )


def joined(abouts: list[dict[str, Any]]) -> dict[str, Any]:
    """What is announced: what all shards publish, merged in order. Raises StoreError where they are not of one kind."""
    per_shard = {"published", "scores"}
    for number, about in enumerate(abouts[1:], 1):
        alike = ({name: value for name, value in one.items() if name not in per_shard} for one in (abouts[0], about))
        if different := differences(*alike):
            hint = "start all trainers with the same settings and code"
            raise StoreError(f"shard {number} learns something else than shard 0 ({different}): {hint}")
    shared = {name: value for name, value in abouts[0].items() if name not in (*per_shard, "settings")}
    published = max(about["published"] for about in abouts)
    return shared | {"published": published, "quality": quality_of([about["scores"] for about in abouts])}
