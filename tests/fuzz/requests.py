"""`make fuzz`, its second half: seeded mutations of the bytes of requests against a real router and replicas.

Valid queries, reports, comparisons and questions for names are changed in their bytes and sent to the router's port.
Each is answered or refused with a code that says what is wrong, never as a fault of ours; at the end the processes
live, have bounded memory and answer a good query, and every event that was taken fits the schema.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import psutil
from google.protobuf.message import Message

from protos.recommender_pb2 import (
    CAUSE_REFRESH,
    CompareRequest,
    DescribeRequest,
    FeedbackRequest,
    RecommendRequest,
    ShownItem,
)
from protos.recommender_pb2_grpc import RecommenderStub
from simulator.store.arrays import pack
from simulator.store.protocol import Store
from simulator.store.redis import open_store
from simulator.store.server import start_server
from simulator.types import Names
from tests.serving.generations import ARMS, CONTEXT, WORLD, publish_generation
from tests.serving.processes import Process, process
from tests.serving.router_under_test import until

METHOD = "/flicker.v1.Recommender/"
ALLOWED = frozenset("OK INVALID_ARGUMENT FAILED_PRECONDITION RESOURCE_EXHAUSTED UNAVAILABLE DEADLINE_EXCEEDED".split())
"""By recommender.proto; none is a fault of ours."""
IN_FLIGHT = 32
MEGABYTES = {"router": 200.0, "replica": 400.0}
USERS, ITEMS = 50, 120
KINDS = ("Recommend", "Feedback", "Compare", "Describe")
NAMES = Names([f"u-{user}" for user in range(USERS)], [f"sku-{item}" for item in range(ITEMS)], ["A film"] * ITEMS)


def valid(draw: random.Random) -> tuple[str, Message]:
    """A method, and a request to which the answer is OK."""
    context = [draw.randrange(2) for _ in CONTEXT] if draw.random() < 0.5 else []
    user, number = draw.randrange(USERS), draw.randrange(1, 1 << 62)
    query = RecommendRequest(query_id=number, user=user, context=context, k=draw.randrange(20))
    query.arm = draw.choice(("", *ARMS))
    query.candidates.extend(draw.sample(range(ITEMS), draw.choice((0, 3, 60))))
    query.score_all = draw.random() < 0.2
    query.user_id = draw.choice(("", "", "", str(user), NAMES.users[user], "nobody"))
    kind = draw.choices(KINDS, (6, 3, 1, 1))[0]
    if kind == "Describe":
        return kind, DescribeRequest(items=query.candidates, users=[user], context=map(str, context), find=str(user))
    if kind == "Feedback":
        shown = [ShownItem(item=item, clicked=draw.random() < 0.3) for item in draw.sample(range(ITEMS), 5)]
        report = FeedbackRequest(query_id=number, user=user, context=context, shown=shown, client="fuzz")
        return kind, report
    if kind == "Compare":
        return kind, CompareRequest(query=query, cause=draw.choice((0, 1, CAUSE_REFRESH)))
    if draw.random() < 0.1:
        query.duplicate, query.generation = draw.randrange(3), draw.randrange(3)
    return kind, query


def mutate(raw: bytes, draw: random.Random) -> bytes:
    """Another request, which mostly is one still: what parses meets the checks behind."""
    data = bytearray(raw)
    for _ in range(draw.choice((1, 1, 1, 2))):
        place = draw.randrange(len(data) + 1)
        kind = draw.choice((0, 0, 0, 1, 1, 1, 2, 3, 4, 5))
        if kind == 0 and data:
            data[place % len(data)] ^= 1 << draw.randrange(8)
        elif kind == 1 and data:
            data[place % len(data)] = draw.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            data[place:place] = draw.randbytes(draw.randrange(1, 6))
        elif kind == 3:
            del data[place : place + draw.randrange(1, 6)]
        elif kind == 4:  # a field again, or of another place
            end = place + draw.randrange(1, 12)
            data += data[place:end] * draw.choice((1, 1, 200))
        else:
            del data[place:]
    return bytes(data)


class Outcomes:
    """What became of the requests."""

    def __init__(self) -> None:
        self.codes: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        self.forbidden: list[str] = []
        self._room = threading.Semaphore(IN_FLIGHT)

    def send(self, channel: grpc.Channel, kind: str, raw: bytes) -> None:
        """Waits where many are in flight."""
        self._room.acquire()
        future = channel.unary_unary(METHOD + kind).future(raw, timeout=10)
        future.add_done_callback(lambda done: self._ended(kind, raw, done))

    def _ended(self, kind: str, raw: bytes, done: grpc.Future[bytes]) -> None:
        problem = done.exception()
        code = problem.code().name if isinstance(problem, grpc.Call) else "OK" if problem is None else repr(problem)
        self.codes[kind][code] += 1
        if code not in ALLOWED:
            self.forbidden.append(f"{kind} {raw.hex()}: {code} {problem}")
        self._room.release()

    def wait(self) -> None:
        """Until all have ended."""
        for _ in range(IN_FLIGHT):
            self._room.acquire()
        self._room.release(IN_FLIGHT)


def check_events(store: Store, after: str) -> tuple[str, int]:
    """Takes what is in the log, all of which must fit; returns the last entry's id, and how many events it took."""
    events = 0
    while entries := store.read("fuzz", after, 20_000, 0.0):
        for batch in (entry.batch for entry in entries):
            assert batch.user.max() < USERS and batch.item.max() < ITEMS and batch.features.max() < WORLD.schema.rows
            assert min(batch.user.min(), batch.item.min(), batch.features.min()) >= 0
            assert np.isfinite(batch.time).all() and set(batch.label.tolist()) <= {0.0, 1.0}
            events += len(batch)
        after = entries[-1].id
        store.acknowledge("fuzz", after)
    return after, events


