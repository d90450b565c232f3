"""Comparisons off the user's path, against brute force on the formula that the fake replicas rank by."""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from protos.recommender_pb2 import RecommendRequest
from serving import shadow
from serving.comparison import FIELDS, SUMS, Answer, Difference, compare
from serving.router.metrics import ShadowMetrics
from serving.router.policies import RANGE, stable_hash
from simulator.types import Floats, Ints
from tests.serving import fake_replica
from tests.serving.fake_replica import ARMS, FakeReplica, publish, retrieved, scores
from tests.serving.router_under_test import Asked, healthy, running, until
from tests.store.memory_store import MemoryStore

QUERIES = 60


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    """Two replicas, duplicates 0 and 1, the second one generation ahead."""
    store = MemoryStore(10_000)
    publish(store, 5)
    replicas = [FakeReplica("a", 0, generation=4), FakeReplica("b", 1, generation=5)]
    for replica in replicas:
        replica.say(True)
        replica.announce(store)
    yield store
    for replica in replicas:
        replica.stop()


def ask_all(asked: Asked) -> None:
    healthy(asked, 2)
    for number in range(1, QUERIES + 1):
        candidates = range(number % 10, 40, 3) if number % 4 == 0 else ()
        asked.stub.Recommend(RecommendRequest(query_id=number, user=number % 30, k=5, candidates=candidates))


def compared(asked: Asked) -> float:
    return sum(
        asked.metric("flicker_compared_total", arm=arm, cause=c) for arm in ARMS for c in ("duplicate", "refresh")
    )


def ranked(line: dict, side: int) -> tuple[list[int], dict[int, np.float32]]:
    """Brute force: the slate and all scores of one side of a comparison."""
    items = line["candidates"] or retrieved(line["user"], line["generations"][side]).tolist()
    values = scores(line["arm"], line["duplicates"][side], line["generations"][side], line["user"], np.array(items))
    by_item = dict(zip(items, values, strict=True))
    return sorted(items, key=lambda item: (-by_item[item], item))[: line["k"]], by_item


def brute_force(line: dict) -> dict[str, float]:
    """The counts of one comparison, from the definitions."""
    (first, one), (second, two) = ranked(line, 0), ranked(line, 1)
    assert line["slates"] == [first, second]
    common = sorted(set(one) & set(two))
    pairs = list(itertools.combinations(common, 2))
    above = [{(a, b): (-own[a], a) < (-own[b], b) for a, b in pairs} for own in (one, two)]
    p1, p2 = ([1 / (1 + math.exp(-float(own[item]))) for item in common] for own in (one, two))
    return {
        "comparisons": 1,
        "swapped_slates": first != second,
        "swapped_first": first[0] != second[0],
        "slots": len(first),
        "swapped_slots": sum(a != b for a, b in zip(first, second, strict=True)),
        "missing_items": len(set(first) - set(second)),
        "pairs": len(pairs),
        "swapped_pairs": sum(above[0][pair] != above[1][pair] for pair in pairs),
        "candidates": len(common),
        "prediction_difference": sum(2 * abs(a - b) / (a + b) for a, b in zip(p1, p2, strict=True)),
    }


def test_counters_are_what_brute_force_gives(store: MemoryStore, tmp_path: Path) -> None:
    file = tmp_path / "comparisons.jsonl"
    with running(store, shadow=1.0, comparisons=file) as asked:
        ask_all(asked)
        until(lambda: compared(asked) == 2 * QUERIES)
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        sums: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for line in lines:
            for field, value in brute_force(line).items():
                sums[line["arm"], line["cause"]][field] += value
        assert set(sums) == {(arm, cause) for arm in ARMS for cause in ("duplicate", "refresh")}
        for (arm, cause), expected in sums.items():
            for field, value in expected.items():
                found = asked.metric(f"{SUMS[field][0]}_total", arm=arm, cause=cause)
                assert found == (pytest.approx(value) if field.startswith("prediction") else value), field
        for line in lines:
            twin = line["cause"] == "duplicate"
            assert line["generations"] == ([4, 4] if twin else [line["generations"][1] - 1, line["generations"][1]])
            assert (line["duplicates"][0] != line["duplicates"][1]) == twin


def test_the_live_gauges_are_the_quotients(store: MemoryStore) -> None:
    with running(store, shadow=1.0) as asked:
        ask_all(asked)
        until(lambda: compared(asked) == 2 * QUERIES)
        labels = {"arm": "relu", "cause": "duplicate"}
        for measure, part, whole in (("slot", "slots", "slots"), ("pair", "pairs", "pairs")):
            swapped, all_ = asked.metric(f"flicker_swapped_{part}_total", **labels), f"flicker_compared_{whole}_total"
            ratio = asked.metric("flicker_swap_ratio", **labels, measure=measure)
            assert 0 < ratio < 1 and ratio == swapped / asked.metric(all_, **labels)
        smooth = asked.metric("flicker_prediction_difference", arm="smelu:beta=1", cause="duplicate")
        assert 0 < smooth < asked.metric("flicker_prediction_difference", **labels)


