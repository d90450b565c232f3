"""Compare: one query asked of several models at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from protos.recommender_pb2 import CAUSE_REFRESH, CompareRequest, RecommendRequest
from simulator.measures.differences import pd_of_logits, ranking_pd
from simulator.measures.registry import MEASURES
from tests.serving.fake_replica import FakeReplica, publish, retrieved, scores
from tests.serving.router_under_test import Asked, healthy, refusal, running
from tests.store.memory_store import MemoryStore

QUERY = RecommendRequest(query_id=3, user=4, arm="relu", k=6)


@pytest.fixture(scope="module")
def asked() -> Iterator[Asked]:
    """Three duplicates, one of them a generation ahead."""
    store = MemoryStore(10_000)
    publish(store, 3)
    replicas = [FakeReplica(name, number, generation=2 + (number == 1)) for number, name in enumerate("abc")]
    for replica in replicas:
        replica.say(True)
        replica.announce(store)
    with running(store) as router:
        healthy(router, 3)
        yield router
    for replica in replicas:
        replica.stop()


def test_all_duplicates_answer_at_one_generation(asked: Asked) -> None:
    response = asked.stub.Compare(CompareRequest(query=QUERY))
    assert [(a.answered_by.duplicate, a.answered_by.generation) for a in response.answers] == [(0, 2), (1, 2), (2, 2)]
    assert [(c.first, c.second) for c in response.comparisons] == [(0, 1), (0, 2), (1, 2)]
    items = retrieved(4, 2)
    two = [scores("relu", duplicate, 2, 4, items) for duplicate in (0, 1)]
    first = response.comparisons[0]
    assert first.measures.keys() == MEASURES.keys()
    assert first.measures["pd_candidates"] == pytest.approx(pd_of_logits(*two).mean())
    assert first.measures["pd_candidates_ranking"] == pytest.approx(ranking_pd(*two).mean())
    slates = ([item.item for item in answer.slate] for answer in response.answers[:2])
    assert first.measures["slot"] == np.mean([a != b for a, b in zip(*slates, strict=True)])
    assert first.common_candidates == 20 and not response.answers[0].HasField("scored")


def test_chosen_duplicates_answer_with_scores(asked: Asked) -> None:
    query = RecommendRequest(user=4, arm="relu", generation=2, score_all=True, candidates=[5, 9, 2])
    response = asked.stub.Compare(CompareRequest(query=query, duplicates=[2, 0]))
    assert [a.answered_by.duplicate for a in response.answers] == [0, 2]
    assert list(response.answers[0].scored.items) == [5, 9, 2] and response.query_id > 0


def test_a_refresh_is_compared_on_the_replica_that_holds_both(asked: Asked) -> None:
    response = asked.stub.Compare(CompareRequest(query=QUERY, cause=CAUSE_REFRESH))
    found = [(a.answered_by.duplicate, a.answered_by.generation) for a in response.answers]
    assert found == [(0, 1), (0, 2), (1, 2), (1, 3), (2, 1), (2, 2)]
    assert [(c.first, c.second) for c in response.comparisons] == [(0, 1), (2, 3), (4, 5)]
    assert response.comparisons[0].common_candidates == 18  # a refresh changed two


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (CompareRequest(query=RecommendRequest(duplicate=1)), "query.duplicate = 1"),
        (CompareRequest(duplicates=[3, 0]), "duplicates = 3: distinct, each from 0 to 2"),
        (CompareRequest(duplicates=[1, 1]), "duplicates = 1: distinct"),
        (CompareRequest(duplicates=[1]), "duplicates = [1]: at least 2"),
        (CompareRequest(cause=7), "cause = 7: one of"),  # type: ignore[arg-type]
        (CompareRequest(query=RecommendRequest(arm="x")), "arm = 'x'"),
    ],
)
def test_bad_requests_are_told_why(asked: Asked, request_: CompareRequest, message: str) -> None:
    code, details = refusal(lambda: asked.stub.Compare(request_))
    assert code.name == "INVALID_ARGUMENT" and details.startswith(message)


def test_a_generation_that_is_gone_is_told(asked: Asked) -> None:
    request = CompareRequest(query=RecommendRequest(generation=9))
    assert refusal(lambda: asked.stub.Compare(request))[0].name == "FAILED_PRECONDITION"


def test_the_cost_of_a_comparison_is_bounded(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.router.compare.MAX_COMPARED", 60)
    assert len(asked.stub.Compare(CompareRequest(query=QUERY)).comparisons) == 3  # of 20 candidates each
    monkeypatch.setattr("serving.router.compare.MAX_COMPARED", 59)
    for query in (QUERY, RecommendRequest(user=4, candidates=range(20))):
        code, details = refusal(lambda query=query: asked.stub.Compare(CompareRequest(query=query)))
        assert code.name == "INVALID_ARGUMENT"
        assert details.startswith("duplicates = 3 pairs of answers with 20 candidates each: at most 59")
