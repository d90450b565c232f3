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
from serving import comparison
from serving.comparison import Answer, compare_pairs
from serving.metrics import ShadowMetrics
from serving.router.router import RANGE, stable_hash
from simulator.measures.registry import MEASURES
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
        asked.metric("flicker_compared_total", arm=arm, cause=c, measure="slate")
        for arm in ARMS
        for c in ("duplicate", "refresh")
    )


def ranked(line: dict, side: int) -> tuple[list[int], dict[int, np.float32]]:
    """Brute force: the slate and all scores of one side of a comparison."""
    items = line["candidates"] or retrieved(line["user"], line["generations"][side]).tolist()
    values = scores(line["arm"], line["duplicates"][side], line["generations"][side], line["user"], np.array(items))
    by_item = dict(zip(items, values, strict=True))
    return sorted(items, key=lambda item: (-by_item[item], item))[: line["k"]], by_item


def brute_force(line: dict) -> dict[str, tuple[float, float]]:
    """Numerators and denominators of one comparison, from the definitions."""
    (first, one), (second, two) = ranked(line, 0), ranked(line, 1)
    assert line["slates"] == [first, second]
    common = sorted(set(one) & set(two))
    pairs = list(itertools.combinations(common, 2))
    above = [{(a, b): (-own[a], a) < (-own[b], b) for a, b in pairs} for own in (one, two)]
    p1, p2 = ([1 / (1 + math.exp(-float(own[item]))) for item in common] for own in (one, two))
    k, both = len(first), [item for item in first if item in second]
    within = list(itertools.combinations(both, 2))
    return {
        "slot": (sum(a != b for a, b in zip(first, second, strict=True)), k),
        "top1": (float(first[0] != second[0]), 1),
        "set": (k - len(both), k),
        "slate": (float(first != second), 1),
        "slate_pair": (sum(second.index(a) > second.index(b) for a, b in within), len(within)),
        "pair": (sum(above[0][pair] != above[1][pair] for pair in pairs), len(pairs)),
        "pd_candidates": (sum(2 * abs(a - b) / (a + b) for a, b in zip(p1, p2, strict=True)), len(common)),
    }


def test_counters_are_what_brute_force_gives(store: MemoryStore, tmp_path: Path) -> None:
    file = tmp_path / "comparisons.jsonl"
    with running(store, shadow=1.0, comparisons=file) as asked:
        ask_all(asked)
        until(lambda: compared(asked) == 2 * QUERIES)
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        sums: dict[tuple[str, str, str], Floats] = defaultdict(lambda: np.zeros(2))
        for line in lines:
            assert line["difference"].keys() == MEASURES.keys()
            for measure, parts in brute_force(line).items():
                sums[line["arm"], line["cause"], measure] += parts
                assert line["difference"][measure] == pytest.approx(parts, rel=1e-5 if measure[:2] == "pd" else 0)
        assert {key[:2] for key in sums} == {(arm, cause) for arm in ARMS for cause in ("duplicate", "refresh")}
        for (arm, cause, measure), expected in sums.items():
            found = [
                asked.metric(f"flicker_{name}_total", arm=arm, cause=cause, measure=measure)
                for name in ("differences", "compared")
            ]
            assert found == pytest.approx(expected, rel=1e-6 if measure[:2] == "pd" else 0), measure
        for line in lines:
            twin = line["cause"] == "duplicate"
            assert line["generations"] == ([4, 4] if twin else [line["generations"][1] - 1, line["generations"][1]])
            assert (line["duplicates"][0] != line["duplicates"][1]) == twin


def test_the_live_gauges_are_the_quotients(store: MemoryStore) -> None:
    with running(store, shadow=1.0) as asked:
        ask_all(asked)
        until(lambda: compared(asked) == 2 * QUERIES)
        labels = {"arm": "relu", "cause": "duplicate"}
        for measure in MEASURES.values():
            ratio = asked.metric("flicker_swap_ratio", **labels, measure=measure.name)
            parts = (
                asked.metric(f"flicker_{name}_total", **labels, measure=measure.name)
                for name in ("differences", "compared")
            )
            assert ratio == (next(parts) / next(parts) if measure.swap else 0)
            assert 0 < ratio <= 1 or not measure.swap
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
    monkeypatch.setattr(comparison, "LINGER", 2.0)
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
            until(lambda: compared(asked) == 10)
    finally:
        replica.stop()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["generations"] for line in lines] == [[4, 5]] * 10
    for line in lines:
        assert line["difference"]["pair"] == list(brute_force(line)["pair"])


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


def test_a_replica_that_came_back_has_no_generation_yet_and_is_not_asked(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    replica = FakeReplica("c", 2, generation=-1)
    replica.announce(store)
    replica.generation = 5  # what it serves by now; the store does not say so yet
    replica.say(True)
    try:
        with running(store, shadow=1.0) as asked:
            healthy(asked, 3)
            for number in range(1, QUERIES + 1):
                asked.stub.Recommend(RecommendRequest(query_id=number, user=1, arm="relu"))
            until(lambda: compared(asked) > QUERIES)
    finally:
        replica.stop()
    assert not [record for record in caplog.records if record.exc_info]


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
            for measure in MEASURES:
                labels = {"arm": "relu", "cause": cause, "measure": measure}
                assert math.isfinite(asked.metric("flicker_differences_total", **labels))
    assert "NaN" not in (tmp_path / "file").read_text()


def test_equal_answers_do_not_differ_and_gauges_forget() -> None:
    answer = Answer(np.array([3, 1]), np.array([1, 2, 3]), np.array([0.5, -1, 2], np.float32))
    (difference,) = compare_pairs([(answer, answer)])
    assert difference[:, 0].tolist() == [0] * len(MEASURES)
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
    (sums,) = compare_pairs([(Answer(np.array([1, 2, 3]), *none), Answer(np.array([1, 3]), *none))])
    found = dict(zip(MEASURES, sums.tolist(), strict=True))
    assert found["slot"] == found["set"] == [1, 2] and found["slate"] == [1, 1]
    assert found["pair"] == found["pd_candidates"] == found["pd_candidates_ranking"] == [0, 0]
