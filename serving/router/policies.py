"""Which replica answers a query, and the hash behind such choices.

A policy sees the healthy replicas in the order of their names, at least one, and returns the place of its choice.
On a retry the replica that failed is not among them.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence

from serving.router.pool import Replica
from simulator.types import PolicyName

Policy = Callable[[int, int, Sequence[Replica]], int]
"""From query id, user and replicas to the place of the one that answers; may be called from many threads at once."""


def make_policy(name: PolicyName, seed: int) -> Policy:
    """The policy of that name; `seed` decides the hashes of those that hash."""
    turn = itertools.count()  # drawing from it is one step for all threads

    def random(query_id: int, user: int, replicas: Sequence[Replica]) -> int:
        """Every query for itself, by hash(seed, query_id): under the same seed and replicas it goes to the same."""
        return stable_hash(seed, "replica", query_id) % len(replicas)

    def round_robin(query_id: int, user: int, replicas: Sequence[Replica]) -> int:
        """In turn, in the order in which queries come."""
        return next(turn) % len(replicas)

    def sticky(query_id: int, user: int, replicas: Sequence[Replica]) -> int:
        """A user stays with a replica: what he sees does not depend on chance, though what two users see may differ.

        Rendezvous hashing: the highest hash(seed, user, replica) wins. Only the users of a replica that goes away move,
        and those that move to one that comes. Source: Thaler and Ravishankar, "Using name-based mappings to increase
        hit rates", IEEE/ACM ToN 1998.
        """
        return max(range(len(replicas)), key=lambda n: stable_hash(seed, f"sticky/{replicas[n].name}", user))

    def least_loaded(query_id: int, user: int, replicas: Sequence[Replica]) -> int:
        """The fewest queries in flight, which keeps queues even where replicas are not equally fast; equals in turn."""
        load = [replica.in_flight for replica in replicas]
        least = [n for n, queries in enumerate(load) if queries == min(load)]
        return least[next(turn) % len(least)]

    policies = {policy.__name__: policy for policy in (random, round_robin, sticky, least_loaded)}
    return policies[name]


# Choices that a replay repeats: a hash of seed, purpose and index, for what must cost a fraction of a microsecond.
# `simulator.randomness.generator` is for streams of numbers; making one takes 20 us, a tenth of what a query costs.

RANGE = 1 << 64
"""`stable_hash` is below this."""
_MOST = RANGE - 1


def stable_hash(seed: int, purpose: str, index: int) -> int:
    """A number from 0 to RANGE - 1, evenly spread, the same for the same arguments on every machine."""
    return splitmix64(_start(seed, purpose) + index)


def splitmix64(index: int) -> int:
    """Number `index` of the sequence that starts at 0.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    mixed = index * 0x9E3779B97F4A7C15 & _MOST
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MOST
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MOST
    return mixed ^ mixed >> 31


@functools.lru_cache(1_024)
def _start(seed: int, purpose: str) -> int:
    """Where in the sequence the hashes of a purpose begin: far from those of others."""
    return int.from_bytes(hashlib.blake2b(f"{purpose}/{seed}".encode(), digest_size=8).digest(), "little")
