"""Candidates for a query, without a model: recent popularity within the user's segment, then overall.

Shapes: n engagements of the trailing window, N candidates.
"""

from __future__ import annotations

import numpy as np

from simulator.types import Ints, Rows
from simulator.world.log import Trail


def by_popularity(items: Ints) -> Ints:
    """Distinct items, most frequent first, equal counts by item number."""
    distinct, counts = np.unique(items, return_counts=True)
    return distinct[np.argsort(-counts, kind="stable")]


def segments_of(user_rows: Rows) -> Ints:
    """[U] the value of the users' first feature, from their table rows [U, Su]; all alike where they have none."""
    return user_rows[:, 1].astype(np.int64) if user_rows.shape[1] > 1 else np.zeros(len(user_rows), np.int64)


class Popularity:
    """The most popular items of a window per segment; a segment is a value of the users' first feature."""

    def __init__(self, window: Trail, segments: Ints, count: int) -> None:
        """`segments` [U] of all users; at least `count` items must be known to the window."""
        assert window.items >= count
        self._items, self._segments, self._count = window.item, segments[window.user], count
        recent = by_popularity(window.item)
        forgotten = np.setdiff1d(np.arange(min(window.items, count + len(recent))), recent, assume_unique=True)
        self._overall = np.concatenate([recent, forgotten])
        self._found: dict[int, Ints] = {}

    def candidates(self, segment: int) -> Ints:
        """[N] the most popular items of the segment, filled up from the whole window, then from older items."""
        if segment not in self._found:
            own = by_popularity(self._items[self._segments == segment])[: self._count]
            others = self._overall[~np.isin(self._overall, own)]
            self._found[segment] = np.concatenate([own, others])[: self._count]
        return self._found[segment]
