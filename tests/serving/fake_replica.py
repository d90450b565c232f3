"""A replica without a model: real gRPC, health and members, scores by a formula that tests can repeat."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import safetensors.numpy
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from protos.recommender_pb2 import Failure, RankRequest, RankResponse, RecommendRequest
from protos.recommender_pb2_grpc import ReplicaServicer, add_ReplicaServicer_to_server
from serving import codec
from simulator.randomness import generator
from simulator.store.arrays import label
from simulator.store.protocol import Member, Store
from simulator.types import Field, Floats, Ints, Schema, Slate, order

ARMS = ["relu", "smelu:beta=1"]
USERS, ITEMS, CANDIDATES, DUPLICATES = 30, 40, 20, 3
FIELDS = [
    Field("user", "user", USERS),
    Field("item", "item", ITEMS),
    Field("device", "context", 3),
    Field("position", "context", 5),
]


def about(generation: int, world: str = "synthetic", names: str = "") -> dict[str, object]:
    """What a trainer would announce; `names` is their digest."""
    fields = [{"name": f.name, "side": f.side, "vocabulary": f.vocabulary, "slots": f.slots} for f in FIELDS]
    known = {"generation": generation, "arms": ARMS, "specs": ARMS, "duplicates": DUPLICATES, "fields": fields}
    return known | {"world": world, "names": names}


def catalog(run: str, generation: int) -> bytes:
    """Users and items with a row of their own each."""
    schema = Schema(tuple(FIELDS))
    users, items = (np.arange(n, dtype=np.int32)[:, None] for n in (USERS, ITEMS))
    return safetensors.numpy.save(
        {"user_rows": users + schema.first_row("user"), "item_rows": items + schema.first_row("item")},
        label(run, generation, "catalog"),
    )


def publish(store: Store, generation: int, world: str = "synthetic", names: str = "") -> None:
    """A generation without weights."""
    store.publish(generation, {"catalog": catalog(store.run, generation)}, about(generation, world, names))


def scores(arm: str, duplicate: int, generation: int, user: int, items: Ints) -> Floats:
    """A taste that all models share, and what each adds to it: more under relu."""
    shared = generator(0, "taste", user).normal(size=ITEMS)
    own = generator(1, arm, duplicate, generation, user).normal(size=ITEMS)
    return np.asarray((shared + (0.5 if arm == "relu" else 0.1) * own)[items], np.float32)


def retrieved(user: int, generation: int) -> Ints:
    """The candidates of a query without any; a refresh changes a few."""
    return (np.arange(CANDIDATES) + user + 2 * generation) % ITEMS


class Health(health.HealthServicer):  # type: ignore[misc]
    """Answers unless it hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()

    def Check(self, request: object, context: grpc.ServicerContext) -> object:  # noqa: N802
        self.gate.wait(10)
        return super().Check(request, context)


class FakeReplica(ReplicaServicer):
    """Serves `generation` and the one before."""

    def __init__(self, name: str, duplicate: int, generation: int = 1, port: int = 0) -> None:
        self.name, self.duplicate, self.generation = name, duplicate, generation
        self.calls: list[int] = []  # queries of each call
        self.gate = threading.Event()  # calls wait while it is not set
        self.gate.set()
        self.failure: Callable[[RecommendRequest], Failure | None] = lambda query: None
        self._server = grpc.server(ThreadPoolExecutor(16))
        add_ReplicaServicer_to_server(self, self._server)
        self._health = Health()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    def Rank(self, request: RankRequest, context: grpc.ServicerContext) -> RankResponse:  # noqa: N802
        self.calls.append(len(request.queries))
        assert self.gate.wait(10)
        response = RankResponse()
        for index, raw in enumerate(request.queries):
            query = RecommendRequest.FromString(raw)
            failure = self.failure(query) or self._pins(query)
            if failure:
                failure.index = index
                response.failures.append(failure)
            response.answers.append(b"" if failure else self.answer(query))
        return response

    def _pins(self, query: RecommendRequest) -> Failure | None:
        for field, held in (("duplicate", [self.duplicate]), ("generation", [self.generation - 1, self.generation])):
            if query.HasField(field) and getattr(query, field) not in held:
                return Failure(code=9, message=f"{field} = {getattr(query, field)}: here are {held}")
        return None

    def answer(self, query: RecommendRequest) -> bytes:
        """The slate by `scores`."""
        generation = query.generation if query.HasField("generation") else self.generation
        items = np.array(query.candidates, np.int64) if query.candidates else retrieved(query.user, generation)
        values = scores(query.arm, self.duplicate, generation, query.user, items)
        best = order(values, items)[: query.k or 10]
        who = codec.answered_by(self.name, query.arm, self.duplicate, generation)
        scored = (items, values) if query.score_all else None
        return codec.answer(query.query_id, Slate(items[best], values[best]), who, scored)

    def announce(self, store: Store, seconds: float = 60) -> None:
        """Be found."""
        store.announce(Member(self.name, f"127.0.0.1:{self.port}", self.duplicate, self.generation), seconds)

    def say(self, serving: bool) -> None:
        """Set the health."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        self._health.set("", status)

    def hang(self) -> None:
        """Answer nothing any more, with all connections open."""
        self.gate.clear()
        self._health.gate.clear()

    def stop(self) -> None:
        """As a crash does: connections break."""
        self.gate.set()
        self._health.gate.set()
        self._server.stop(None).wait()
