"""The items of the synthetic world: what is shown of them, what is liked in them, and when they are there.

Shapes: n events, I items.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from simulator.config import SyntheticConfig
from simulator.randomness import generator
from simulator.types import Doubles, Field, Floats, Ints, Rows, Schema
from simulator.world.identities import id_field, id_rows
from simulator.world.tastes import EXPLAINED, explained, normal
from simulator.world.zipf import Zipf

CATEGORIES, PRICE_BANDS, TAGS, TAG_SLOTS = 12, 5, 40, 3
POPULARITY = 0.8
"""Zipf exponent of how often items are shown."""
ITEMS_PER_PASS = 8_192
"""Items that are given their tags at once: all tags of a million items would take 640 MB."""


class Catalog:
    """All items of the run; half of the turnover arrives after the start, the other half leaves before the end."""

    def __init__(self, config: SyntheticConfig, seed: int, span: float) -> None:
        """`span` is the length of the run in seconds."""
        rng, count = generator(seed, "items"), config.items
        self.count = count
        self.category: Ints = rng.integers(CATEGORIES, size=count)
        self.price_band: Ints = rng.integers(PRICE_BANDS, size=count)
        self.tags: Ints = _tags(rng, count)
        """[I, TAG_SLOTS] distinct tags, empty slots last and -1."""
        shown = explained(rng, [(self.category, CATEGORIES), (self.price_band, PRICE_BANDS), (self.tags, TAGS)])
        own = normal(rng, count)
        self.taste: Floats = np.float32(math.sqrt(EXPLAINED)) * shown + np.float32(math.sqrt(1 - EXPLAINED)) * own
        """[I, TASTES]"""
        self.popularity = Zipf(rng, count, POPULARITY)
        self.arrival: Doubles = np.full(count, -np.inf)
        """[I] seconds; -inf where the item is there from the start."""
        self.departure: Doubles = np.full(count, np.inf)
        """[I] seconds; inf where the item stays to the end."""
        moving = rng.permutation(count)[: round(config.turnover * count)]
        late, early = np.array_split(moving, 2)
        self.arrival[late] = rng.uniform(0, span, len(late))
        self.departure[early] = rng.uniform(0, span, len(early))

    @staticmethod
    def fields(count: int, hash_rows: int = 0) -> tuple[Field, ...]:
        """What a model sees of an item, in a catalogue of `count`."""
        return (
            id_field("item", count, hash_rows),
            Field("category", "item", CATEGORIES),
            Field("price_band", "item", PRICE_BANDS),
            Field("tags", "item", TAGS, slots=TAG_SLOTS),
        )

    def rows(self, schema: Schema) -> Rows:
        """[I, Si] table rows of every item, empty tag slots 0."""
        tags = np.where(self.tags >= 0, schema.first_row("tags") + self.tags, 0)
        single = [
            id_rows(schema, "item", self.count),
            schema.first_row("category") + self.category,
            schema.first_row("price_band") + self.price_band,
        ]
        return np.column_stack([*single, tags]).astype(np.int32)

    def present(self, time: float) -> Ints:
        """Numbers of the items that are there at a time (seconds), ascending."""
        return np.flatnonzero((self.arrival <= time) & (time < self.departure))

    def draw(self, rng: np.random.Generator, time: Doubles) -> Ints:
        """[n] an item for each time [n]: by popularity among those that are there at that time.

        Whoever drew an absent item draws again, which is the popularity distribution given presence. It ends, because
        at least a tenth of the catalogue is always there (`SyntheticConfig.turnover` is at most 0.9).
        """
        item = self.popularity.draw(rng.random(len(time)))
        again = np.arange(len(time))
        while len(again := again[self._absent(item[again], time[again])]):
            item[again] = self.popularity.draw(rng.random(len(again)))
        return item

    def _absent(self, item: Ints, time: Doubles) -> NDArray[np.bool_]:
        return (time < self.arrival[item]) | (time >= self.departure[item])


def _tags(rng: np.random.Generator, count: int) -> Ints:
    """[count, TAG_SLOTS] one to TAG_SLOTS distinct tags per item, then -1."""
    tags = np.empty((count, TAG_SLOTS), np.int64)
    for part in np.split(tags, range(ITEMS_PER_PASS, count, ITEMS_PER_PASS)):
        part[:] = rng.permuted(np.tile(np.arange(TAGS), (len(part), 1)), axis=1)[:, :TAG_SLOTS]
    filled = rng.integers(1, TAG_SLOTS + 1, size=(count, 1))
    return np.where(np.arange(TAG_SLOTS) < filled, tags, -1)
