"""A random replica by hash(seed, query_id): the same query under the same seed and replicas is answered by the same."""

from __future__ import annotations

from collections.abc import Sequence

from serving.router.hashing import stable_hash
from serving.router.policies.choice import Choice


class Random:
    """Every query for itself, whoever asks."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def choose(self, query_id: int, user: int, replicas: Sequence[Choice]) -> int:
        """See Policy."""
        return stable_hash(self._seed, "replica", query_id) % len(replicas)
