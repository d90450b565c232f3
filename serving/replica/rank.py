"""`Replica.Rank` with raw bytes: the server's thread parses and checks the queries of a call, one thread ranks them.

It drains what is pending, and builds and sends the answers: queries that come while it computes are ranked together.
There is no timer: a lone query is ranked at once. Whoever shares its pass, its scores are the same to the last bit: the
ranker sees to that.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from grpc import StatusCode

from protos.recommender_pb2 import Failure, RankRequest, RankResponse, RecommendRequest
from serving.codec import MAX_QUERIES, UNKNOWN_USER, Refusal, answer, bad, length, parse
from serving.metrics import ReplicaMetrics
from serving.replica.generation import Generation, Shelf
from serving.rpc import Reply, as_refusal
from simulator.types import Floats, Ints, order, slate

log = logging.getLogger(__name__)
MAX_PER_DRAIN = 64
"""Users' queries taken from the queue at once; those behind them are not kept waiting by other arms for long."""
MAX_BACKGROUND_PER_DRAIN = 20
"""Queries that no user waits for, taken beside them: so many delay a user by some 2 ms, and still fill whole passes."""


@dataclass(eq=False, slots=True)
class RankCall:
    """One call and how many of its queries are still to be ranked."""

    done: Callable[[], None] | None
    """Called by the worker when none is left; it must not raise. Then let go of: what it holds holds the call, and a
    generation would stay in memory until the next garbage collection."""
    left: int = 0
    cancelled: bool = False

    def cancel(self) -> None:
        """The caller no longer waits: drop what is not ranked yet."""
        self.cancelled = True

    def finish(self) -> None:
        """One of its queries is done with. Only the worker says so: it needs no lock."""
        self.left -= 1
        if not self.left and (done := self.done):
            self.done = None
            done()


@dataclass(eq=False, slots=True)
class Job:
    """One checked query: what to rank, with what, until when, and what came of it."""

    call: RankCall
    query: RecommendRequest
    generation: Generation
    arm: int
    user: int
    context: tuple[int, ...]
    candidates: Ints
    deadline: float
    """time.monotonic() at which nobody waits for it any more."""
    scores: Floats = field(init=False)
    """[N] once ranked."""
    ranked: Ints = field(init=False)
    """[N] places among the candidates, the best first, once ranked."""
    refusal: Refusal | None = None


