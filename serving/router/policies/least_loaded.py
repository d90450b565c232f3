"""The replica with the fewest queries in flight."""

from __future__ import annotations

from collections.abc import Sequence

from serving.router.policies.choice import Choice
from serving.router.policies.round_robin import RoundRobin


class LeastLoaded:
    """Keeps queues even where replicas are not equally fast; among equals it takes turns."""

    def __init__(self) -> None:
        self._turns = RoundRobin()

    def choose(self, query_id: int, user: int, replicas: Sequence[Choice]) -> int:
        """See Policy."""
        load = [replica.in_flight for replica in replicas]
        least = [n for n, queries in enumerate(load) if queries == min(load)]
        return least[self._turns.choose(query_id, user, [replicas[n] for n in least])]
