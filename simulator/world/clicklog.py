"""A click log as numbers: rows in time order, users and items numbered by first appearance, and how the log calls them.

What `open_log` (ingest.py) returns, and what ReplayWorld (replay.py) reads. The arrays are memory-mapped: a slice of
them costs what it reads. Shapes: n rows, C context slots, U users, I items, S slots of a feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.types import Doubles, Rows


@dataclass(frozen=True)
class Feature:
    """A field beside the identities: a value is a number from 0, -1 is empty."""

    name: str
    names: Sequence[str]
    """How the log writes each value; at least one. A bucket of numbers is written as its range, such as `3.5 to 7`."""
    slots: int = 1
    """Values that one cell can hold."""
    values: Rows | None = None
    """[U, S] or [I, S] of each user or item; None for a context feature, whose values are in `ClickLog.context`."""


@dataclass(frozen=True)
class Entities:
    """All users, or all items, by number. Items of the item table that the log never shows come last."""

    ids: Sequence[str]
    """As the log writes them."""
    titles: Sequence[str] | None = None
    """What people read, where the item table names a column for it."""
    features: tuple[Feature, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class ClickLog:
    """All rows of a log."""

    name: str
    labelled: bool
    """Whether rows carry labels; else every row is an engagement, and negatives are to be sampled."""
    user: NDArray[np.int32]
    """[n] user number."""
    item: NDArray[np.int32]
    """[n] item number."""
    time: Doubles
    """[n] unix seconds, never decreasing."""
    label: NDArray[np.uint8]
    """[n] 1 for an engagement, else 0; all 1 where there are no labels."""
    context: Rows
    """[n, C] values of the context features, slots side by side in their order; -1 is empty."""
    users: Entities
    items: Entities
    context_features: tuple[Feature, ...] = ()
    weight: NDArray[np.float32] | None = None
    """[n] scales the gradient, 0 or more; None: 1 everywhere."""
    slate: NDArray[np.int32] | None = None
    """[n] page of each row; rows of one page are one query. None where the log names no pages."""
    position: str | None = None
    """Name of the context feature that is the position on the page, value 0 for the first; None where there is none."""
    previous: NDArray[np.int64] | None = None
    """[n] the row of the same user's last engagement before this row, -1 for none; None without history."""
    history: int = 0
    """Items of the user's history that are a feature, 0 for none."""
    skipped_rows: int = 0
    """Damaged rows that were left out."""
    notes: Sequence[str] = ()
    """Deviations from the mapping, one line each."""

    def __len__(self) -> int:
        return len(self.time)
