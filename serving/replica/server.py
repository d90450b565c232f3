"""The gRPC server of a replica: `Replica.Rank` with raw bytes, health and reflection.

The server's thread parses and checks the queries of a call; the worker ranks them, and builds and sends the answer.
"""

from __future__ import annotations

import time
from collections import Counter

import grpc

from protos.recommender_pb2 import DESCRIPTOR, Failure, RankRequest, RankResponse, RecommendRequest
from serving.codec import UNKNOWN_USER, Refusal, answer, bad, length, parse, parse_query
from serving.replica.generation import Shelf
from serving.replica.metrics import Metrics
from serving.replica.work import Call, Job, Queue
from serving.rpc import Limits, Reply, as_refusal
from simulator.types import slate

SERVICE = DESCRIPTOR.services_by_name["Replica"].full_name
MOST_QUERIES = 1_024
"""Queries per call."""
LIMITS = Limits(
    calls=256,
    request_bytes=(1 << 20) + (256 << 10),
    bytes=64 << 20,
    half_open=32,
    unread_bytes=64 << 20,
    pending=1_024,
)
"""Of calls that hold many queries each; a router has two at a time, of 1 MiB and what a last query is more. One that
gRPC's core refuses looks to a router like a lost replica: so what is pending is refused here, not there."""


class RankService:
    """Answers `Rank`; called from many threads."""

    def __init__(self, shelf: Shelf, queue: Queue, metrics: Metrics) -> None:
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
        asked: list[tuple[RecommendRequest, Job] | Refusal] = []
        call = Call(lambda: self._finish(asked, reply))
        for query, timeout in zip(request.queries, timeouts, strict=True):
            deadline = min(until, now + timeout / 1_000) if timeout else until
            try:
                asked.append(self._job(parse_query(query), call, deadline))
            except Refusal as refusal:
                # its traceback would hold this list, and so itself and the generations that were looked through
                asked.append(refusal.with_traceback(None))
        if jobs := [each[1] for each in asked if not isinstance(each, Refusal)]:
            self._work(jobs, request.background)
            reply.when_gone(call.cancel)
        else:
            self._finish(asked, reply)

    def _finish(self, asked: list[tuple[RecommendRequest, Job] | Refusal], reply: Reply) -> None:
        """All queries of a call are done with."""
        try:
            answer = self._response(asked)
        except Exception as problem:
            return reply.end(b"", as_refusal(problem, "replica"))
        reply.end(answer, None)

    def _job(self, query: RecommendRequest, call: Call, deadline: float) -> tuple[RecommendRequest, Job]:
        """What the worker needs to rank a query. Raises Refusal."""
        generation = self._shelf.find(query.generation if query.HasField("generation") else None)
        ranges, duplicate = generation.ranges, generation.duplicate
        if query.HasField("duplicate") and ranges.duplicate(query.duplicate) != duplicate:
            message = f"duplicate = {query.duplicate}: here is {duplicate}"
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, message, "duplicate")
        arm, user, rows = ranges.arm(query.arm), ranges.known(query.user), ranges.context_rows(query.context)
        length(query.k)
        items = ranges.candidates(query.candidates)
        if not len(items):
            items = generation.candidates[generation.segment[user]]
        return query, Job(call, generation, arm, user, rows, items, deadline)

    def _work(self, jobs: list[Job], background: bool) -> None:
        """Have the jobs done. Raises Refusal where there is room for none."""
        message = f"queue = {self._queue.most} queries: full, try again later"

        def refuse(job: Job) -> None:
            job.refusal = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, message)

        taken = self._queue.put(jobs, refuse, background)
        self._metrics.shed.inc(len(jobs) - taken)
        if not taken:
            jobs[0].call.drop()
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, message)

    def _response(self, asked: list[tuple[RecommendRequest, Job] | Refusal]) -> bytes:
        response, answered = RankResponse(), Counter[str]()
        for index, each in enumerate(asked):
            refusal = each if isinstance(each, Refusal) else each[1].refusal
            if refusal is not None:
                if refusal.code is grpc.StatusCode.INVALID_ARGUMENT:
                    self._metrics.bad_queries.labels(refusal.field).inc()
                failure = Failure(index=index, code=refusal.code.value[0], message=refusal.message)
                response.failures.append(failure)
                response.answers.append(b"")
                continue
            assert not isinstance(each, Refusal)
            query, job = each
            best = slate(job.scores, job.candidates, length(query.k), job.ranked)
            scored = (job.candidates, job.scores) if query.score_all else None
            ranges, who = job.generation.ranges, job.generation.who[job.arm]
            if job.user == ranges.users:
                who += UNKNOWN_USER
            response.answers.append(answer(query.query_id, best, who, scored))
            answered[ranges.arms[job.arm]] += 1
        for arm, queries in answered.items():
            self._metrics.queries.labels(arm).inc(queries)
        return response.SerializeToString()


def parse_call(raw: bytes) -> RankRequest:
    """A call from its bytes. Raises Refusal."""
    request = parse(RankRequest, raw)
    queries, timeouts = len(request.queries), len(request.timeouts_ms)
    if not 1 <= queries <= MOST_QUERIES:
        raise bad("queries", f"{queries} queries", f"1 to {MOST_QUERIES:,}")
    if timeouts not in (0, queries):
        raise bad("timeouts_ms", f"{timeouts} values", f"as many as queries ({queries}), or none")
    return request
