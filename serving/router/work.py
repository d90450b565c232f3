"""Queries on their way: calls that are pending for a replica share one RPC, with no timer.

A *lane* has at most OUTSTANDING RPCs under way. A query that comes while one is free goes out at once; those that come
meanwhile go out together with the next. So calls are shared as much as the load makes them, and nobody waits for
others to come.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

import grpc

from protos.recommender_pb2 import RankRequest, RankResponse
from serving.codec import Refusal

log = logging.getLogger(__name__)

OUTSTANDING = 1
"""RPCs under way per lane."""
MOST_QUERIES, MOST_BYTES = 1024, 3 << 20
"""Queries and bytes per RPC: recommender.proto allows 1,024 and 4 MiB."""
MARGIN = 0.25
"""Seconds that an RPC may take longer than its queries: the replica says itself which of them are late."""
LOST = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
"""Nobody answered: the query may be asked elsewhere."""
CODES = {code.value[0]: code for code in grpc.StatusCode}


class Call:
    """One query that waits for its answer."""

    __slots__ = ("query", "deadline", "answer", "refused", "_done")

    def __init__(self, query: bytes, deadline: float) -> None:
        """`query`: a serialised RecommendRequest; `deadline` on the monotonic clock, in seconds."""
        self.query, self.deadline = query, deadline
        self.answer = b""
        self.refused: Refusal | None = None
        self._done = threading.Event()

    def give(self, answer: bytes) -> None:
        """Wake up who waits, with a serialised RecommendResponse."""
        self.answer = answer
        self._done.set()

    def refuse(self, code: grpc.StatusCode, message: str) -> None:
        """Wake up who waits: there is no answer."""
        self.refused = Refusal(code, message)
        self._done.set()

    def result(self) -> bytes:
        """The answer. Raises Refusal, also when the deadline passes first."""
        if not self._done.wait(max(self.deadline - time.monotonic(), 0)):
            raise late()
        if self.refused:
            raise self.refused
        return self.answer


def late() -> Refusal:
    """For a query whose deadline has passed."""
    return Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer within the deadline: allow more time, or ask less")


class RankCall(Protocol):
    """The stub's method Rank, begun in the background."""

    def __call__(self, request: RankRequest, timeout: float) -> grpc.Future[RankResponse]:
        """Begin it; `timeout` in seconds."""


class Lane:
    """What goes to one replica, coalesced."""

    def __init__(self, replica: str, rank: RankCall, lost: Callable[[], None], sent: Callable[[float], None]) -> None:
        """`lost` is told when the connection breaks, `sent` how many queries share an RPC."""
        self._replica, self._rank, self._lost, self._sent = replica, rank, lost, sent
        self._lock = threading.Lock()
        self._pending: deque[Call] = deque()
        self._under_way: set[grpc.Future[RankResponse]] = set()
        self._free = OUTSTANDING
        self._closed = False
        self.in_flight = 0
        """Queries that were handed in and have no answer."""

    def submit(self, call: Call) -> None:
        """Send a query, now or with the next RPC; its answer comes to `call`."""
        with self._lock:
            closed = self._closed
            if not closed:
                self.in_flight += 1
                self._pending.append(call)
                batch = self._take()
        if closed:
            call.refuse(grpc.StatusCode.UNAVAILABLE, f"replica {self._replica} has gone")
        elif batch:
            self._send(batch)

    def cancel(self) -> None:
        """Give up what is under way, so that it is asked elsewhere (the replica hangs)."""
        with self._lock:
            under_way = list(self._under_way)
        for future in under_way:
            future.cancel()

    def close(self) -> None:
        """Refuse what comes from now on, and what has not been sent."""
        with self._lock:
            self._closed = True
            unsent = list(self._pending)
            self._pending.clear()
            self.in_flight -= len(unsent)
        for call in unsent:
            call.refuse(grpc.StatusCode.UNAVAILABLE, f"replica {self._replica} has gone")
        self.cancel()

    def _take(self) -> list[Call]:
        """What goes out with the next RPC; under the lock. Expired queries are dropped."""
        batch: list[Call] = []
        size, now = 0, time.monotonic()
        while self._free and self._pending and len(batch) < MOST_QUERIES:
            call = self._pending[0]
            if batch and size + len(call.query) > MOST_BYTES:
                break
            self._pending.popleft()
            if call.deadline <= now:
                self.in_flight -= 1
                continue  # nobody waits for it any more
            batch.append(call)
            size += len(call.query)
        self._free -= bool(batch)
        return batch

    def _send(self, batch: list[Call]) -> None:
        now = time.monotonic()
        left = [max(call.deadline - now, 0.001) for call in batch]
        request = RankRequest(
            queries=[call.query for call in batch], timeouts_ms=[int(seconds * 1_000) or 1 for seconds in left]
        )
        self._sent(len(batch))
        future = self._rank(request, timeout=max(left) + MARGIN)
        with self._lock:
            self._under_way.add(future)
        future.add_done_callback(partial(self._received, batch))

    def _received(self, batch: list[Call], future: grpc.Future[RankResponse]) -> None:
        """The next RPC goes out before the answers of this one are handed out: the replica need not wait."""
        with self._lock:
            self._under_way.discard(future)
            self._free += 1
            self.in_flight -= len(batch)
            following = self._take()
        if following:
            self._send(following)
        problem = future.exception()
        if problem is None:
            self._hand_out(batch, future.result())
        else:
            self._fail(batch, problem)

    def _hand_out(self, batch: list[Call], response: RankResponse) -> None:
        if len(response.answers) != len(batch):
            log.error("replica %s gave %d answers to %d queries", self._replica, len(response.answers), len(batch))
            return self._fail(batch, None)
        for failure in response.failures:
            if failure.index < len(batch):
                batch[failure.index].refuse(CODES.get(failure.code, grpc.StatusCode.UNAVAILABLE), failure.message)
        for call, answer in zip(batch, response.answers, strict=True):
            if answer:
                call.give(answer)
            elif call.refused is None:
                call.refuse(grpc.StatusCode.UNAVAILABLE, f"replica {self._replica} gave no answer")

    def _fail(self, batch: list[Call], problem: BaseException | None) -> None:
        """The whole RPC failed. What is not the user's concern is told as UNAVAILABLE, and asked elsewhere."""
        code = problem.code() if isinstance(problem, grpc.RpcError) and hasattr(problem, "code") else None
        if code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED):
            message = f"replica {self._replica} is too busy: ask again later"
        else:
            if code not in LOST:
                log.error("replica %s failed: %s", self._replica, problem)
            code, message = grpc.StatusCode.UNAVAILABLE, f"replica {self._replica} was lost"
            self._lost()
        for call in batch:
            call.refuse(code, message)
