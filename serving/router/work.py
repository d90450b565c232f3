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
from typing import Protocol

import grpc

from protos.recommender_pb2 import RankRequest, RankResponse
from serving.codec import Refusal
from serving.rpc import LATE, late

log = logging.getLogger(__name__)

MOST_QUERIES, MOST_BYTES = 1024, 1 << 20
"""Queries and bytes per RPC, as recommender.proto allows."""
MARGIN = 0.25
"""Seconds that an RPC may take longer than its queries: the replica says itself which of them are late."""
LOST = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
"""Nobody answered: the query may be asked elsewhere."""
CODES = {code.value[0]: code for code in grpc.StatusCode}


class Call:
    """One query on its way to a replica, and whom to tell of the outcome."""

    __slots__ = ("query", "deadline", "answer", "refusal", "_told")

    def __init__(self, query: bytes, deadline: float, told: Callable[[Call], None]) -> None:
        """`query`: a serialised RecommendRequest; `deadline` on the monotonic clock, in seconds.

        `told` is called once, by any thread, and must neither wait nor raise.
        """
        self.query, self.deadline, self._told = query, deadline, told
        self.answer = b""
        """A serialised RecommendResponse; empty where there is a refusal."""
        self.refusal: Refusal | None = None

    def give(self, answer: bytes) -> None:
        """There is an answer. Once, and not after `refuse`."""
        self.answer = answer
        self._told(self)

    def refuse(self, refusal: Refusal) -> None:
        """There is none. Once, and not after `give`."""
        self.refusal = refusal
        self._told(self)


class Waiting(Call):
    """A call whose outcome a thread waits for."""

    __slots__ = ("_done",)

    def __init__(self, query: bytes, deadline: float) -> None:
        """See Call."""
        self._done = threading.Lock()  # released when there is an outcome: half the cost of an Event
        self._done.acquire()
        super().__init__(query, deadline, lambda call: self._done.release())

    def result(self) -> bytes:
        """The answer. Raises Refusal, also when the deadline passes first."""
        if not self._done.acquire(timeout=max(self.deadline - time.monotonic(), 0)):
            raise late()
        self._done.release()
        if self.refusal:
            raise self.refusal
        return self.answer


class RankCall(Protocol):
    """The stub's method Rank."""

    def __call__(self, request: RankRequest, timeout: float) -> RankResponse:
        """Call it; `timeout` in seconds."""


class Lane:
    """What goes to one replica, coalesced; a thread of its own sends, waits and hands out."""

    def __init__(
        self,
        replica: str,
        rank: RankCall,
        lost: Callable[[], None],
        sent: Callable[[float], None],
        background: bool = False,
    ) -> None:
        """`lost` is told when the connection breaks, `sent` how many queries share an RPC.

        `background`: no user waits for these queries.
        """
        self._replica, self._rank, self._lost, self._sent, self._background = replica, rank, lost, sent, background
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
            self._refuse([call])

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
                for call in batch:
                    if call.deadline <= now:
                        call.refuse(late())
            if self._closed:
                self._refuse(waiting)
            elif waiting:
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
            while len(batch) < MOST_QUERIES:
                call = self._pending.get_nowait()
                if call is None:
                    self._pending.put(None)
                    break
                size += len(call.query)
                if size > MOST_BYTES:
                    self._next = call
                    break
                batch.append(call)
        return batch

    def _send(self, batch: list[Call], now: float) -> None:
        left = [call.deadline - now for call in batch]
        timeouts = [max(int(seconds * 1_000), 1) for seconds in left]
        self._sent(len(batch))
        try:
            queries = [call.query for call in batch]
            request = RankRequest(queries=queries, timeouts_ms=timeouts, background=self._background)
            response = self._rank(request, timeout=max(left) + MARGIN)
        except grpc.RpcError as problem:
            code = problem.code() if isinstance(problem, grpc.Call) else None
            if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
                return self._refuse(batch, code, f"replica {self._replica} is too busy: ask again later")
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                return self._refuse(batch, code, LATE)
            if code not in LOST:
                log.error("replica %s failed: %s", self._replica, problem)
            self._lost()
            return self._refuse(batch)
        except ValueError:  # how gRPC says that the channel was closed
            return self._refuse(batch)
        self._hand_out(batch, response)

    def _hand_out(self, batch: list[Call], response: RankResponse) -> None:
        if len(response.answers) != len(batch):
            log.error("replica %s gave %d answers to %d queries", self._replica, len(response.answers), len(batch))
            return self._refuse(batch)
        if not response.failures and all(response.answers):
            for call, answer in zip(batch, response.answers, strict=True):
                call.give(answer)
            return None
        failures = {failure.index: failure for failure in response.failures}
        for index, (call, answer) in enumerate(zip(batch, response.answers, strict=True)):
            if index in failures:
                code = CODES.get(failures[index].code, grpc.StatusCode.UNAVAILABLE)
                call.refuse(Refusal(code, failures[index].message))
            elif answer:
                call.give(answer)
            else:
                self._refuse([call])

    def _refuse(
        self,
        calls: list[Call],
        code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE,
        message: str = "",
    ) -> None:
        """No answers; unless said otherwise the replica was lost, and who asked may ask elsewhere."""
        for call in calls:
            call.refuse(Refusal(code, message or f"replica {self._replica} was lost"))
