"""Router and replicas as real processes on a real store: live comparisons, repeated offline from the snapshots."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from pathlib import Path

import grpc
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from prometheus_client.parser import text_string_to_metric_families

from protos.recommender_pb2 import FeedbackRequest, ListReplicasRequest, RecommendRequest, ShownItem
from protos.recommender_pb2_grpc import RecommenderStub
from serving.comparison import Answer
from simulator.config import NO_NOISE, ExperimentConfig, ModelConfig, SyntheticConfig
from simulator.measures.registry import MEASURES, Answers, compare
from simulator.models.engine import tensors_of
from simulator.models.engines import Engines
from simulator.models.ranker import Ranker, Rankers
from simulator.models.specs import parse_arms
from simulator.store.protocol import Store
from simulator.store.redis import open_store
from simulator.store.server import start_server
from simulator.types import Doubles, order
from simulator.world.stream import SyntheticWorld
from tests.serving.processes import process
from tests.serving.router_under_test import until
from trainer.publish import Engagements, about, parts

ARMS, MODEL = ("relu", "smelu:beta=1"), ModelConfig(dim=4, hidden=(16, 8), batch=64)
CONFIG = ExperimentConfig(arms=ARMS, model=MODEL, noise=NO_NOISE, duplicates=2, candidates=30)
QUERIES = 80
SUMMED = {"rbo", "pd_candidates", "pd_candidates_ranking"}
"""Measures whose numerators are no counts."""


@pytest.fixture(scope="module")
def world() -> SyntheticWorld:
    return SyntheticWorld(SyntheticConfig(events=20_000, users=60, items=80), seed=1)


def publish(store: Store, world: SyntheticWorld, engines: Engines, generation: int) -> None:
    """Weights that differ between duplicates and generations; candidates of the world's first events."""
    torch.manual_seed(generation)
    for engine in engines.engines:
        engine.weights.table.normal_(0, 0.5)
        engine.weights.table[:, 0] = 0
    engagements = Engagements(5_000)
    engagements.add(next(world.batches(8_000 + 2_000 * generation)))
    said = {"generation": generation, "events": 1_000 * generation, "published": 1.0, "quality": {}}
    made = parts(engines, CONFIG, world, engagements, store.run, generation)
    store.publish(generation, made, about(engines, CONFIG, world, said))


class Offline:
    """All models of the snapshots that are in the store."""

    def __init__(self, store: Store, world: SyntheticWorld) -> None:
        self._store, self._world, self._rankers = store, world, dict[tuple[int, int, int], Ranker]()

    def answer(self, line: dict, side: int) -> Answer:
        """What a model answers to the query of a recorded comparison."""
        generation, duplicate = line["generations"][side], line["duplicates"][side]
        tables = safetensors.numpy.load(bytes(self._store.fetch(generation, "catalog")))
        arm = ARMS.index(line["arm"])
        if (generation, duplicate, arm) not in self._rankers:
            weights = safetensors.torch.load(bytes(self._store.fetch(generation, f"duplicate/{duplicate}")))
            rows = tables["user_rows"], tables["item_rows"]
            engine, own = self._store.about(generation)["engines"][arm], tensors_of(weights, arm)
            made = Rankers()(self._world.schema, ARMS[arm], engine, MODEL, own, *rows)
            self._rankers[generation, duplicate, arm] = made
        first = [self._world.schema.first_row(name) for name in ("device", "hour", "position")]
        context = np.array([first], np.int32) + np.array([line["context"] or [0, 0, 0]], np.int32)
        items = np.array(line["candidates"]) if line["candidates"] else tables["candidates"][
            tables["segment"][line["user"]]]  # fmt: skip
        ranker = self._rankers[generation, duplicate, arm]
        scores = ranker.scores(np.array([line["user"]]), context, items[None])[0]
        return Answer(items[order(scores, items)][: line["k"] or 10], items, scores)


def page(address: str) -> dict[tuple[str, ...], float]:
    """Counters of comparisons by name, arm, cause and measure."""
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        (sample.name, *(sample.labels[label] for label in ("arm", "cause", "measure"))): sample.value
        for family in families
        for sample in family.samples
        if "measure" in sample.labels and sample.name.endswith("_total")
    }


