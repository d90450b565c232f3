"""ClickLogs from plain rows, and what a user's history is by a slow recount."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from simulator.config import ReplayConfig
from simulator.world.clicklog import ClickLog, Entities, Feature
from simulator.world.replay import ReplayWorld

COUNTRIES, DEVICES = ("north", "south"), ("phone", "desk")
MORE_ITEMS = 7
"""Items of the catalogue that the log never shows."""


@dataclass(frozen=True)
class Row:
    time: int
    user: int
    item: int
    label: int
    device: int
    page: int = 0
    position: int = 0


def rows_of(count: int = 1_500, per_second: int = 3, users: int = 30, items: int = 200) -> list[Row]:
    """In time order, users and items numbered by first appearance; popular items change as time goes by."""
    draw, user_numbers, item_numbers = random.Random(2), dict[int, int](), dict[int, int]()
    rows = []
    for number in range(count):
        user = user_numbers.setdefault(draw.randrange(users), len(user_numbers))
        item = item_numbers.setdefault(int(draw.triangular(0, items, items * number / count)), len(item_numbers))
        label = int(draw.random() < 0.6)
        rows.append(Row(number // per_second, user, item, label, draw.randrange(2)))
    return rows


def pages(count: int = 300) -> list[Row]:
    """Pages of 1 to 6 items, two users' at a time side by side; each row later than the one before."""
    found: list[Row] = []
    for number in range(0, count, 2):
        sizes = 1 + number % 6, 1 + number // 2 % 5
        for place in range(max(sizes)):
            for side, size in enumerate(sizes):
                if place < size:
                    item, label = (7 * number + 3 * place) % 40, int((number + place) % 3 == 0)
                    found.append(Row(len(found), (number + side) % 9, item, label, side, number + side + 1, 5 - place))
    return found


def country(user: int) -> int:
    """Of a user, -1 for unknown."""
    return user % 3 if user % 3 < 2 else -1


def log_of(rows: Sequence[Row], labelled: bool, countries: bool = True, history: int = 0, **columns: Any) -> ClickLog:
    """`columns`: others of ClickLog."""
    users, items = max(row.user for row in rows) + 1, max(row.item for row in rows) + 1 + MORE_ITEMS
    of_users = np.array([[country(user)] for user in range(users)], np.int32)
    last, previous = dict[int, int](), []
    for number, row in enumerate(rows):
        previous.append(last.get(row.user, -1))
        if row.label or not labelled:
            last[row.user] = number
    log = ClickLog(
        "log",
        labelled,
        np.array([row.user for row in rows], np.int32),
        np.array([row.item for row in rows], np.int32),
        np.array([row.time for row in rows], np.float64),
        np.array([row.label if labelled else 1 for row in rows], np.uint8),
        np.array([[row.device] for row in rows], np.int32),
        Entities(
            [f"u{user}" for user in range(users)],
            None,
            (Feature("country", COUNTRIES, 1, of_users),) if countries else (),
        ),
        Entities([f"i{item}" for item in range(items)]),
        (Feature("device", DEVICES),),
        previous=np.array(previous) if history else None,
        history=history,
    )
    return replace(log, **columns)


def world_of(log: ClickLog, seed: int = 5, hash_rows: int = 0, **settings: Any) -> ReplayWorld:
    """`settings`: of ReplayConfig."""
    config = ReplayConfig(**{"path": "log", "negatives": 3, "recent": 150, "horizon": 40.0} | settings)
    return ReplayWorld(config, log, seed, hash_rows)


def history_of(rows: Sequence[Row], row: int, depth: int, labelled: bool, before: int | None = None) -> list[int]:
    """The items of the history of a row's user, the slow way: before its time and `before`, and of other pages."""
    own = rows[row]
    earlier = [
        each.item
        for each in rows[: row if before is None else before]
        if each.user == own.user
        and (each.label or not labelled)
        and each.time < own.time
        and (not own.page or each.page != own.page)
    ]
    return earlier[::-1][:depth]