def test_the_sample_is_a_share_and_the_same_again(store: MemoryStore, tmp_path: Path) -> None:
    found = []
    sampled = sum(stable_hash(0, "sample", number) < 0.3 * RANGE for number in range(1, QUERIES + 1))
    for name in ("first", "second"):
        with running(store, shadow=0.3, comparisons=tmp_path / name) as asked:
            ask_all(asked)
            until(lambda asked=asked: compared(asked) == 2 * sampled)  # type: ignore[misc]
        lines = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        found.append(sorted((line["query_id"], line["cause"]) for line in lines))
    assert found[0] == found[1] and QUERIES * 0.1 < len(found[0]) / 2 < QUERIES * 0.5


def test_a_refresh_while_samples_wait_is_what_they_are_compared_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "LINGER", 2.0)
    store, replica, file = MemoryStore(10_000), FakeReplica("a", 0, generation=4), tmp_path / "comparisons.jsonl"
    publish(store, 5)
    replica.say(True)
    replica.announce(store)
    try:
        with running(store, shadow=1.0, comparisons=file) as asked:
            healthy(asked, 1)
            for number in range(1, 11):
                asked.stub.Recommend(RecommendRequest(query_id=number, user=number, arm="relu", k=5))
            replica.generation = 5  # and 3 is gone
            replica.announce(store)
            until(lambda: asked.metric("flicker_compared_total", arm="relu", cause="refresh") == 10)
    finally:
        replica.stop()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["generations"] for line in lines] == [[4, 5]] * 10
    for line in lines:
        assert line["difference"]["swapped_pairs"] == brute_force(line)["swapped_pairs"]


def test_what_cannot_be_compared_is_counted_and_fails_nobody(store: MemoryStore) -> None:
    replica = FakeReplica("c", 2, generation=9)  # shares no generation with the others
    replica.say(True)
    replica.announce(store)
    try:
        with running(store, shadow=1.0) as asked:
            healthy(asked, 3)
            for number in range(1, 31):
                asked.stub.Recommend(RecommendRequest(query_id=number, user=1, arm="relu"))
            failed = {"cause": "duplicate", "code": "FAILED_PRECONDITION"}
            until(lambda: compared(asked) + asked.metric("flicker_comparisons_failed_total", **failed) == 60)
            assert 0 < asked.metric("flicker_comparisons_failed_total", **failed) < 30
    finally:
        replica.stop()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_reach_no_counter(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bad: float
) -> None:
    def diverged(arm: str, duplicate: int, generation: int, user: int, items: Ints) -> Floats:
        found = scores(arm, duplicate, generation, user, items)
        return np.where(user == 7, np.float32(bad), found)

    monkeypatch.setattr(fake_replica, "scores", diverged)
    with running(store, shadow=1.0, comparisons=tmp_path / "file") as asked:
        healthy(asked, 2)
        for user in (7, 8):
            asked.stub.Recommend(RecommendRequest(query_id=user, user=user, arm="relu"))
        failed = [{"cause": cause, "code": "DATA_LOSS"} for cause in ("duplicate", "refresh")]
        until(lambda: sum(asked.metric("flicker_comparisons_failed_total", **labels) for labels in failed) == 2)
        until(lambda: compared(asked) == 2)
        for cause in ("duplicate", "refresh"):
            for counter, _ in SUMS.values():
                assert math.isfinite(asked.metric(f"{counter}_total", arm="relu", cause=cause))
    assert "NaN" not in (tmp_path / "file").read_text()


def test_equal_answers_do_not_differ_and_gauges_forget() -> None:
    answer = Answer(np.array([3, 1]), np.array([1, 2, 3]), np.array([0.5, -1, 2], np.float32))
    difference = compare(answer, answer)
    assert difference == Difference(comparisons=1, slots=2, pairs=3, candidates=3)
    now = [0.0]
    registry = CollectorRegistry()
    metrics = ShadowMetrics(registry, 60.0, lambda: now[0])
    metrics.record("relu", "duplicate", difference)
    labels = {"arm": "relu", "cause": "duplicate", "measure": "pair"}
    assert registry.get_sample_value("flicker_swap_ratio", labels) == 0
    now[0] = 100.0
    assert registry.get_sample_value("flicker_swap_ratio", labels) is None


def test_answers_without_scores_are_compared_by_their_slates() -> None:
    none = np.empty(0, np.int64), np.empty(0, np.float32)
    difference = compare(Answer(np.array([1, 2, 3]), *none), Answer(np.array([1, 3]), *none))
    assert (difference.slots, difference.swapped_slots, difference.missing_items) == (2, 1, 1)
    assert (difference.pairs, difference.candidates, difference.prediction_difference) == (0, 0, 0)


def test_every_sum_has_a_counter() -> None:
    assert tuple(SUMS) == FIELDS
