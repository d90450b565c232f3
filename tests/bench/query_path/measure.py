"""The query path: everyone who answers is started, checked against the plain model, and measured in turn."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import numpy as np
from figures import Figure
from sizes import Size

from protos.recommender_pb2 import AnsweredBy, Item, RecommendRequest, RecommendResponse
from query_path import loads, refresh
from query_path.client import LoadClient
from query_path.contender import Contender, Served
from query_path.model import K, Model, build
from query_path.naive import Naive
from query_path.system import Routed, System
from simulator.store.server import start_server
from simulator.types import order

CHECKED = 20
"""Queries that each contender is asked first."""
CLOSE = 1e-3
"""Scores that differ by less may stand in either order: contenders sum in another order than the plain model."""


def measure(size: Size) -> list[Figure]:
    """All figures of the query path."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        made = build(size.sized)
        server = stack.enter_context(start_server(Path(folder) / "store"))
        one, two = (System(server, name, count, made, Path(folder)) for name, count in (("one", 1), ("two", 2)))
        for system in (one, two):
            stack.callback(system.stop)
            system.start()
        routed = Routed("routed", one, "--shadow", "0")
        contenders: dict[str, Contender] = {
            "echo": Served("echo", Path(folder), "query_path.echo", str(answer_length())),
            "naive": Naive(size.sized, Path(folder)),
            "routed": routed,
        }
        seed = "--seed", "19"  # both choose alike, and to one query a tenth of the bench's queries is sampled
        pair = Routed("two replicas", two, *seed, "--shadow", "0"), Routed("shadow", two, *seed, "--shadow", "0.1")
        for contender in (*contenders.values(), *pair):
            stack.callback(contender.stop)
            contender.start()
            if contender.name != "echo":
                check(made, contender)
        client = stack.enter_context(LoadClient(size.sized))
        figures = loads.measure(size, client, contenders)
        figures += loads.measure_shadow(size, client, *pair)
        figures += refresh.measure_p99(size, client, routed, one)
        return figures + refresh.measure_delay(size, two)


def check(made: Model, contender: Contender) -> None:
    """Raises RuntimeError where a contender gives another slate than the plain model."""
    with grpc.insecure_channel(contender.address) as channel:
        ask = channel.unary_unary(contender.method)
        for raw in made.queries()[:CHECKED]:
            query = RecommendRequest.FromString(raw)
            items = made.candidates(query.user)
            answer = RecommendResponse.FromString(ask(raw, timeout=30))
            features = made.features(query.user, list(query.context), items)
            scores = made.engine.score_events(features)[answer.answered_by.duplicate]
            best = order(scores, items)[:K]
            place = {int(item): number for number, item in enumerate(items)}
            found = [place[each.item] for each in answer.slate]
            if np.abs(scores[found] - scores[best]).max() > CLOSE:
                asked = f"query {query.query_id}"
                raise RuntimeError(f"{contender.name}: {items[found]} for {asked}, expected {items[best]}")


def answer_length() -> int:
    """Bytes of an answer of ten items."""
    slate = [Item(item=20_000, score=0.5) for _ in range(K)]
    who = AnsweredBy(replica="one-0", arm="relu", duplicate=1, generation=1)
    return len(RecommendResponse(query_id=2_000, slate=slate, answered_by=who).SerializeToString())
