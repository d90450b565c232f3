"""Queries on their way: calls that are pending for a replica share one RPC, with no timer.

A *lane* has one RPC under way at a time. A query that comes while there is none goes out at once; those that come
meanwhile go out together with the next. So calls are shared as much as the load makes them, and nobody waits for
others to come.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import cast

import grpc

from protos.recommender_pb2 import RankRequest, RankResponse
from serving.codec import MAX_QUERIES, Refusal
from serving.rpc import late

log = logging.getLogger(__name__)

MAX_BYTES = 1 << 20
"""Of the queries of one RPC, as recommender.proto allows."""
MARGIN = 0.25
"""Seconds that an RPC may take longer than its queries: the replica says itself which of them are late."""
LOST = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
"""Nobody answered: the query may be asked elsewhere."""
CODES = {code.value[0]: code for code in grpc.StatusCode}


class Call:
    """One query on its way to a replica; who sends it says what becomes of its outcome."""

    __slots__ = ("query", "deadline")

    def __init__(self, query: bytes, deadline: float) -> None:
        """`query`: a serialised RecommendRequest; `deadline` on the monotonic clock, in seconds."""
        self.query, self.deadline = query, deadline

    def end(self, answer: bytes, refusal: Refusal | None) -> None:
        """A serialised RecommendResponse, or a refusal. Called once, by any thread; must neither wait nor raise."""
        raise NotImplementedError


class Waiting(Call):
    """A call whose outcome a thread waits for."""

    __slots__ = ("_done", "_answer", "_refusal")

    def __init__(self, query: bytes, deadline: float) -> None:
        self._done = threading.Lock()  # released when there is an outcome: half the cost of an Event
        self._done.acquire()
        self._answer, self._refusal = b"", cast(Refusal | None, late())
        super().__init__(query, deadline)

    def end(self, answer: bytes, refusal: Refusal | None) -> None:
        self._answer, self._refusal = answer, refusal
        self._done.release()

    def result(self) -> bytes:
        """The answer. Raises Refusal, also when the deadline passes first."""
        if self._done.acquire(timeout=max(self.deadline - time.monotonic(), 0)):
            self._done.release()
        if refusal := self._refusal:
            raise refusal.with_traceback(None)  # it may be told to several
        return self._answer


class Lane:
    """What goes to one replica, coalesced; a thread of its own sends, waits and hands out."""

    def __init__(
        self,
        replica: str,
        rank: grpc.UnaryUnaryMultiCallable[RankRequest, RankResponse],
        lost: Callable[[], None],
        sent: Callable[[float], None],
        background: bool = False,
    ) -> None:
        """`lost` is told when the connection breaks, `sent` how many queries share an RPC.

        `background`: no user waits for these queries.
        """
        self._replica, self._rank, self._lost, self._sent, self._background = replica, rank, lost, sent, background
        # nobody answers: who asked may ask elsewhere
        self._gone = Refusal(grpc.StatusCode.UNAVAILABLE, f"replica {replica} was lost")
        self._pending: SimpleQueue[Call | None] = SimpleQueue()  # None: no more will come
        self._next: Call | None = None  # taken from the queue, too large for the last RPC
        self._lock = threading.Lock()
        self._closed = False
        self.in_flight = 0
        """Queries that were handed in and have no answer."""
        threading.Thread(target=self._run, name=f"ask {replica}", daemon=True).start()

    def submit(self, call: Call) -> None:
        """Send a query with the next RPC; its answer comes to `call`."""
        with self._lock:
            closed = self._closed
            if not closed:
                self.in_flight += 1
                self._pending.put(call)
        if closed:
            call.end(b"", self._gone)

    def close(self) -> None:
        """Refuse what comes from now on, and what has not been sent."""
        with self._lock:
            self._closed = True
            self._pending.put(None)

    def _run(self) -> None:
        while batch := self._take():
            now = time.monotonic()
            waiting = [call for call in batch if call.deadline > now]
            if len(waiting) < len(batch):
                end([call for call in batch if call.deadline <= now], late())
            if waiting:
                self._send(waiting, now)
            with self._lock:
                self.in_flight -= len(batch)

    def _take(self) -> list[Call]:
        """What is pending, as much as an RPC holds; waits for the first. Empty at the end."""
        first = self._next or self._pending.get()
        self._next = None
        if first is None:
            return []
        batch, size = [first], len(first.query)
        with contextlib.suppress(Empty):
            while len(batch) < MAX_QUERIES:
                call = self._pending.get_nowait()
                if call is None:
                    self._pending.put(None)
                    break
                size += len(call.query)
                if size > MAX_BYTES:
                    self._next = call
                    break
                batch.append(call)
        return batch

    def _send(self, batch: list[Call], now: float) -> None:
        if self._closed:
            return end(batch, self._gone)
        left = [call.deadline - now for call in batch]
        timeouts = [max(int(seconds * 1_000), 1) for seconds in left]
        self._sent(len(batch))
        try:
            queries = [call.query for call in batch]
            request = RankRequest(queries=queries, timeouts_ms=timeouts, background=self._background)
            response = self._rank(request, timeout=max(left) + MARGIN)
        except grpc.RpcError as problem:
            return end(batch, self._failed(problem))
        except ValueError:  # how gRPC says that the channel was closed
            return end(batch, self._gone)
        if len(response.answers) != len(batch):
            log.error("replica %s gave %d answers to %d queries", self._replica, len(response.answers), len(batch))
            return end(batch, self._gone)
        failures = {failure.index: failure for failure in response.failures}
        for index, (call, answer) in enumerate(zip(batch, response.answers, strict=True)):
            if failure := failures.get(index):
                code = CODES.get(failure.code, grpc.StatusCode.UNAVAILABLE)
                call.end(b"", Refusal(code, failure.message))
            else:
                call.end(answer, None if answer else self._gone)

    def _failed(self, problem: grpc.RpcError) -> Refusal:
        """What the queries of an RPC that failed are told."""
        code = problem.code() if isinstance(problem, grpc.Call) else None
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Refusal(code, f"replica {self._replica} is too busy: ask again later")
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return late()
        if code not in LOST:
            log.error("replica %s failed: %s", self._replica, problem)
        self._lost()
        return self._gone


def end(calls: list[Call], refusal: Refusal) -> None:
    """No answers."""
    for call in calls:
        call.end(b"", refusal)
