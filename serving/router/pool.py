"""The replicas that the router knows, each with a connection and two lanes, which can answer, and which one does."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import logging
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.recommender_pb2 import ReplicaState
from protos.recommender_pb2_grpc import ReplicaStub
from serving.codec import Refusal
from serving.metrics import RouterMetrics
from serving.router.work import Lane
from simulator.security.channels import NAME, connect
from simulator.security.credentials import PLAIN, Credentials
from simulator.store.protocol import Member
from simulator.types import PolicyName

CHANNEL = (
    ("grpc.max_receive_message_length", -1),  # 1,024 answers with all scores pass the default of 4 MiB
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),  # a replica that comes back at an old address starts with no backoff
)
HANGS = 2.0
"""Seconds after which a health check without an answer means that the replica hangs."""


@dataclass(frozen=True)
class Dialling:
    """How replicas are called."""

    credentials: Credentials = PLAIN
    name: str = ""
    """What their certificates bear; the address by which each is called where it is empty."""

    def channel(self, address: str) -> grpc.Channel:
        """With the certificates of this moment."""
        return connect(self.credentials, address, CHANNEL + (((NAME, self.name),) if self.name else ()))

    @property
    def version(self) -> int:
        """Another one when the certificates have changed."""
        self.credentials.pem()
        return self.credentials.pem.version


DIRECTLY = Dialling()


class Replica:
    """Healthy or not, by the last that was heard of it."""

    def __init__(
        self, member: Member, metrics: RouterMetrics, changed: Callable[[], None], dialling: Dialling = DIRECTLY
    ) -> None:
        """`changed` is told when `healthy` changes, from any thread."""
        self.member = member
        self.version = dialling.version
        """Of the certificates that its channel has."""
        self.healthy = False
        self.checked = False
        """Whether it has said by now if it is healthy, or has failed to."""
        self.hangs = False
        """It answers nothing: let go of the connection, so that what waits for it is asked elsewhere."""
        self._changed = changed
        self._checking = False
        self._channel = dialling.channel(member.address)
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
        self.hangs = isinstance(problem, grpc.Call) and problem.code() is grpc.StatusCode.DEADLINE_EXCEEDED
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


log = logging.getLogger(__name__)


class Pool:
    """Found through the store, checked by their own health: who is SERVING answers, store or no store.

    A replica leaves the pool at once when its connection breaks, and comes back when its health is SERVING. It is
    forgotten when it neither announces itself nor is healthy.
    """

    def __init__(self, metrics: RouterMetrics, changed: Callable[[], None], dialling: Dialling = DIRECTLY) -> None:
        """`changed` is told whenever the healthy replicas are others."""
        self._metrics, self._on_change, self._dialling = metrics, changed, dialling
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

    def _replica(self, member: Member) -> Replica:
        return Replica(member, self._metrics, self._changed, self._dialling)

    def _renew(self) -> list[Replica]:
        """Where certificates have changed, connect anew beside the old connection, and take that when it is healthy.

        Returns old ones that got their last query at the look before.
        """
        left, self._left = self._left, []
        version = self._dialling.version
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
            raise Refusal(
                grpc.StatusCode.UNAVAILABLE, f"no {'other ' if without else ''}replica is healthy: try again later"
            )
        if duplicate is not None:
            healthy = tuple(replica for replica in healthy if replica.member.duplicate == duplicate)
            if not healthy:
                held = ", ".join(map(str, sorted({replica.member.duplicate for replica in self.healthy})))
                raise Refusal(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"duplicate = {duplicate}: no healthy replica holds it; held: {held or 'none'}",
                )
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


Policy = Callable[[int, int, Sequence[Replica]], int]
"""From query id, user and the healthy replicas, at least one, in the order of their names, to the place of the one that
answers; may be called from many threads at once. On a retry the replica that failed is not among them."""


def make_policy(name: PolicyName, seed: int) -> Policy:
    """The policy of that name; `seed` decides the hashes of those that hash."""
    turn = itertools.count()  # drawing from it is one step for all threads

    def random(query_id: int, user: int, replicas: Sequence[Replica]) -> int:
        """Every query for itself, by hash(seed, query_id): under the same seed and replicas it goes to the same."""
        return stable_hash(seed, "replica", query_id) % len(replicas)

    def round_robin(query_id: int, user: int, replicas: Sequence[Replica]) -> int:
        """In turn, in the order in which queries come."""
        return next(turn) % len(replicas)

    def sticky(query_id: int, user: int, replicas: Sequence[Replica]) -> int:
        """A user stays with a replica: what he sees does not depend on chance, though what two users see may differ.

        Rendezvous hashing: the highest hash(seed, user, replica) wins. Only the users of a replica that goes away move,
        and those that move to one that comes. Source: Thaler and Ravishankar, "Using name-based mappings to increase
        hit rates", IEEE/ACM ToN 1998.
        """
        return max(range(len(replicas)), key=lambda n: stable_hash(seed, f"sticky/{replicas[n].name}", user))

    def least_loaded(query_id: int, user: int, replicas: Sequence[Replica]) -> int:
        """The fewest queries in flight, which keeps queues even where replicas are not equally fast; equals in turn."""
        load = [replica.in_flight for replica in replicas]
        shortest = [n for n, queries in enumerate(load) if queries == min(load)]
        return shortest[next(turn) % len(shortest)]

    policies = {policy.__name__: policy for policy in (random, round_robin, sticky, least_loaded)}
    return policies[name]


# Choices that a replay repeats: a hash of seed, purpose and index, for what must cost a fraction of a microsecond.
# `simulator.randomness.generator` is for streams of numbers; making one takes 20 us, a tenth of what a query costs.

RANGE = 1 << 64
"""`stable_hash` is below this."""
_MOST = RANGE - 1


def stable_hash(seed: int, purpose: str, index: int) -> int:
    """A number from 0 to RANGE - 1, evenly spread, the same for the same arguments on every machine."""
    return splitmix64(_start(seed, purpose) + index)


def splitmix64(index: int) -> int:
    """Number `index` of the sequence that starts at 0.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    mixed = index * 0x9E3779B97F4A7C15 & _MOST
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MOST
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MOST
    return mixed ^ mixed >> 31


@functools.lru_cache(1_024)
def _start(seed: int, purpose: str) -> int:
    """Where in the sequence the hashes of a purpose begin: far from those of others."""
    return int.from_bytes(hashlib.blake2b(f"{purpose}/{seed}".encode(), digest_size=8).digest(), "little")
