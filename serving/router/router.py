"""What the router decides about a query: its number, its arm, its replica; and a second replica where one was lost.

The query's bytes pass through as they came; what is decided is appended (see recommender.proto).
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from grpc import StatusCode

from protos.recommender_pb2 import RecommendRequest
from serving.codec import Refusal, bad, parse_query
from serving.router.hashing import stable_hash
from serving.router.metrics import RouterMetrics
from serving.router.policies import Policy
from serving.router.pool import Pool
from serving.router.published import Published
from serving.router.replica import Replica
from serving.router.work import Call
from serving.shadow import Shadow

ATTEMPTS = 2
"""Replicas that a query is sent to, at most, when one is lost."""
MOST_QUERY_BYTES = 1 << 20
"""Twenty times what 10,000 candidates take."""


@dataclass(frozen=True)
class Routed:
    """A query with all that routing decides."""

    query_id: int
    user: int
    arm: str
    duplicate: int | None
    generation: int | None
    query: bytes
    """The user's bytes, and what was decided behind them."""

    @property
    def is_pinned(self) -> bool:
        """Whether the query asks for a certain model: a person looking, not a user."""
        return self.duplicate is not None or self.generation is not None


class Router:
    """Answers queries; called from many threads at once."""

    def __init__(
        self,
        seed: int,
        policy: Policy,
        pool: Pool,
        published: Callable[[], Published],
        metrics: RouterMetrics,
        most_in_flight: int,
    ) -> None:
        """`published` gives the newest generation or raises Refusal; more queries in flight are refused at once."""
        self.seed, self.pool, self.published, self.metrics = seed, pool, published, metrics
        self._policy, self._most = policy, most_in_flight
        self._numbers = itertools.count(secrets.randbits(62) | 1)  # of queries that came without one
        self._lock = threading.Lock()
        self._in_flight = 0
        metrics.in_flight.set_function(lambda: self._in_flight)

    def route(self, raw: bytes) -> Routed:
        """Read what routing needs, decide what was left open. Raises Refusal."""
        if len(raw) > MOST_QUERY_BYTES:
            raise bad("query", f"{len(raw)} bytes", f"at most {MOST_QUERY_BYTES:,}")
        return self.decide(parse_query(raw), raw)

    def decide(self, request: RecommendRequest, raw: bytes) -> Routed:
        """As `route`, for a query that was parsed already."""
        ranges = self.published().ranges
        query_id, arm = request.query_id, request.arm
        if arm:
            ranges.arm(arm)
        else:
            arm = ranges.arms[stable_hash(self.seed, "arm", request.user) % len(ranges.arms)]
        if not query_id:
            query_id = next(self._numbers)
        if query_id != request.query_id or arm != request.arm:
            raw += RecommendRequest(query_id=query_id, arm=arm).SerializeToString()
        duplicate = request.duplicate if request.HasField("duplicate") else None
        if duplicate is not None and duplicate >= ranges.duplicates:
            raise bad("duplicate", duplicate, f"0 to {ranges.duplicates - 1}")
        generation = request.generation if request.HasField("generation") else None
        return Routed(query_id, request.user, arm, duplicate, generation, raw)

    def answer(self, routed: Routed, deadline: float) -> tuple[bytes, Replica]:
        """The answer of a replica, and which; `deadline` on the monotonic clock. Raises Refusal."""
        tried: list[Replica] = []
        while True:
            able = self.pool.able(routed.duplicate, routed.generation, tried)
            replica = able[self._policy.choose(routed.query_id, routed.user, able)]
            call = Call(routed.query, deadline)
            replica.sent.inc()
            replica.users.submit(call)
            try:
                return call.result(), replica
            except Refusal as refusal:
                tried.append(replica)
                if refusal.code is not StatusCode.UNAVAILABLE or len(tried) == ATTEMPTS:
                    raise
                self.metrics.retried.inc()

    def serve(self, raw: bytes, deadline: float, shadow: Shadow) -> bytes:
        """One user's query: routed, answered, counted and perhaps sampled for comparison. Raises Refusal."""
        start, arm, code = time.monotonic(), "", StatusCode.OK
        self._enter()
        try:
            routed = self.route(raw)
            arm = routed.arm
            answer, _ = self.answer(routed, deadline)
            if not routed.is_pinned:
                shadow.offer(routed.query_id, routed.query, answer)
            return answer
        except Refusal as refusal:
            code = refusal.code
            raise
        finally:
            with self._lock:
                self._in_flight -= 1
            self.metrics.queries.labels(arm, code.name).inc()
            self.metrics.seconds.labels(arm).observe(time.monotonic() - start)

    def _enter(self) -> None:
        """Raises Refusal where too many queries are in flight."""
        with self._lock:
            self._in_flight += 1
            too_many = self._in_flight > self._most
            if too_many:
                self._in_flight -= 1
        if too_many:
            self.metrics.shed.inc()
            self.metrics.queries.labels("", StatusCode.RESOURCE_EXHAUSTED.name).inc()
            message = f"{self._most} queries are in flight already: ask again later, or ask less"
            raise Refusal(StatusCode.RESOURCE_EXHAUSTED, message)