def fuzz(mutations: int, seed: int, folder: Path) -> dict[str, Counter[str]]:
    """Codes by method. Raises AssertionError for what must not be."""
    draw, outcomes, after = random.Random(seed), Outcomes(), ""
    with ExitStack() as stack:
        server = stack.enter_context(start_server(folder / "store"))
        store = open_store(server.url, run="fuzz")
        stack.callback(store.close)
        store.join("fuzz")
        for generation in (1, 2):
            publish_generation(store, generation, names=store.share(pack(NAMES)))
        where = ("--store", server.url, "--run", "fuzz")
        kept = ["replica", "replica", "router"]
        options = [["--name", "a"], ["--name", "b"], ["--shadow", "0.1", "--spool", str(folder / "spool")]]
        processes: list[Process] = [
            stack.enter_context(process(kind, *where, *given)) for kind, given in zip(kept, options, strict=True)
        ]
        channel = stack.enter_context(grpc.insecure_channel(processes[-1].said["address"]))
        stub, good = RecommenderStub(channel), RecommendRequest(user=1)
        until(lambda: code_of(stub, good) == "OK", 30)
        began = time.monotonic()
        for number in range(mutations):
            kind, request = valid(draw)
            outcomes.send(channel, kind, mutate(request.SerializeToString(), draw))
            if number % 1_000 == 999:
                after, _ = check_events(store, after)
                assert not outcomes.forbidden, outcomes.forbidden[0]
                if sys.stderr.isatty():
                    rate = number / (time.monotonic() - began)
                    print(f"\r{number + 1:,} of {mutations:,}, {rate:,.0f}/s", end="", file=sys.stderr)
        outcomes.wait()
        assert not outcomes.forbidden, outcomes.forbidden[0]
        for kind, each in zip(kept, processes, strict=True):
            megabytes = psutil.Process(each.pid).memory_info().rss / 1e6
            assert megabytes < MEGABYTES[kind], f"{kind}: {megabytes:.0f} MB"
        until(lambda: code_of(stub, good) == "OK", 10)

        def drained() -> bool:
            nonlocal after
            after, taken = check_events(store, after)
            return taken == 0

        until(drained, 10)
    return outcomes.codes


def code_of(stub: RecommenderStub, query: RecommendRequest) -> str:
    """How a query ends."""
    try:
        stub.Recommend(query, timeout=5)
    except grpc.RpcError as problem:
        assert isinstance(problem, grpc.Call)
        return problem.code().name
    return "OK"


def main() -> None:
    """Print counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=1_000_000, help="requests (default: 1,000,000)")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        codes = fuzz(flags.mutations, flags.seed, Path(folder))
    for kind, counts in codes.items():
        print(f"{kind}: " + ", ".join(f"{count:,} {code}" for code, count in counts.most_common()))


if __name__ == "__main__":
    main()
