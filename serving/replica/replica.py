"""A replica: `Replica.Rank` with raw bytes, and the process around it in three verbs.

The server's thread parses and checks the queries of a call; the worker ranks them, and builds and sends the answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter

import grpc
import torch
from prometheus_client import CollectorRegistry

from protos.recommender_pb2 import DESCRIPTOR, Failure, RankRequest, RankResponse, RecommendRequest
from serving.codec import UNKNOWN_USER, Refusal, answer, bad, length, parse
from serving.replica.generation import Shelf
from serving.replica.main import ReplicaFlags
from serving.replica.membership import Membership
from serving.replica.metrics import Metrics
from serving.replica.refresh import Refresher
from serving.replica.work import Call, Job, Queue, Worker
from serving.rpc import Door, GrpcServer, Handler, Limits, Reply, as_refusal
from simulator.models.ranker import Rankers
from simulator.store.protocol import Store, StoreError
from simulator.types import slate

log = logging.getLogger(__name__)
LEAVING, DRAINING = 1.0, 2.5
"""Seconds for routers to learn that this replica leaves, and for the calls at work to end."""
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
                asked.append(self._job(parse(RecommendRequest, query, "query"), call, deadline))
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
        taken = self._queue.put(jobs, background)
        self._metrics.shed.inc(len(jobs) - taken)
        if not taken:
            jobs[0].call.drop()
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, self._queue.full)

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


class Replica:
    """The process in three verbs: start, run (until the flag is raised), stop."""

    def __init__(self, flags: ReplicaFlags, store: Store, registry: CollectorRegistry, stop: threading.Event) -> None:
        """Listens nowhere yet, but has its address. Raises SettingError where that or the device cannot be had."""
        rankers = Rankers(flags.device)
        torch.set_num_threads(1)  # products this small lose by being shared, and the cores are the other replicas'
        self.metrics, self.shelf, self.queue, self._stop = Metrics(registry), Shelf(), Queue(flags.queue), stop
        self.name = flags.name
        rank = Handler(RankService(self.shelf, self.queue, self.metrics).rank, "replica", sheds=True)
        door = Door(LIMITS, self.metrics.grpc)
        address, credentials = (flags.host, flags.port), flags.security.credentials()
        self.server = GrpcServer(SERVICE, {"Rank": rank}, door, address, credentials=credentials)
        self.address = f"{flags.advertise}:{self.server.port}" if flags.advertise else self.server.address
        self.membership = Membership(store, flags.name, self.address, self.shelf, stop)
        ready = lambda: self.server.serving(True)  # noqa: E731
        refresher = Refresher(store, flags.name, self.shelf, self.membership, self.metrics, ready, stop, rankers)
        work = {"worker": Worker(self.queue, self.metrics).run, "refresh": refresher.run, "beat": self.membership.run}
        self._threads = [threading.Thread(target=run, name=name, daemon=True) for name, run in work.items()]

    def start(self) -> None:
        """Take calls, be found, and load what is published."""
        self.server.start()
        for thread in self._threads:
            thread.start()

    def stop(self, leaving: float = LEAVING) -> None:
        """Leave the members, answer what is sent for `leaving` more seconds, end: within 5 seconds."""
        self._stop.set()
        started = time.monotonic()
        self.server.retire()
        farewell = threading.Thread(target=self._leave, daemon=True)  # the store may be away
        farewell.start()
        farewell.join(LEAVING)
        time.sleep(max(0.0, started + leaving - time.monotonic()))
        self.server.stop(DRAINING)
        self.queue.close()
        for thread in self._threads:
            thread.join(max(0.0, started + LEAVING + DRAINING + 1.0 - time.monotonic()))

    def _leave(self) -> None:
        try:
            self.membership.leave()
        except StoreError as problem:
            log.warning("not deregistered: %s", problem)
