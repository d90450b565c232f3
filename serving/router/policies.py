"""Which replica answers a query.

A policy sees the healthy replicas in the order of their names, at least one, and returns the place of its choice.
On a retry the replica that failed is not among them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

from serving.router.hashing import stable_hash
from simulator.types import PolicyName


class Choice(Protocol):
    """A replica that can answer."""

    @property
    def name(self) -> str:
        """Unique among replicas."""

    @property
    def in_flight(self) -> int:
        """Queries that it was sent and has not answered."""


class Policy(Protocol):
    """Chooses a replica; may be called from many threads at once."""

    def choose(self, query_id: int, user: int, replicas: Sequence[Choice]) -> int:
        """The place in `replicas` of the one that answers this query."""


class Random:
    """Every query for itself, by hash(seed, query_id): asked again under the same seed and replicas, by the same."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def choose(self, query_id: int, user: int, replicas: Sequence[Choice]) -> int:
        """See Policy."""
        return stable_hash(self._seed, "replica", query_id) % len(replicas)


class RoundRobin:
    """Takes turns, in the order in which queries come."""

    def __init__(self) -> None:
        self._turn = itertools.count()  # drawing from it is one step for all threads

    def choose(self, query_id: int, user: int, replicas: Sequence[Choice]) -> int:
        """See Policy."""
        return next(self._turn) % len(replicas)


class Sticky:
    """A user stays with a replica: what he sees does not depend on chance, though what two users see may differ.

    Rendezvous hashing: the highest hash(seed, user, replica) wins. Only the users of a replica that goes away move, and
    those that move to one that comes. Source: Thaler and Ravishankar, "Using name-based mappings to increase hit
    rates", IEEE/ACM ToN 1998.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def choose(self, query_id: int, user: int, replicas: Sequence[Choice]) -> int:
        """See Policy."""
        return max(range(len(replicas)), key=lambda n: stable_hash(self._seed, f"sticky/{replicas[n].name}", user))


class LeastLoaded:
    """The fewest queries in flight, which keeps queues even where replicas are not equally fast; equals take turns."""

    def __init__(self) -> None:
        self._turns = RoundRobin()

    def choose(self, query_id: int, user: int, replicas: Sequence[Choice]) -> int:
        """See Policy."""
        load = [replica.in_flight for replica in replicas]
        least = [n for n, queries in enumerate(load) if queries == min(load)]
        return least[self._turns.choose(query_id, user, [replicas[n] for n in least])]


def make_policy(name: PolicyName, seed: int) -> Policy:
    """The policy of that name; `seed` decides the hashes of those that hash."""
    policies: dict[PolicyName, Policy] = {
        "random": Random(seed),
        "round_robin": RoundRobin(),
        "sticky": Sticky(seed),
        "least_loaded": LeastLoaded(),
    }
    return policies[name]
