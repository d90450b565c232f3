"""A generation as parts: the weights of each duplicate, and the catalogue that ranks for all of them alike.

    duplicate/R   safetensors: what arm number A published of duplicate R, as `A.table` [V, D] and `A.dense` [P]; of a
                  module of the user's `A.NAME` for each entry of its state
    catalog       safetensors: `user_rows` [U, Su], `item_rows` [I, Si], `segment` [U + 1] (the last is that of a user
                  whom the world has not), `candidates` [G, N] best first

Each says in its header of which run and generation it is, and which part. How the log calls users and items is shared
by all of them (store/names.py): `about` has its digest.

Shapes: A arms, V table rows, D embedding length, P dense parameters, U users, I items, G segments, N candidates,
n engagements.
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
from simulator.store.arrays import label
from simulator.types import Batch, Ints, World
from simulator.world.features import Encoder
from simulator.world.log import Trail
from simulator.world.retrieval import Popularity, segments_of

CATALOG = "catalog"
STRANGERS = -1
"""Segment of those whom the world has not: nobody in it has clicked, so it gets what is popular with all."""


class Engagements:
    """The trailing engagements of the log, from which candidates are retrieved."""

    def __init__(self, most: int) -> None:
        """Keeps the last `most` of them."""
        self._most = most
        self._user: Ints = np.empty(0, np.int64)
        self._item: Ints = np.empty(0, np.int64)
        self._items = 0

    def add(self, events: Batch) -> None:
        """The next events of the log, engagements or not."""
        clicked = events.label == 1
        self._user = np.concatenate([self._user, events.user[clicked]])[-self._most :]
        self._item = np.concatenate([self._item, events.item[clicked]])[-self._most :]
        self._items = max(self._items, int(events.item.max(initial=-1)) + 1)

    def trail(self) -> Trail:
        """The trailing engagements; every item up to the highest number seen counts as known."""
        return Trail(self._user, self._item, self._items)

    def state(self) -> dict[str, Tensor]:
        """All of it, as named tensors."""
        return {
            "engagements.user": torch.from_numpy(self._user.copy()),
            "engagements.item": torch.from_numpy(self._item.copy()),
            "engagements.items": torch.tensor([self._items]),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self._user, self._item = state["engagements.user"].numpy(), state["engagements.item"].numpy()
        self._items = int(state["engagements.items"])


def duplicate_part(number: int) -> str:
    """Name of the part that holds one duplicate of every arm."""
    return f"duplicate/{number}"


def parts(
    engines: Engines, config: ExperimentConfig, encoder: Encoder, recent: Trail, run: str, generation: int
) -> dict[str, bytes]:
    """The parts of a generation: its only fleet's weights, and candidates (all known items, if fewer than asked)."""
    assert config.fleets == 1
    tables = catalog(encoder, recent, config.candidates)
    found = {CATALOG: safetensors.numpy.save(tables, label(run, generation, CATALOG))}
    for number in range(config.duplicates):
        part = duplicate_part(number)
        found[part] = safetensors.torch.save(engines.published(number), label(run, generation, part))
    return found


def catalog(encoder: Encoder, recent: Trail, count: int) -> dict[str, np.ndarray]:
    """What a replica knows of users and items, and what it ranks for a user's segment."""
    values = np.append(segments_of(encoder.user_rows), STRANGERS)
    distinct, segment = np.unique(values, return_inverse=True)
    popular = Popularity(recent, values, min(count, recent.items))
    return {
        "user_rows": encoder.user_rows,
        "item_rows": encoder.item_rows,
        "segment": segment.astype(np.int64),
        "candidates": np.stack([popular.candidates(int(value)) for value in distinct]),
    }


def about(engines: Engines, config: ExperimentConfig, world: World, cut: Mapping[str, Any]) -> dict[str, Any]:
    """What is announced with a generation; `cut` holds `generation`, `events`, `published`, `quality`, `names`."""
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
