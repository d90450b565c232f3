"""The replicas that the router knows, which can answer, and how they are asked: each by a connection and two lanes.

A *lane* has one RPC under way at a time. A query that comes while there is none goes out at once; those that come
meanwhile go out together with the next. So calls that are pending share one RPC as much as the load makes them, with no
timer, and nobody waits for others to come.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from queue import Empty, SimpleQueue
from typing import cast

import grpc
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.recommender_pb2 import RankRequest, RankResponse, ReplicaState
from protos.recommender_pb2_grpc import ReplicaStub
from serving.codec import MAX_QUERIES, Refusal
from serving.metrics import RouterMetrics
from serving.rpc import late
from simulator.security.channels import NAME, connect
from simulator.security.credentials import PLAIN, Credentials
from simulator.store.protocol import Member

log = logging.getLogger(__name__)
CHANNEL = (
    ("grpc.max_receive_message_length", -1),  # 1,024 answers with all scores pass the default of 4 MiB
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),  # a replica that comes back at an old address starts with no backoff
)
HANGS = 2.0
"""Seconds after which a health check without an answer means that the replica hangs."""
MAX_BYTES = 1 << 20
"""Of the queries of one RPC, as recommender.proto allows."""
MARGIN = 0.25
"""Seconds that an RPC may take longer than its queries: the replica says itself which of them are late."""
LOST = frozenset({StatusCode.UNAVAILABLE, StatusCode.CANCELLED})
"""Nobody answered: the query may be asked elsewhere."""
CODES = {code.value[0]: code for code in StatusCode}


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
        self._gone = Refusal(StatusCode.UNAVAILABLE, f"replica {replica} was lost")
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
                code = CODES.get(failure.code, StatusCode.UNAVAILABLE)
                call.end(b"", Refusal(code, failure.message))
            else:
                call.end(answer, None if answer else self._gone)

    def _failed(self, problem: grpc.RpcError) -> Refusal:
        """What the queries of an RPC that failed are told."""
        code = problem.code() if isinstance(problem, grpc.Call) else None
        if code is StatusCode.RESOURCE_EXHAUSTED:
            return Refusal(code, f"replica {self._replica} is too busy: ask again later")
        if code is StatusCode.DEADLINE_EXCEEDED:
            return late()
        if code not in LOST:
            log.error("replica %s failed: %s", self._replica, problem)
        self._lost()
        return self._gone


def end(calls: list[Call], refusal: Refusal) -> None:
    """No answers."""
    for call in calls:
        call.end(b"", refusal)


class Replica:
    """Healthy or not, by the last that was heard of it."""

    def __init__(
        self, member: Member, metrics: RouterMetrics, changed: Callable[[], None], channel: grpc.Channel, version: int
    ) -> None:
        """`changed` is told when `healthy` changes, from any thread; `version` of the certificates of its channel."""
        self.member, self.version = member, version
        self.healthy = False
        self.checked = False
        """Whether it has said by now if it is healthy, or has failed to."""
        self.hangs = False
        """It answers nothing: let go of the connection, so that what waits for it is asked elsewhere."""
        self._changed = changed
        self._checking = False
        self._channel, self._health = channel, health_pb2_grpc.HealthStub(channel)
        rank, lost = ReplicaStub(channel).Rank, self.leave_pool
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
        self.hangs = isinstance(problem, grpc.Call) and problem.code() is StatusCode.DEADLINE_EXCEEDED
        self._set(problem is None and future.result().status == health_pb2.HealthCheckResponse.SERVING)
        self.checked = True

    def _set(self, healthy: bool) -> None:
        if healthy != self.healthy:
            self.healthy = healthy
            self._changed()

    def close(self) -> None:
        """Let go of the connection."""
        self.users.close()
        self.shadow.close()
        self._channel.close()


class Pool:
    """Found through the store, checked by their own health: who is SERVING answers, store or no store.

    A replica leaves the pool at once when its connection breaks, and comes back when its health is SERVING. It is
    forgotten when it neither announces itself nor is healthy.
    """

    def __init__(
        self, metrics: RouterMetrics, changed: Callable[[], None], credentials: Credentials = PLAIN, name: str = ""
    ) -> None:
        """`changed` is told whenever the healthy replicas are others.

        `name`: what their certificates bear; the address by which each is called where it is empty.
        """
        self._metrics, self._on_change, self._credentials, self._name = metrics, changed, credentials, name
        self._lock = threading.RLock()
        self._known: dict[str, Replica] = {}
        self._renewed: dict[str, Replica] = {}  # connected with new certificates, not healthy yet
        self._left: list[Replica] = []  # replaced by such a one a moment ago
        self.healthy: tuple[Replica, ...] = ()
        """By name; replaced as a whole, never changed."""

    def announce(self, members: list[Member]) -> None:
        """What the store knows now."""
        announced = {member.name: member for member in members}
        addresses = {member.address: member.name for member in members}
        gone: list[Replica] = []
        with self._lock:
            for name, replica in list(self._known.items()):
                moved = name in announced and announced[name].address != replica.member.address
                replaced = addresses.get(replica.member.address, name) != name
                if moved or replaced or (name not in announced and not replica.healthy):
                    gone.append(self._known.pop(name))
                    gone += [self._renewed.pop(name)] if name in self._renewed else []
            for name, member in announced.items():
                if name in self._known:
                    self._known[name].member = member
                else:
                    self._known[name] = self._replica(member)
                    self._known[name].check()
        for replica in gone:
            log.info("replica %s at %s forgotten", replica.name, replica.member.address)
            replica.close()
        self._changed()

    def check(self) -> None:
        """Ask every replica for its health, in the background; those that hang get a new connection."""
        with self._lock:
            hanging = [replica for replica in self._known.values() if replica.hangs]
            for replica in hanging:
                self._known[replica.name] = self._replica(replica.member)
            left = self._renew()
        if self._left:
            log.info("connected to %d replicas with new certificates", len(self._left))
            self._changed()
        for replica in hanging:
            log.warning("replica %s at %s hangs", replica.name, replica.member.address)
            replica.close()
        for replica in left:
            replica.close()
        for replica in self.known():
            replica.check()

    def channel(self, address: str) -> grpc.Channel:
        """To a replica, with the certificates of this moment."""
        return connect(self._credentials, address, CHANNEL + (((NAME, self._name),) if self._name else ()))

    @property
    def version(self) -> int:
        """Another one when the certificates have changed."""
        self._credentials.pem()
        return self._credentials.pem.version

    def _replica(self, member: Member) -> Replica:
        version = self.version
        return Replica(member, self._metrics, self._changed, self.channel(member.address), version)

    def _renew(self) -> list[Replica]:
        """Where certificates have changed, connect anew beside the old connection, and take that when it is healthy.

        Returns old ones that got their last query at the look before.
        """
        left, self._left = self._left, []
        version = self.version
        for name, replica in list(self._known.items()):
            renewed = self._renewed.pop(name, None)
            if renewed and (replica.version == version or renewed.version != version):
                left.append(renewed)
                renewed = None
            if replica.version == version:
                continue
            renewed = renewed or self._replica(replica.member)
            if renewed.healthy:
                self._known[name] = renewed
                self._left.append(replica)
            else:
                self._renewed[name] = renewed
            renewed.check()
        return left

    def known(self) -> list[Replica]:
        """All of them, by name."""
        with self._lock:
            return [self._known[name] for name in sorted(self._known)]

    def _changed(self) -> None:
        with self._lock:
            before = self.healthy
            self.healthy = tuple(replica for replica in self.known() if replica.healthy)
            self._metrics.replicas.labels("true").set(len(self.healthy))
            self._metrics.replicas.labels("false").set(len(self._known) - len(self.healthy))
            for replica in set(self.healthy) - set(before):
                log.info("replica %s at %s joins the pool", replica.name, replica.member.address)
            for replica in set(before) - set(self.healthy):
                log.info("replica %s at %s leaves the pool", replica.name, replica.member.address)
        self._on_change()

    def able(
        self, duplicate: int | None, generation: int | None, without: Collection[Replica] = ()
    ) -> tuple[Replica, ...]:
        """The healthy replicas that may answer, at least one. Raises Refusal.

        Where a generation is asked for, those that announced it or the next one come first: a replica keeps two.
        """
        healthy = self.healthy
        if without:
            healthy = tuple(replica for replica in healthy if replica not in without)
        if not healthy:
            other = "other " if without else ""
            raise Refusal(StatusCode.UNAVAILABLE, f"no {other}replica is healthy: try again later")
        if duplicate is not None:
            healthy = tuple(replica for replica in healthy if replica.member.duplicate == duplicate)
            if not healthy:
                held = ", ".join(map(str, sorted({replica.member.duplicate for replica in self.healthy})))
                message = f"duplicate = {duplicate}: no healthy replica holds it; held: {held or 'none'}"
                raise Refusal(StatusCode.FAILED_PRECONDITION, message)
        if generation is not None:
            keep = tuple(r for r in healthy if r.member.generation in (generation, generation + 1))
            healthy = keep or healthy
        return healthy

    def states(self, arms: Sequence[str]) -> list[ReplicaState]:
        """What is known of each, by name."""
        return [
            ReplicaState(
                name=replica.name,
                address=replica.member.address,
                duplicate=replica.member.duplicate,
                generation=replica.member.generation if replica.member.generation >= 0 else None,
                healthy=replica.healthy,
                in_flight=replica.in_flight,
                arms=arms,
            )
            for replica in self.known()
        ]

    def close(self) -> None:
        """Let go of all connections."""
        with self._lock:
            known, self._known = [*self.known(), *self._renewed.values(), *self._left], {}
        for replica in known:
            replica.close()
        self._changed()
