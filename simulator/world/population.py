"""The truth of the synthetic world: users whose tastes drift, contexts, items that come and go, and who clicks on what.

What is shown of a user or an item explains a part of its tastes, the rest is its own.
Shapes: n events or impressions, U users, I items, H hidden units.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from simulator.config import SyntheticConfig
from simulator.randomness import generator
from simulator.types import Doubles, Field, Floats, Integers, Ints, Reals, Schema
from simulator.world.features import id_field

TASTES = 8
"""Length of a taste vector; every entry has mean 0 and variance 1 over the population."""
EXPLAINED = 0.5
"""Share of the variance of tastes that observable features explain. A model learns the rest from the id alone."""


class Zipf:
    """Draws numbers 0 .. count - 1, that of rank r (first = 1) with probability proportional to r ** -exponent; which
    number has which rank is itself random, so that numbers carry no information."""

    def __init__(self, rng: np.random.Generator, count: int, exponent: float) -> None:
        weight = rng.permutation(np.arange(1, count + 1, dtype=np.float64) ** -exponent)
        self.share: Doubles = weight / weight.sum()
        """[count] probability of each number."""
        self._cumulative: Doubles = np.cumsum(self.share)
        self._cumulative[-1] = 1.0  # rounding must not leave a gap at the end

    def draw(self, uniform: Doubles) -> Ints:
        """[n] numbers from [n] uniform draws in [0, 1), by inversion of the cumulative distribution."""
        return self._cumulative.searchsorted(uniform, side="right")


def normal(rng: np.random.Generator, count: int) -> Floats:
    """[count, TASTES] independent standard normal entries."""
    return rng.standard_normal((count, TASTES), dtype=np.float32)


def explained(rng: np.random.Generator, observables: list[tuple[Ints, int]]) -> Floats:
    """[n, TASTES] the part of tastes that follows from the observables, variance 1.

    `observables` holds (values [n] or [n, slots], vocabulary) pairs. Each value has a random vector. In a multi-valued
    observable -1 marks an empty slot. Sums of m vectors are divided by sqrt(m), so that the variance stays 1.
    """
    total = np.zeros((len(observables[0][0]), TASTES), np.float32)
    for values, vocabulary in observables:
        slots = values.reshape(len(values), -1)  # [n, slots]
        vectors = np.concatenate([normal(rng, vocabulary), np.zeros((1, TASTES), np.float32)])  # -1 finds the zeros
        filled = (slots >= 0).sum(1, keepdims=True)
        total += vectors[slots].sum(1) / np.sqrt(filled, dtype=np.float32)
    return np.asarray(total / np.sqrt(len(observables)), np.float32)


AGE_GROUPS = 6
ZONES, ZONES_PER_REGION = 24, 3
REGIONS = ZONES // ZONES_PER_REGION
ACTIVITY = 0.6
"""Zipf exponent of how often users come."""
DEVICE_SHARES = (0.6, 0.3, 0.1)
"""Phone, desktop, tablet."""
DEVICES, HOURS = len(DEVICE_SHARES), 24
POSITIONS = 10
"""Positions on a page that a model distinguishes; lower ones count as the last of them."""
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
        self.age_group: Ints = rng.integers(AGE_GROUPS, size=count)
        self.zone: Ints = rng.integers(ZONES, size=count)
        self.region: Ints = self.zone // ZONES_PER_REGION
        self.activity = Zipf(rng, count, ACTIVITY)
        explained_part = explained(rng, [(self.age_group, AGE_GROUPS), (self.region, REGIONS)])
        own_share = math.sqrt(1 - EXPLAINED)
        self._fixed = np.float32(math.sqrt(EXPLAINED)) * explained_part  # [U, TASTES]
        self._first, self._second = (np.float32(own_share) * normal(rng, count) for _ in range(2))
        self._turn = 2 * math.asin(config.drift / (2 * own_share)) / span  # radians per second
        self._contexts: Floats = _context_tastes(generator(seed, "contexts"))
        self._devices = np.cumsum(DEVICE_SHARES)[:-1]

    @property
    def shown(self) -> dict[str, Ints]:
        """Features of users that a model sees, beside the identity: [U] values."""
        return {"age_group": self.age_group, "region": self.region}

    def taste(self, user: Ints, time: Doubles) -> Floats:
        """[n, TASTES] of users [n] at times [n] in seconds."""
        angle = (self._turn * time).astype(np.float32)[:, None]
        unobserved = np.cos(angle) * self._first[user] + np.sin(angle) * self._second[user]
        return np.asarray(self._fixed[user] + unobserved, np.float32)

    def device(self, uniform: Doubles) -> Ints:
        """[n] devices from [n] uniform draws in [0, 1)."""
        return self._devices.searchsorted(uniform, side="right")

    def hour(self, user: Ints, time: Doubles) -> Ints:
        """[n] local hour of the day, 0 to 23."""
        return ((time // 3600).astype(np.int64) + self.zone[user]) % HOURS

    def context_taste(self, device: Ints, hour: Ints) -> Floats:
        """[n, TASTES] effect of a device and an hour of the day on tastes."""
        return np.take(self._contexts, device * HOURS + hour, axis=0)


def _context_tastes(rng: np.random.Generator) -> Floats:
    """[DEVICES * HOURS, TASTES] a vector for each device plus a daily rhythm, which is smooth around midnight."""
    angle = np.arange(HOURS, dtype=np.float32)[:, None] * np.float32(2 * math.pi / HOURS)
    rhythm = np.cos(angle) * normal(rng, 1) + np.sin(angle) * normal(rng, 1)  # [HOURS, TASTES]
    tastes = normal(rng, DEVICES)[:, None] + rhythm  # [DEVICES, HOURS, TASTES]
    return np.asarray(CONTEXT_WEIGHT / math.sqrt(2) * tastes, np.float32).reshape(DEVICES * HOURS, TASTES)


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
        self.category: Ints = rng.integers(CATEGORIES, size=count)
        self.price_band: Ints = rng.integers(PRICE_BANDS, size=count)
        self.tags: Ints = _tags(rng, count)
        """[I, TAG_SLOTS] distinct tags, empty slots last and -1."""
        observables = [(self.category, CATEGORIES), (self.price_band, PRICE_BANDS), (self.tags, TAGS)]
        explained_part = np.float32(math.sqrt(EXPLAINED)) * explained(rng, observables)
        self.taste: Floats = explained_part + np.float32(math.sqrt(1 - EXPLAINED)) * normal(rng, count)
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

    @property
    def shown(self) -> dict[str, Ints]:
        """Features of items that a model sees, beside the identity: [I] or [I, TAG_SLOTS] values."""
        return {"category": self.category, "price_band": self.price_band, "tags": self.tags}

    def present(self, time: float) -> Ints:
        """Numbers of the items that are there at a time (seconds), ascending."""
        return np.flatnonzero((self.arrival <= time) & (time < self.departure))

    def draw(self, rng: np.random.Generator, time: Doubles) -> Ints:
        """[n] an item for each time [n]: by popularity among those that are there at that time.

        Whoever drew an absent item draws again, which is the popularity distribution given presence. It ends, because
        at least a tenth of the catalogue is always there (`SyntheticConfig.turnover` is at most 0.9).
        """
        item = self.popularity.draw(rng.random(len(time)))
        redrawn = np.arange(len(time))
        while len(redrawn := redrawn[self._absent(item[redrawn], time[redrawn])]):
            item[redrawn] = self.popularity.draw(rng.random(len(redrawn)))
        return item

    def _absent(self, item: Ints, time: Doubles) -> NDArray[np.bool_]:
        return (time < self.arrival[item]) | (time >= self.departure[item])


def schema_of(users: int, items: int, hash_rows: int) -> Schema:
    """What a model sees of a user, of an item and of the moment."""
    return Schema(
        (
            id_field("user", users, hash_rows),
            Field("age_group", "user", AGE_GROUPS),
            Field("region", "user", REGIONS),
            id_field("item", items, hash_rows),
            Field("category", "item", CATEGORIES),
            Field("price_band", "item", PRICE_BANDS),
            Field("tags", "item", TAGS, slots=TAG_SLOTS),
            Field("device", "context", DEVICES),
            Field("hour", "context", HOURS),
            Field("position", "context", POSITIONS),
        )
    )


def _tags(rng: np.random.Generator, count: int) -> Ints:
    """[count, TAG_SLOTS] one to TAG_SLOTS distinct tags per item, then -1."""
    tags = np.empty((count, TAG_SLOTS), np.int64)
    for part in np.split(tags, range(ITEMS_PER_PASS, count, ITEMS_PER_PASS)):
        part[:] = rng.permuted(np.tile(np.arange(TAGS), (len(part), 1)), axis=1)[:, :TAG_SLOTS]
    filled = rng.integers(1, TAG_SLOTS + 1, size=(count, 1))
    return np.where(np.arange(TAG_SLOTS) < filled, tags, -1)


HIDDEN = 24
GAIN = 2.5
"""Spread of the input of the hidden units: large enough that tanh bends."""
SPREAD = 2.0
"""Standard deviation of the true log-odds over impressions."""
BASE_RATE = 0.4
"""Mean true click probability over impressions, before position bias; the default bias leaves 0.27 of them clicked."""


class TrueClickModel:
    """True log-odds = level + SPREAD x (sqrt((1 - x) / 2) x (of user + of item and context) + sqrt(x) x match).

    x is the share `interaction`. `match` is the inner product of the tastes of user and item, each about its mean over
    impressions: the user x item interaction, with no part of either alone. The other two are
    random tanh networks. All three have variance 1 over impressions, and do not correlate, since items are drawn
    independently of who comes when: so x is the share of the variance of the log-odds that is user x item, which no
    additive model can learn.

    All is drawn once, and standardised on a sample of impressions: worlds of different seeds are equally hard.
    """

    def __init__(
        self, rng: np.random.Generator, user: Floats, item: Floats, context: Floats, interaction: float
    ) -> None:
        """Tastes [n, TASTES] of a sample of impressions, at least some thousands."""
        spread_alone, spread_match = (SPREAD * math.sqrt(share) for share in ((1 - interaction) / 2, interaction))
        self._of_user = _Network(rng, user, spread_alone)
        self._of_item = _Network(rng, np.concatenate([item, context], axis=1), spread_alone)
        self._means, self._scale, self._level = (user.mean(0), item.mean(0)), np.float32(1), np.float32(0)
        self._scale = np.float32(spread_match / self._match(user, item).std())
        self._level = np.float32(_level(self.log_odds(user, item, context).astype(np.float64)))

    def log_odds(self, user: Floats, item: Floats, context: Floats) -> Floats:
        """[n] from tastes [n, TASTES] each."""
        additive = self._of_user(user) + self._of_item(np.concatenate([item, context], axis=1))
        return np.asarray(additive + self._match(user, item) + self._level, np.float32)

    def probability(self, user: Floats, item: Floats, context: Floats) -> Floats:
        """[n] true probability of a click at an examined position, from tastes [n, TASTES] each."""
        return np.asarray(1 / (1 + np.exp(-self.log_odds(user, item, context))), np.float32)

    def shares(self, user: Floats, item: Floats, context: Floats) -> dict[str, float]:
        """Shares of the variance of the log-odds that user, item and context have alone, user and item together
        beyond that (user x item), and all else (rest), over the tastes [n, TASTES] of impressions in random order.

        By their definition (Sobol, "Sensitivity estimates for nonlinear models", 1993): the covariance of log-odds
        that have a part in common and all else drawn anew is the variance that follows from this part.
        """
        parts = user, item, context
        log_odds = self.log_odds(*parts)

        def common(*shared: int) -> float:
            inputs = [part if number in shared else np.roll(part, number + 1, 0) for number, part in enumerate(parts)]
            return float(np.cov(log_odds, self.log_odds(*inputs))[0, 1] / log_odds.var())

        by_part = {"user": common(0), "item": common(1), "context": common(2)}
        by_part["user x item"] = common(0, 1) - by_part["user"] - by_part["item"]
        return by_part | {"rest": 1 - sum(by_part.values())}

    def _match(self, user: Floats, item: Floats) -> Floats:
        of_user, of_item = self._means
        return np.asarray(np.einsum("nt,nt->n", (user - of_user) * self._scale, item - of_item), np.float32)


class _Network:
    """A random tanh network of one output, drawn once."""

    def __init__(self, rng: np.random.Generator, sample: Floats, spread: float) -> None:
        """`spread` is the standard deviation over the sample [n, inputs]."""
        inputs = sample.shape[1]
        self._hidden = rng.standard_normal((inputs, HIDDEN), dtype=np.float32) * np.float32(GAIN / math.sqrt(inputs))
        self._output = rng.standard_normal(HIDDEN, dtype=np.float32)
        self._output *= np.float32(spread / self(sample).std())

    def __call__(self, inputs: Floats) -> Floats:
        """[n] from [n, inputs]."""
        return np.asarray(np.tanh(inputs @ self._hidden) @ self._output, np.float32)


def examination(position: Integers, bias: float) -> Doubles:
    """[n] probability that the item at a position (first = 1) is looked at: position ** -bias.

    A click needs both: the examination hypothesis of Richardson et al., "Predicting Clicks", WWW 2007.
    """
    return np.asarray(position.astype(np.float64) ** -bias, np.float64)


def logit(probability: Reals) -> Floats:
    """[n] log-odds of probabilities [n], of at most 1 - 1e-7 and at least 1e-7: what float32 can tell from 1."""
    p = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.log(p / (1 - p)).astype(np.float32)


def draw_clicks(rng: np.random.Generator, probability: Floats, position: Ints, bias: float) -> Floats:
    """[n] 1 or 0: clicks on impressions with true probability [n] shown at positions [n]."""
    return (rng.random(len(probability)) < probability * examination(position, bias)).astype(np.float32)


def _level(raw: Doubles) -> float:
    """The constant c for which the mean of sigmoid(raw + c) is BASE_RATE, by bisection."""
    low, high = -30.0 - raw.max(), 30.0 - raw.min()
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.mean(1 / (1 + np.exp(-raw - middle))) < BASE_RATE else (low, middle)
    return float((low + high) / 2)
