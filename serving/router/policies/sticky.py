"""A user stays with a replica, by rendezvous hashing: the highest hash(seed, user, replica) wins.

Only the users of a replica that goes away move, and those that move to one that comes.
Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM ToN 1998.
"""

from __future__ import annotations

from collections.abc import Sequence

from serving.router.hashing import stable_hash
from serving.router.policies.choice import Choice


class Sticky:
    """What a user sees does not depend on chance: hides swaps from one user, not from two who compare."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def choose(self, query_id: int, user: int, replicas: Sequence[Choice]) -> int:
        """See Policy."""
        return max(range(len(replicas)), key=lambda n: stable_hash(self._seed, "sticky", user, replicas[n].name))
