"""The content of a log in numbers, and what looks wrong in it. Shapes: n rows, U users, I items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from time import time as now

import numpy as np
from numpy.typing import NDArray

from simulator.types import Doubles
from simulator.world.clicklog import ClickLog, Entities, Feature

DAY = 86_400.0
MIN_ROWS = 1_000
"""Rows below which differences are lost in chance."""


@dataclass(frozen=True)
class LogSide:
    """Users or items in the log."""

    word: str
    number: NDArray[np.int32]
    """[n] of each row; numbered by first appearance."""
    entities: Entities

    @property
    def in_log(self) -> int:
        """Number in the log: a table may hold more."""
        return int(self.number.max()) + 1

    @property
    def new(self) -> float:
        """Share of the rows of the last tenth whose user or item is in none before."""
        tail = len(self.number) - max(1, len(self.number) // 10)
        return float((self.number[tail:] > self.number[:tail].max(initial=-1)).mean())


@dataclass(frozen=True)
class FieldFacts:
    """One feature of the log."""

    side: str
    feature: Feature
    empty: float
    """Share of the users, items or rows that have no value."""


def sides(log: ClickLog) -> tuple[LogSide, LogSide]:
    """Users and items."""
    return LogSide("user", log.user, log.users), LogSide("item", log.item, log.items)


def fields(log: ClickLog) -> Iterator[FieldFacts]:
    """All features in schema order."""
    for side in sides(log):
        for feature in side.entities.features:
            assert feature.values is not None
            yield FieldFacts(side.word, feature, float((feature.values[:, 0] < 0).mean()))
    slot = 0
    for feature in log.context_features:
        yield FieldFacts("moment", feature, float((log.context[:, slot] < 0).mean()))
        slot += feature.slots


def doubts(log: ClickLog) -> Iterator[str]:
    """What looks wrong, a line each with a hint."""
    if len(log) < MIN_ROWS:
        yield f"no more than {len(log):,} rows: differences between models will be lost in chance"
    yield from _time_doubts(log.time)
    rate = float(log.label.mean())
    if log.labelled and rate in (0, 1):
        yield f"every label is {rate:.0f}: nothing can be learned; correct `label`, or leave it out"
    if log.weight is not None and not log.weight.any():
        yield "every weight is 0: nothing can be learned; correct `weight`, or leave it out"
    if log.slate is not None and (pages := int(log.slate.max()) + 1) in (1, len(log)):
        yield f"{'all rows are one page' if pages == 1 else 'every row is another page'}: is `slate` the right column?"
    for side in sides(log):
        if side.in_log == 1:
            yield f"one {side.word} in all rows: is `{side.word}` the right column?"
        elif side.in_log > 0.95 * len(log):
            yield f"nearly every row has another {side.word}: is `{side.word}` a number of the row?"
        elif side.new > 0.9:
            yield f"{100 * side.new:.0f} % of the last tenth are new {side.word}s: is `{side.word}` the session's?"
    for field in fields(log):
        name, values = field.feature.name, len(field.feature.names)
        if field.empty == 1:
            yield f"{name} is empty everywhere; leave it out, or correct its column"
        elif values == 1:
            yield f"{name} has one value, {field.feature.names[0]}: it tells nothing; leave it out"
        elif field.side != "moment" and values > 0.9 * len(log.users if field.side == "user" else log.items) > MIN_ROWS:
            yield f"{name} has another value for nearly every {field.side}: it is a second id; leave it out"


def _time_doubts(time: Doubles) -> Iterator[str]:
    first, last = float(time[0]), float(time[-1])
    if last > now() + DAY:
        yield "the last rows are in the future: is `time_unit` right?"
    if last < 20 * 365 * DAY:
        unit = "nearly all of it in one day of 1970" if last - first < DAY else "before 1990"
        yield f"times are {unit}: is `time_unit` larger than the log's, or do times count from the log's start?"
    if first == last:
        yield "all rows have the same time: nothing can be learned before it is asked for; is `time` the right column?"