def test_live_comparisons_repeated_offline_give_the_same_counters(tmp_path: Path, world: SyntheticWorld) -> None:
    engines = Engines(world.schema, parse_arms(ARMS), CONFIG)
    with start_server(tmp_path / "store") as server:
        store = open_store(server.url, run="test")
        publish(store, world, engines, 1)
        where, file = ("--store", server.url, "--run", "test"), tmp_path / "comparisons.jsonl"
        recorded = ("--shadow", "1", "--comparisons", str(file))
        with (
            process("replica", *where, "--name", "a"),
            process("replica", *where, "--name", "b"),
            process("router", *where, *recorded) as router,
            grpc.insecure_channel(router.said["address"]) as channel,
        ):
            stub = RecommenderStub(channel)

            def all_serve(generation: int) -> bool:
                states = stub.ListReplicas(ListReplicasRequest()).replicas
                return [s.generation for s in states if s.healthy] == [generation] * 2

            until(lambda: all_serve(1), 30)
            publish(store, world, engines, 2)
            until(lambda: all_serve(2), 30)
            for number in range(1, QUERIES + 1):
                context = (number % 3, number % 24, 0) if number % 2 else ()
                candidates = range(number % 5, 80, 4) if number % 3 == 0 else ()
                query = RecommendRequest(query_id=number, user=number % 60, context=context, candidates=candidates)
                stub.Recommend(query, timeout=5)
            metrics = router.said["metrics"]
            slates = "flicker_compared_total", "slate"
            until(lambda: sum(v for k, v in page(metrics).items() if (k[0], k[-1]) == slates) >= 160)
            check_counters(page(metrics), file, Offline(store, world))
            check_feedback(store, world, stub)
        store.close()


def check_counters(found: dict[tuple[str, ...], float], file: Path, offline: Offline) -> None:
    """The recorded comparisons, repeated, add up to the counters, each of them."""
    expected: Counter[tuple[str, ...]] = Counter()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        answers = offline.answer(line, 0), offline.answer(line, 1)
        assert [answer.slate.tolist() for answer in answers] == line["slates"]
        for measure, sums in zip(MEASURES, compared(*answers).tolist(), strict=True):
            for name, part in zip(("differences", "compared"), sums, strict=True):
                expected[f"flicker_{name}_total", line["arm"], line["cause"], measure] += part
    assert len(lines) == 2 * QUERIES and {key[1:3] for key in expected} == {
        (arm, cause) for arm in ARMS for cause in ("duplicate", "refresh")
    }
    for key, value in expected.items():
        # the last bit of a sum depends on the order of its terms; counts are whole numbers
        summed = key[0] == "flicker_differences_total" and key[-1] in SUMMED
        assert found[key] == (pytest.approx(value, rel=1e-12) if summed else value), key
    assert found.keys() == expected.keys() and found["flicker_differences_total", "relu", "duplicate", "pair"] > 0


def compared(first: Answer, second: Answer) -> Doubles:
    """Their measures [measures, 2] one pair at a time, as an experiment measures them."""
    common = np.intersect1d(first.items, second.items)
    k = min(len(first.slate), len(second.slate))
    one, two = (
        Answers(each.slate[None, :k], common[None], each.scores[[each.items.tolist().index(i) for i in common]][None])
        for each in (first, second)
    )
    return compare(one, two)[..., 0]


def check_feedback(store: Store, world: SyntheticWorld, stub: RecommenderStub) -> None:
    """The router makes the events that the world itself would have made of the same slate."""
    query = world.queries(1, 20, 10_000, "test")[0]
    items = query.candidates[:12]
    clicks = world.click(query, items, "test")
    first = [world.schema.first_row(name) for name in ("device", "hour", "position")]
    shown = [ShownItem(item=item, clicked=bool(click)) for item, click in zip(items.tolist(), clicks, strict=True)]
    context = [row - start for row, start in zip(query.context, first, strict=True)]
    report = FeedbackRequest(user=query.user, context=context, shown=shown, time=query.time)
    store.join("test")
    assert stub.Feedback(report, timeout=5).accepted == 12
    until(lambda: store.waiting() == 12)
    events, expected = store.read("test", "", 100, 0)[0].batch, world.feedback(query, items, clicks)
    for column in ("user", "item", "time", "features", "label"):
        np.testing.assert_array_equal(getattr(events, column), getattr(expected, column))
