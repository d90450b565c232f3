"""One replica as the router sees it: a connection, two lanes, and whether it can answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.recommender_pb2_grpc import ReplicaStub
from serving.router.metrics import RouterMetrics
from serving.router.work import Lane
from simulator.store.protocol import Member

CHANNEL = (
    ("grpc.max_receive_message_length", -1),  # 1,024 answers with all scores pass the default of 4 MiB
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),  # a replica that comes back at an old address starts with no backoff
)
HANGS = 2.0
"""Seconds after which a health check without an answer means that the replica hangs."""


class Replica:
    """Healthy or not, by the last that was heard of it."""

    def __init__(self, member: Member, metrics: RouterMetrics, changed: Callable[[], None]) -> None:
        """`changed` is told when `healthy` changes, from any thread."""
        self.member = member
        self.healthy = False
        self.hangs = False
        """It answers nothing: let go of the connection, so that what waits for it is asked elsewhere."""
        self._changed = changed
        self._checking = False
        self._channel = grpc.insecure_channel(member.address, CHANNEL)
        self._health = health_pb2_grpc.HealthStub(self._channel)
        rank, lost = ReplicaStub(self._channel).Rank, self.leave_pool
        self.users = Lane(member.name, rank, lost, metrics.coalesced.labels("users").observe)
        """For users' queries."""
        self.shadow = Lane(member.name, rank, lost, metrics.coalesced.labels("shadow").observe, background=True)
        """For comparisons: users' queries do not wait for them."""
        self.sent = metrics.replica_queries.labels(member.name)

    @property
    def name(self) -> str:
        """Unique among replicas."""
        return self.member.name

    @property
    def in_flight(self) -> int:
        """Queries that it was sent and has not answered."""
        return self.users.in_flight + self.shadow.in_flight

    def leave_pool(self) -> None:
        """Send it nothing more until its health is SERVING again."""
        self._set(False)

    def check(self) -> None:
        """Ask for its health, in the background; one question at a time."""
        if not self._checking:
            self._checking = True
            with contextlib.suppress(ValueError):  # gRPC's, for a channel that was closed a moment ago
                future = self._health.Check.future(health_pb2.HealthCheckRequest(), timeout=HANGS)
                future.add_done_callback(self._checked)

    def _checked(self, future: grpc.Future[health_pb2.HealthCheckResponse]) -> None:
        self._checking = False
        problem = future.exception()
        if problem is None:
            return self._set(future.result().status == health_pb2.HealthCheckResponse.SERVING)
        self.hangs = isinstance(problem, grpc.Call) and problem.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        self._set(False)

    def _set(self, healthy: bool) -> None:
        if healthy != self.healthy:
            self.healthy = healthy
            self._changed()

    def close(self) -> None:
        """Let go of the connection."""
        self.users.close()
        self.shadow.close()
        self._channel.close()