class Queue:
    """Queries that wait, at most `limit` of them: those that users wait for, and the others."""

    def __init__(self, limit: int) -> None:
        self.limit, self.full = limit, f"queue = {limit} queries: full, try again later"
        self._users: deque[Job] = deque()
        self._others: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._users) + len(self._others)

    def put(self, jobs: list[Job], background: bool = False) -> int:
        """Take as many of a call's queries as there is room for, the first ones; returns how many.

        The rest are refused before the worker can see the first. `background`: no user waits for them, and half of the
        room is not for them.
        """
        with self._changed:
            room = self.limit - len(self) - (self.limit // 2 if background else 0)
            taken = jobs[: max(0, room)] if not self._closed else []
            for job in jobs[len(taken) :]:
                job.refusal = Refusal(StatusCode.RESOURCE_EXHAUSTED, self.full)
            for job in taken:
                job.call.left += 1
            (self._others if background else self._users).extend(taken)
            self._changed.notify()
        return len(taken)

    def take(self) -> list[Job]:
        """What is pending, as soon as there is something; empty when the queue is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: len(self) or self._closed)
            return [*_first(self._users, MAX_PER_DRAIN), *_first(self._others, MAX_BACKGROUND_PER_DRAIN)]

    def close(self) -> None:
        """Take no more; what is there will be ranked."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _first(jobs: deque[Job], limit: int) -> Iterator[Job]:
    """The first ones, which are then no longer there."""
    return (jobs.popleft() for _ in range(min(len(jobs), limit)))


def passes(jobs: list[Job]) -> Iterator[list[Job]]:
    """Queries that are ranked together: of one generation and arm, with equally many candidates."""
    groups: dict[tuple[int, int, int], list[Job]] = {}
    for job in jobs:
        groups.setdefault((id(job.generation), job.arm, len(job.candidates)), []).append(job)
    for (_, _, candidates), group in groups.items():
        size = max(1, group[0].generation.rankers[group[0].arm].pairs_at_once // candidates)
        for start in range(0, len(group), size):
            yield group[start : start + size]


def score(jobs: list[Job]) -> None:
    """Rank the queries of one pass: fill in their scores and orders."""
    users = np.array([job.user for job in jobs], np.int64)
    context = np.array([job.context for job in jobs], np.int32)
    items = np.stack([job.candidates for job in jobs])
    scores = jobs[0].generation.rankers[jobs[0].arm].scores(users, context, items)
    for job, row, ranked in zip(jobs, scores, order(scores, items), strict=True):
        job.scores, job.ranked = row, ranked


class RankService:
    """Answers `Rank`: the server's threads bring queries, and one thread ranks them."""

    def __init__(self, shelf: Shelf, queue: Queue, metrics: ReplicaMetrics) -> None:
        self._shelf, self._queue, self._metrics = shelf, queue, metrics
        metrics.queue.set_function(lambda: float(len(queue)))

    def rank(self, raw: bytes, reply: Reply) -> None:
        """Answers the bytes of a RankRequest with those of a RankResponse; the worker does, which ends the call.

        Raises Refusal for the call as a whole.
        """
        request, now = parse_call(raw), time.monotonic()
        self._shelf.find(None)  # refuses the call as a whole where nothing is published
        until = reply.deadline
        timeouts = request.timeouts_ms or [0] * len(request.queries)
        asked: list[Job | Refusal] = []
        call = RankCall(lambda: self._finish(asked, reply))
        for query, timeout in zip(request.queries, timeouts, strict=True):
            deadline = min(until, now + timeout / 1_000) if timeout else until
            try:
                asked.append(self._job(parse(RecommendRequest, query, "query"), call, deadline))
            except Refusal as refusal:
                # its traceback would hold this list, and so itself and the generations that were looked through
                asked.append(refusal.with_traceback(None))
        if jobs := [each for each in asked if not isinstance(each, Refusal)]:
            self._work(jobs, request.background)
            reply.when_gone(call.cancel)
        else:
            self._finish(asked, reply)

    def run(self) -> None:
        """The worker's thread: rank until the queue is closed and empty."""
        torch.set_num_threads(1)
        while jobs := self._queue.take():
            for batch in passes(jobs):
                self._rank(self._unexpired(batch))
            del jobs, batch  # and with them their generation, which may be refreshed before the next query comes

    def _rank(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        with self._metrics.rank.time():
            try:
                score(jobs)
            except Exception:  # a mistake of ours must not end the thread that all queries wait for
                log.exception("ranking failed")
                for job in jobs:
                    job.refusal = Refusal(StatusCode.INTERNAL, "ranking failed; the replica's log says why")
        self._metrics.batch.observe(len(jobs))
        for job in jobs:
            job.call.finish()

    def _unexpired(self, jobs: list[Job]) -> list[Job]:
        now = time.monotonic()
        for job in (late := [job for job in jobs if job.deadline <= now or job.call.cancelled]):
            job.refusal = Refusal(StatusCode.DEADLINE_EXCEEDED, "the deadline passed while the query waited")
            self._metrics.expired.inc()
            job.call.finish()
        return [job for job in jobs if job.refusal is None] if late else jobs

    def _finish(self, asked: list[Job | Refusal], reply: Reply) -> None:
        """All queries of a call are done with."""
        try:
            answer = self._response(asked)
        except Exception as problem:
            return reply.end(b"", as_refusal(problem, "replica"))
        reply.end(answer, None)

    def _job(self, query: RecommendRequest, call: RankCall, deadline: float) -> Job:
        """What the worker needs to rank a query. Raises Refusal."""
        generation = self._shelf.find(query.generation if query.HasField("generation") else None)
        ranges, duplicate = generation.ranges, generation.duplicate
        if query.HasField("duplicate") and ranges.duplicate(query.duplicate) != duplicate:
            message = f"duplicate = {query.duplicate}: here is {duplicate}"
            raise Refusal(StatusCode.FAILED_PRECONDITION, message, "duplicate")
        arm, user, rows = ranges.arm(query.arm), ranges.known(query.user), ranges.context_rows(query.context)
        length(query.k)
        items = ranges.candidates(query.candidates)
        if not len(items):
            items = generation.candidates[generation.segment[user]]
        return Job(call, query, generation, arm, user, rows, items, deadline)

    def _work(self, jobs: list[Job], background: bool) -> None:
        """Have the jobs done. Raises Refusal where there is room for none."""
        taken = self._queue.put(jobs, background)
        self._metrics.shed.inc(len(jobs) - taken)
        if not taken:
            jobs[0].call.done = None
            raise Refusal(StatusCode.RESOURCE_EXHAUSTED, self._queue.full)

    def _response(self, asked: list[Job | Refusal]) -> bytes:
        response, answered = RankResponse(), Counter[str]()
        for index, each in enumerate(asked):
            refusal = each if isinstance(each, Refusal) else each.refusal
            if refusal is not None:
                if refusal.code is StatusCode.INVALID_ARGUMENT:
                    self._metrics.bad_queries.labels(refusal.field).inc()
                response.failures.append(Failure(index=index, code=refusal.code.value[0], message=refusal.message))
                response.answers.append(b"")
                continue
            assert not isinstance(each, Refusal)
            query, ranges = each.query, each.generation.ranges
            best = slate(each.scores, each.candidates, length(query.k), each.ranked)
            scored = (each.candidates, each.scores) if query.score_all else None
            who = each.generation.who[each.arm] + (UNKNOWN_USER if each.user == ranges.users else b"")
            response.answers.append(answer(query.query_id, best, who, scored))
            answered[ranges.arms[each.arm]] += 1
        for arm, queries in answered.items():
            self._metrics.queries.labels(arm).inc(queries)
        return response.SerializeToString()


def parse_call(raw: bytes) -> RankRequest:
    """A call from its bytes. Raises Refusal."""
    request = parse(RankRequest, raw)
    queries, timeouts = len(request.queries), len(request.timeouts_ms)
    if not 1 <= queries <= MAX_QUERIES:
        raise bad("queries", f"{queries} queries", f"1 to {MAX_QUERIES:,}")
    if timeouts not in (0, queries):
        raise bad("timeouts_ms", f"{timeouts} values", f"as many as queries ({queries}), or none")
    return request
