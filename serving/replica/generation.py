"""A generation in memory: one duplicate of every arm with the catalogue that it ranks, verified before it serves.

Shapes: A arms, U users, I items, G segments, N candidates, C context slots.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from grpc import StatusCode

from serving.codec import MAX_CANDIDATES, Ranges, Refusal, answered_by, schema_of
from simulator.config import ModelConfig
from simulator.errors import SettingError
from simulator.models.engine import EngineName, tensors_of
from simulator.models.ranker import Ranker, Rankers
from simulator.models.specs import parse_arm
from simulator.store.arrays import LABEL, Mislabelled, arrays_of, label
from simulator.types import Ints, Schema, Side

CATALOG = {"user_rows": np.int32, "item_rows": np.int32, "segment": np.int64, "candidates": np.int64}
SHAPE = ("arms", "specs", "engines", "modules", "fields", "models", "duplicates")
"""Entries of `about` in which all generations of a run agree."""
SAMPLE = 16
"""Users whose scores are looked at before a generation serves."""


class Refused(Exception):
    """A published generation that cannot be served; `reason` is `digest`, `signature`, `format`, `label` (a part of
    another run, generation or duplicate), `shape`, `values`, `about`, or `module`: one of the user's that may not be
    imported here, or is another than the one that was taught."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Generation:
    """What a replica needs to answer; never changed."""

    number: int
    duplicate: int
    published: float
    """Unix seconds."""
    about: Mapping[str, Any]
    ranges: Ranges
    rankers: tuple[Ranker, ...]
    """[A]"""
    segment: Ints
    """[U + 1] row of `candidates` for each user, and for one whom the world has not."""
    candidates: Ints
    """[G, N] item numbers."""
    who: tuple[bytes, ...]
    """For each arm what its answers say about who answered."""

    @staticmethod
    def of(
        run: str,
        number: int,
        duplicate: int,
        replica: str,
        about: Mapping[str, Any],
        weights: bytearray,
        catalog: bytearray,
        make: Rankers,
    ) -> Generation:
        """Build one from its published parts; the items' part of the first layer is computed here. Raises Refused."""
        try:
            schema, designs = schema_of(about), _designs(about)
            published, arms = float(about["published"]), tuple(map(str, about["arms"]))
            if not math.isfinite(published):
                raise ValueError(f"published = {published}")
            if not arms or len(arms) != len(designs) or not 0 <= duplicate < about["duplicates"]:
                raise ValueError(f"{len(arms)} arms, {len(designs)} models, {about['duplicates']} duplicates")
        except (KeyError, TypeError, ValueError) as problem:
            raise Refused("about", f"what was announced cannot be used: {problem!r}") from None
        tables = _catalog(_unpack(catalog, label(run, number, "catalog")), schema)
        tensors = _unpack(weights, label(run, number, f"duplicate/{duplicate}"))
        rankers = _rankers(make, schema, designs, tensors, tables)
        ranges = Ranges.of(about, len(tables["user_rows"]), len(tables["item_rows"]))
        who = tuple(answered_by(replica, arm, duplicate, number) for arm in arms)
        segment, candidates = tables["segment"], tables["candidates"]
        generation = Generation(number, duplicate, published, about, ranges, rankers, segment, candidates, who)
        generation._try()
        return generation

    def refuse_unlike(self, other: Generation) -> None:
        """Raises Refused where `other` cannot follow this one: another model, or a catalogue of another size."""
        for entry in SHAPE:
            if self.about[entry] != other.about[entry]:
                raise Refused("shape", f"{entry} = {other.about[entry]}, served so far with {self.about[entry]}")
        if (self.ranges.users, self.ranges.items) != (other.ranges.users, other.ranges.items):
            raise Refused("shape", f"{other.ranges.users} users and {other.ranges.items} items, not as served so far")

    def _try(self) -> None:
        """Rank for some users: the first query must not be the slow one, nor the one that finds what cannot be."""
        users = np.linspace(0, self.ranges.users, SAMPLE).astype(np.int64)  # the last is unknown
        context = np.tile(np.array(self.ranges.context_rows(()), np.int32), (SAMPLE, 1))
        for arm, ranker in zip(self.ranges.arms, self.rankers, strict=True):
            items = self.candidates[self.segment[users], : ranker.pairs_at_once // SAMPLE]
            scores = ranker.scores(users, context, items)
            if not np.isfinite(scores).all():
                raise Refused("values", f"scores of {arm} are not finite: learning has diverged")
            if items.shape[1] > 1 and np.ptp(scores) == 0:
                raise Refused("values", f"scores of {arm} are all {scores.flat[0]:g}: it tells no item from another")


Design = tuple[str, EngineName, ModelConfig, Mapping[str, Any] | None]
"""Of an arm: spec of its activation or module, name of the engine, settings of its model, identity of its module."""


def _designs(about: Mapping[str, Any]) -> list[Design]:
    """Of every arm. Raises KeyError, TypeError and ValueError where they cannot be read."""
    models = [ModelConfig(**model | {"hidden": tuple(model["hidden"])}) for model in about["models"]]
    for name in about["engines"]:
        if name not in ("native", "torch"):
            raise ValueError(f"engine {name}")
    for spec in about["specs"]:
        if not isinstance(spec, str):
            raise TypeError(f"specs: {type(spec).__name__}")
        parse_arm(spec)
    for identity in about["modules"]:
        if not isinstance(identity, Mapping | None):
            raise TypeError(f"modules: {type(identity).__name__}")
    return list(zip(map(str, about["specs"]), about["engines"], models, about["modules"], strict=True))


def _rankers(
    make: Rankers,
    schema: Schema,
    designs: list[Design],
    weights: Mapping[str, np.ndarray],
    tables: Mapping[str, np.ndarray],
) -> tuple[Ranker, ...]:
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    free = tuple(f"{arm}." for arm, (spec, *_) in enumerate(designs) if parse_arm(spec).own)
    for name, tensor in tensors.items():
        custom = name.startswith(free)
        if tensor.dtype != torch.float32 and not custom:
            raise Refused("shape", f"{name}: {tensor.dtype}, expected float32")
        # a sum that is finite has only finite parts, and costs a tenth of looking at each
        if tensor.is_floating_point() and not torch.isfinite(tensor.sum()):
            # a module of the user's may keep a mask of infinities
            if torch.isnan(tensor).any() or not (custom or torch.isfinite(tensor).all()):
                raise Refused("values", f"{name}: not all finite: learning has diverged")
    rows = tables["user_rows"], tables["item_rows"]
    try:
        rankers = tuple(
            make(schema, spec, engine, model, tensors_of(tensors, arm), *rows, identity)
            for arm, (spec, engine, model, identity) in enumerate(designs)
        )
    except SettingError as problem:
        raise Refused("module", str(problem)) from None
    except ValueError as problem:
        raise Refused("shape", str(problem)) from None
    make.release()
    return rankers


def _catalog(tables: dict[str, np.ndarray], schema: Schema) -> dict[str, np.ndarray]:
    """The tables of the catalogue, of which every number may be used as an index."""
    for name, dtype in CATALOG.items():
        if name not in tables or tables[name].dtype != dtype or tables[name].size == 0:
            raise Refused("shape", f"{name}: missing, empty or not {np.dtype(dtype).name}")
    users, items, segment, candidates = (tables[name] for name in CATALOG)
    shapes = {
        "user_rows": (users.shape, (len(users), _slots(schema, "user"))),
        "item_rows": (items.shape, (len(items), _slots(schema, "item"))),
        "segment": (segment.shape, (len(users) + 1,)),
        "candidates": (candidates.shape, (len(candidates), min(candidates.shape[-1], MAX_CANDIDATES))),
    }
    for name, (shape, expected) in shapes.items():
        if shape != expected:
            raise Refused("shape", f"{name}: {list(shape)}, expected {list(expected)}")
    below = dict(zip(CATALOG, (schema.rows, schema.rows, len(candidates), len(items)), strict=True))
    for name, limit in below.items():
        if tables[name].min() < 0 or tables[name].max() >= limit:
            raise Refused("values", f"{name}: not all from 0 to {limit - 1}")
    if (np.diff(np.sort(candidates, axis=1), axis=1) == 0).any():
        raise Refused("values", "candidates: an item is there twice")
    return tables


def _slots(schema: Schema, side: Side) -> int:
    return sum(field.slots for field in schema.fields if field.side == side)


def _unpack(data: bytearray, whose: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The arrays of the part that `whose` describes."""
    try:
        return arrays_of(data, whose)
    except Mislabelled as problem:
        raise Refused("label", f"{whose[LABEL]}: {problem}") from None
    except ValueError as problem:
        raise Refused("format", f"{whose[LABEL]}: {problem}: damaged or truncated") from None


class Shelf:
    """What is served and the generation before it, of one duplicate, replaced as a whole: no query waits for a refresh.

    One thread puts, any thread finds.
    """

    def __init__(self) -> None:
        self._kept: tuple[Generation, ...] = ()  # newest first; replaced, never changed

    @property
    def current(self) -> Generation | None:
        """What is served now; None while nothing is published."""
        return self._kept[0] if self._kept else None

    def put(self, generation: Generation) -> None:
        """Serve this from the next query on; what was served stays for queries pinned to it."""
        self._kept = (generation, *(kept for kept in self._kept[:1] if kept.duplicate == generation.duplicate))

    def find(self, pinned: int | None) -> Generation:
        """The generation for a query. Raises Refusal where none is served, or not the one it is pinned to."""
        kept = self._kept
        if not kept:
            raise Refusal(StatusCode.UNAVAILABLE, "no generation is published yet")
        for generation in kept:
            if pinned is None or generation.number == pinned:
                return generation
        here = " and ".join(str(generation.number) for generation in kept)
        raise Refusal(StatusCode.FAILED_PRECONDITION, f"generation = {pinned}: here are {here}", "generation")
