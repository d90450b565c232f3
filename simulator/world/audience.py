"""The users of the synthetic world, their tastes that drift, and the contexts in which they come.

Shapes: n events, U users.
"""

from __future__ import annotations

import math

import numpy as np

from simulator.config import SyntheticConfig
from simulator.randomness import generator
from simulator.types import Doubles, Field, Floats, Ints, Rows, Schema
from simulator.world.identities import id_field, id_rows
from simulator.world.tastes import EXPLAINED, TASTES, explained, normal
from simulator.world.zipf import Zipf

AGE_GROUPS = 6
ZONES, ZONES_PER_REGION = 24, 3
REGIONS = ZONES // ZONES_PER_REGION
ACTIVITY = 0.6
"""Zipf exponent of how often users come."""
DEVICE_SHARES = (0.6, 0.3, 0.1)
"""Phone, desktop, tablet."""
DEVICES, HOURS = len(DEVICE_SHARES), 24
POSITIONS = 10
"""Positions on a page that a model tells apart; whatever stands further down counts as the last of them."""
CONTEXT_WEIGHT = 0.5
"""Standard deviation of context tastes, where that of users and items is 1: who asks matters more than when."""


class Audience:
    """All users. Each lives in one of 24 time zones, a region is three of them: it is always every hour somewhere.

    Taste at time t = sqrt(EXPLAINED) x explained + sqrt(1 - EXPLAINED) x (cos(a t) x first + sin(a t) x second):
    the own part turns from one random vector towards another and keeps its variance. By the end it has moved, as a
    root mean square over users, by 2 sin(a span / 2) sqrt(1 - EXPLAINED) = `drift`.
    """

    def __init__(self, config: SyntheticConfig, seed: int, span: float) -> None:
        """`span` is the length of the run in seconds."""
        rng, count = generator(seed, "users"), config.users
        self.count = count
        self.age_group: Ints = rng.integers(AGE_GROUPS, size=count)
        self.zone: Ints = rng.integers(ZONES, size=count)
        self.region: Ints = self.zone // ZONES_PER_REGION
        self.activity = Zipf(rng, count, ACTIVITY)
        shown = explained(rng, [(self.age_group, AGE_GROUPS), (self.region, REGIONS)])
        own = math.sqrt(1 - EXPLAINED)
        self._fixed = np.float32(math.sqrt(EXPLAINED)) * shown  # [U, TASTES]
        self._first, self._second = np.float32(own) * normal(rng, count), np.float32(own) * normal(rng, count)
        self._turn = 2 * math.asin(config.drift / (2 * own)) / span  # radians per second
        self._contexts: Floats = _context_tastes(generator(seed, "contexts"))
        self._devices = np.cumsum(DEVICE_SHARES)[:-1]

    @staticmethod
    def user_fields(count: int, hash_rows: int = 0) -> tuple[Field, ...]:
        """What a model sees of a user, among `count`."""
        return (
            id_field("user", count, hash_rows),
            Field("age_group", "user", AGE_GROUPS),
            Field("region", "user", REGIONS),
        )

    @staticmethod
    def context_fields() -> tuple[Field, ...]:
        """What a model sees of the moment."""
        return (
            Field("device", "context", DEVICES),
            Field("hour", "context", HOURS),
            Field("position", "context", POSITIONS),
        )

    def rows(self, schema: Schema) -> Rows:
        """[U, Su] table rows of every user."""
        columns = [
            id_rows(schema, "user", self.count),
            schema.first_row("age_group") + self.age_group,
            schema.first_row("region") + self.region,
        ]
        return np.column_stack(columns).astype(np.int32)

    def taste(self, user: Ints, time: Doubles) -> Floats:
        """[n, TASTES] of users [n] at times [n] in seconds."""
        angle = (self._turn * time).astype(np.float32)[:, None]
        own = np.cos(angle) * self._first[user] + np.sin(angle) * self._second[user]
        return np.asarray(self._fixed[user] + own, np.float32)

    def device(self, uniform: Doubles) -> Ints:
        """[n] devices from [n] uniform draws in [0, 1)."""
        return self._devices.searchsorted(uniform, side="right")

    def hour(self, user: Ints, time: Doubles) -> Ints:
        """[n] local hour of the day, 0 to 23."""
        return ((time // 3600).astype(np.int64) + self.zone[user]) % HOURS

    def context_taste(self, device: Ints, hour: Ints) -> Floats:
        """[n, TASTES] what a device and an hour of the day do to tastes."""
        return np.take(self._contexts, device * HOURS + hour, axis=0)


def _context_tastes(rng: np.random.Generator) -> Floats:
    """[DEVICES * HOURS, TASTES] a vector for each device plus a daily rhythm, which is smooth around midnight."""
    angle = np.arange(HOURS, dtype=np.float32)[:, None] * np.float32(2 * math.pi / HOURS)
    rhythm = np.cos(angle) * normal(rng, 1) + np.sin(angle) * normal(rng, 1)  # [HOURS, TASTES]
    both = normal(rng, DEVICES)[:, None] + rhythm  # [DEVICES, HOURS, TASTES]
    return np.asarray(CONTEXT_WEIGHT / math.sqrt(2) * both, np.float32).reshape(DEVICES * HOURS, TASTES)
