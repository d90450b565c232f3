"""One after the other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from serving.router.policies.choice import Choice


class RoundRobin:
    """Takes turns, in the order in which queries come."""

    def __init__(self) -> None:
        self._turn = itertools.count()  # drawing from it is one step for all threads

    def choose(self, query_id: int, user: int, replicas: Sequence[Choice]) -> int:
        """See Policy."""
        return next(self._turn) % len(replicas)
