"""`python -m serving router`: from flags and environment to a running router, and the methods that it answers."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

import grpc
from prometheus_client import CollectorRegistry

from protos import recommender_pb2
from protos.recommender_pb2 import (
    CompareRequest,
    DescribeRequest,
    FeedbackRequest,
    FeedbackResponse,
    ListReplicasResponse,
)
from serving.codec import Refusal, parse
from serving.metrics import SECONDS, GrpcMetrics, RouterMetrics, ShadowMetrics
from serving.process import ServerFlags, serve
from serving.router.compare import Shadow, compare_all
from serving.router.feedback import MAX_EVENTS, MIN_BYTES, Feedback, InStore, OnDisk, Spool, report_of
from serving.router.pool import Pool
from serving.router.published import Watch
from serving.router.router import Router, make_policy
from serving.rpc import Door, GrpcServer, Handler, Limits, Reply, by_threads
from simulator.config import require
from simulator.errors import SettingError
from simulator.flags import choice_from_env, file_from_env, from_env, parse_flags
from simulator.process import from_environment
from simulator.security.channels import require_name
from simulator.store.protocol import Store
from simulator.types import PolicyName

GRACE = 3.0
"""Seconds for what is being answered when the router ends."""
SERVICE = recommender_pb2.DESCRIPTOR.services_by_name["Recommender"].full_name
WHO = "router"
COMPARES = 2, 8
"""Threads for comparisons, and such calls at work or waiting: each takes as long as many queries."""
DESCRIBES = 1, 64
"""The same for descriptions: 10,000 items and users take 50 ms, in which no query would be looked at."""
REQUEST_BYTES = 128 << 10
"""Twice what a query with 10,000 candidates takes."""


def wanted_replicas() -> int | None:
    """FLICKER_REPLICAS, None where it is not set. Raises SettingError where it is no number."""
    return from_environment("FLICKER_REPLICAS", 0) if os.environ.get("FLICKER_REPLICAS") else None


@dataclass(frozen=True)
class RouterFlags(ServerFlags):
    """Send each query to a random replica, and show live how much it matters to which.

    Finds the replicas through the store. Takes queries and feedback by gRPC; compares a sampled share of the answers.
    """

    name: str = from_env("FLICKER_NAME", "")
    """Name of this router, no other's (default: FLICKER_NAME, else host and process number)."""
    policy: PolicyName = choice_from_env("FLICKER_POLICY", "random", PolicyName)
    """Who answers a query. random: by hash(seed, query id). round_robin: in turn. sticky: the same replica for a user.
    least_loaded: who has the fewest queries in flight (default: FLICKER_POLICY)."""
    seed: int = from_env("FLICKER_SEED", 0)
    """Seed of all hashes: replica, arm, sample; 0 or more (default: FLICKER_SEED)."""
    shadow: float = from_env("FLICKER_SHADOW", 0.1)
    """Share of the queries that are compared off the user's path, 0 (none) to 1 (default: FLICKER_SHADOW)."""
    replicas: int | None = field(default_factory=wanted_replicas)
    """Replicas that should serve, at least 1: shown beside those that do, so that an alert can tell when some are
    missing (default: FLICKER_REPLICAS; nothing is expected where neither says)."""
    window: float = 60.0
    """Seconds that the live gauges look back, more than 0."""
    comparisons: Path | None = None
    """File that gets a JSON line for each comparison, to repeat it offline; none by default."""
    in_flight: int = 256
    """Queries that wait for an answer at most, 1 to 4,096; more are refused at once with RESOURCE_EXHAUSTED."""
    deadline: float = 5.0
    """Seconds for an answer where the caller allows more or says nothing, more than 0."""
    spool: Path | None = file_from_env("FLICKER_SPOOL")
    """Folder in which feedback waits for a store that is away: it is acknowledged when it is on this disk. Several
    routers may share it, and one that is started again goes on with what it finds. Without one, when the store has it;
    while that is away feedback is refused (default: FLICKER_SPOOL)."""
    spool_bytes: int = 2**26
    """Bytes of feedback in the spool at most, at least 4,194,304; more is refused with UNAVAILABLE. Its files
    may be some megabytes larger."""
    log_capacity: int = 200_000
    """Events in the log that no trainer has learned and saved, at most, before feedback waits; at least 1,000."""
    replica_name: str = from_env("FLICKER_REPLICA_NAME", "")
    """Name that every replica's certificate bears, such as replica (default: FLICKER_REPLICA_NAME, else the address by
    which it is called). By TLS alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        require(0 <= self.shadow <= 1, "shadow", self.shadow, "from 0 to 1")
        require(self.replicas is None or self.replicas >= 1, "replicas", self.replicas, "at least 1")
        require(0 < self.window < float("inf"), "window", self.window, "more than 0 seconds")
        require(1 <= self.in_flight <= 4_096, "in_flight", self.in_flight, "from 1 to 4,096 queries")
        require(0 < self.deadline <= 3_600, "deadline", self.deadline, "more than 0 seconds, at most 3,600")
        require(self.spool_bytes >= MIN_BYTES, "spool_bytes", self.spool_bytes, f"at least {MIN_BYTES:,} bytes")
        require_name("replica_name", self.replica_name)
        require(self.log_capacity >= 1_000, "log_capacity", self.log_capacity, "at least 1,000 events")


class RunningRouter:
    """A router as a process in three verbs, and the methods that it answers."""

    def __init__(self, flags: RouterFlags, store: Store, registry: CollectorRegistry, stop: threading.Event) -> None:
        """Raises SettingError for a file that cannot be had."""
        self.name = flags.name or f"router-{socket.gethostname()}-{os.getpid()}"
        self._stop = stop
        self._metrics = RouterMetrics(registry, flags.replicas)
        credentials = flags.security.credentials()
        self._pool = Pool(self._metrics, self._say, credentials, flags.replica_name)
        self._watch = Watch(store, self._pool, self._metrics, stop, self._say)
        recorder = ShadowMetrics(registry, flags.window)
        self._shadow = Shadow(self._pool, recorder, flags.seed, flags.shadow, open_lines(flags))
        policy = make_policy(flags.policy, flags.seed)
        self._router = Router(flags.seed, policy, self._pool, self._watch.current, self._shadow, self._metrics)
        keeper: InStore | OnDisk = InStore(store, self.name, self._metrics)
        if flags.spool:
            self._metrics.spool_limit.set(flags.spool_bytes)
            keeper = OnDisk(store, Spool(flags.spool, flags.run, flags.spool_bytes), self._metrics)
        self._feedback = Feedback(keeper, self._metrics, min(MAX_EVENTS, store.capacity()))
        limits = Limits(flags.in_flight, REQUEST_BYTES, deadline_seconds=flags.deadline)
        door = Door(limits, GrpcMetrics(registry, SECONDS))
        methods, address = self._handlers(door), (flags.host, flags.port)
        self._listen = partial(GrpcServer, SERVICE, methods, door, address, credentials=credentials)
        self._server: GrpcServer | None = None
        self.address = ""

    def start(self) -> None:
        """Look at the store, then listen: who listens is asked what others, who know more, could have answered.

        Raises Stopped where the stop flag ends the wait for the store, SettingError for a port that cannot be had.
        """
        self._feedback.start()
        self._shadow.start()
        self._watch.start()
        self._watch.wait_for_a_look()
        self._server = self._listen()
        self._say()
        self._server.start()
        self.address = self._server.address

    def stop(self) -> None:
        """Take nothing new, answer what was taken, hand over the feedback, let go of the replicas."""
        self._stop.set()
        if self._server is not None:
            self._server.retire()
            self._server.stop(GRACE)
        self._shadow.close()
        self._feedback.close()
        self._watch.join(GRACE)
        self._pool.close()

    def _say(self) -> None:
        """Queries can be answered once there is a generation, and while there is a replica."""
        if self._server is not None:
            self._server.serving(self._watch.published is not None and bool(self._pool.healthy))

    def _handlers(self, door: Door) -> dict[str, Handler]:
        """What answers each method."""
        return {
            "Recommend": Handler(self.recommend, WHO, sheds=True, refused=self.refused),
            "Compare": by_threads(door, self.compare, *COMPARES, WHO, sheds=True),
            "Feedback": Handler(self.feedback, WHO),
            "Describe": by_threads(door, self.describe, *DESCRIBES, WHO),
            "ListReplicas": Handler(self.list_replicas, WHO),
        }

    def recommend(self, raw: bytes, reply: Reply) -> None:
        """Recommender.Recommend; does not wait."""
        self._router.begin(raw, reply.deadline, reply.end)

    def refused(self) -> None:
        """A query that did not come so far."""
        self._metrics.queries.labels("", grpc.StatusCode.RESOURCE_EXHAUSTED.name).inc()

    def compare(self, raw: bytes, deadline: float) -> bytes:
        """Recommender.Compare."""
        return compare_all(parse(CompareRequest, raw), self._router, deadline).SerializeToString()

    def feedback(self, raw: bytes, reply: Reply) -> None:
        """Recommender.Feedback; does not wait. Raises Refusal."""
        published = self._router.published()
        request = parse(FeedbackRequest, raw)
        user = published.user(request)
        report = report_of(request, user, published)
        learned = published.learns_feedback and user < published.ranges.users
        events, clicked = len(report.events), int(report.events.label.sum())

        def answer(refusal: Refusal | None) -> None:
            if refusal:
                return reply.end(b"", refusal)
            self._metrics.feedback_events.labels("true").inc(clicked)
            self._metrics.feedback_events.labels("false").inc(events - clicked)
            accepted = events if learned else 0
            reply.end(FeedbackResponse(accepted=accepted).SerializeToString(), None)

        if learned:
            self._feedback.take(report, answer)
        else:
            answer(None)

    def describe(self, raw: bytes, deadline: float) -> bytes:
        """Recommender.Describe. Raises Refusal."""
        return self._router.published().describe(parse(DescribeRequest, raw)).SerializeToString()

    def list_replicas(self, raw: bytes, reply: Reply) -> None:
        """Recommender.ListReplicas; does not wait."""
        try:
            arms = self._router.published().ranges.arms
        except Refusal:  # replicas may wait for the first generation
            arms = ()
        reply.end(ListReplicasResponse(replicas=self._router.pool.states(arms)).SerializeToString(), None)


def open_lines(flags: RouterFlags) -> IO[str] | None:
    """The file for comparisons, where one is named. Raises SettingError where it cannot be written."""
    if flags.comparisons is None:
        return None
    try:
        return flags.comparisons.open("a", encoding="utf-8")
    except OSError as problem:
        hint = f"{problem.strerror}: name a file that can be written"
        raise SettingError("comparisons", flags.comparisons, hint) from None


def main(arguments: list[str]) -> None:
    """Serve until a signal comes. Raises FlickerError for what the user can mend."""
    flags = parse_flags(RouterFlags, "python -m serving router", arguments)
    serve("router", flags, partial(RunningRouter, flags), capacity=flags.log_capacity)
