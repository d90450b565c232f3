"""What the router decides about a query: its number, its arm, its replica; and a second replica where one was lost.

The query's bytes pass through as they came; what is decided is appended (see recommender.proto).
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpc import StatusCode
from prometheus_client import Counter, Histogram

from protos.recommender_pb2 import RecommendRequest
from serving.codec import Refusal, parse, with_user, without_scores
from serving.metrics import RouterMetrics
from serving.router.pool import Call, Pool, Replica
from serving.router.published import Published
from serving.rpc import as_refusal
from simulator.types import PolicyName

if TYPE_CHECKING:
    from serving.router.compare import Shadow

ALL_SCORES = RecommendRequest(score_all=True).SerializeToString()
ATTEMPTS = 2
"""Replicas that a query is sent to, at most, when one is lost."""
End = Callable[[bytes, Refusal | None], None]
"""Ends a query: with the answer's bytes, or a refusal."""
Policy = Callable[[int, int, Sequence[Replica]], int]
"""From query id, user and the healthy replicas, at least one, in the order of their names, to the place of the one that
answers; may be called from many threads at once. On a retry the replica that failed is not among them."""


@dataclass(frozen=True)
class Routed:
    """A query with all that routing decides."""

    query_id: int
    user: int
    arm: str
    duplicate: int | None
    generation: int | None
    wants_scores: bool
    query: bytes
    """The user's bytes, and what was decided behind them."""


class Router:
    """Answers queries; called from many threads at once."""

    def __init__(
        self,
        seed: int,
        policy: Policy,
        pool: Pool,
        published: Callable[[], Published],
        shadow: Shadow,
        metrics: RouterMetrics,
    ) -> None:
        """`published` gives the newest generation or raises Refusal."""
        self.seed, self.pool, self.published, self.shadow, self.metrics = seed, pool, published, shadow, metrics
        self._policy = policy
        self._numbers = itertools.count(secrets.randbits(62) | 1)  # of queries that came without one
        self._counted: dict[tuple[str, StatusCode], tuple[Counter, Histogram]] = {}  # `labels` costs as much as routing

    def decide(self, request: RecommendRequest, raw: bytes) -> Routed:
        """What was left open in a query, whose bytes are `raw`. Raises Refusal."""
        published = self.published()
        ranges = published.ranges
        query_id, user, arm = request.query_id, published.user(request), request.arm
        if request.user_id:
            raw += with_user(user)
        if user >= ranges.users:
            self.metrics.unknown_users.inc()
        if arm:
            ranges.arm(arm)
        else:
            arm = ranges.arms[stable_hash(self.seed, "arm", user) % len(ranges.arms)]
        if not query_id:
            query_id = next(self._numbers)
        if query_id != request.query_id:
            raw += RecommendRequest(query_id=query_id).SerializeToString()
        if arm != request.arm:
            raw += _with_arm(arm)
        duplicate = ranges.duplicate(request.duplicate) if request.HasField("duplicate") else None
        generation = request.generation if request.HasField("generation") else None
        return Routed(query_id, user, arm, duplicate, generation, request.score_all, raw)

    def begin(self, raw: bytes, deadline: float, end: End) -> None:
        """One user's query: routed, answered, counted and perhaps sampled for comparison. Never waits, never raises.

        `deadline` on the monotonic clock; `end` is told the outcome, perhaps before this returns.
        """
        _Query(self, deadline, end).begin(raw)

    def choose(self, routed: Routed, tried: Sequence[Replica]) -> Replica:
        """Who is asked next. Raises Refusal."""
        able = self.pool.able(routed.duplicate, routed.generation, tried)
        return able[self._policy(routed.query_id, routed.user, able)]

    def count(self, arm: str, code: StatusCode, seconds: float) -> None:
        """A query has ended."""
        key = arm, code
        if key not in self._counted:
            self._counted[key] = self.metrics.queries.labels(arm, code.name), self.metrics.seconds.labels(arm)
        queries, taken = self._counted[key]
        queries.inc()
        taken.observe(seconds)


@functools.cache
def _with_arm(arm: str) -> bytes:
    """What is appended to a query that names no arm."""
    return RecommendRequest(arm=arm).SerializeToString()


class _Query(Call):
    """A user's query in flight: asked again elsewhere where a replica was lost, counted when it ends."""

    __slots__ = ("_router", "_end", "_start", "_routed", "_sampled", "_tried")

    def __init__(self, router: Router, deadline: float, end: End) -> None:
        super().__init__(b"", deadline)
        self._router, self._end = router, end
        self._start = time.monotonic()
        self._routed: Routed | None = None
        self._sampled = False
        self._tried: list[Replica] = []

    def begin(self, raw: bytes) -> None:
        """Route and ask."""
        try:
            self._routed = routed = self._router.decide(parse(RecommendRequest, raw, "query"), raw)
            # who asks for a certain model is a person looking, not a user
            if routed.duplicate is None and routed.generation is None:
                self._sampled = self._router.shadow.samples(routed.query_id)
            self.query = routed.query + ALL_SCORES if self._sampled else routed.query
            self._ask(routed)
        except Exception as problem:
            self._finish(b"", as_refusal(problem, "router"))

    def _ask(self, routed: Routed) -> None:
        replica = self._router.choose(routed, self._tried)
        self._tried.append(replica)
        replica.sent.inc()
        replica.users.submit(self)

    def end(self, answer: bytes, refusal: Refusal | None) -> None:
        routed = self._routed
        assert routed is not None
        try:
            if refusal and refusal.code is StatusCode.UNAVAILABLE and len(self._tried) < ATTEMPTS:
                self._router.metrics.retried.inc()
                return self._ask(routed)
            if refusal is None and self._sampled:
                self._router.shadow.offer(routed.query, answer)
                answer = answer if routed.wants_scores else without_scores(answer)
        except Exception as problem:
            refusal = as_refusal(problem, "router")
        self._finish(answer, refusal)

    def _finish(self, answer: bytes, refusal: Refusal | None) -> None:
        arm, code = self._routed.arm if self._routed else "", refusal.code if refusal else StatusCode.OK
        self._router.count(arm, code, time.monotonic() - self._start)
        self._end(answer, refusal)


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
        shortest = [n for n, queries in enumerate(load) if queries == min(load)]
        return shortest[next(turn) % len(shortest)]

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
