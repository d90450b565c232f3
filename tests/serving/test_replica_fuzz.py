"""Whatever a query says, it is answered or told what is wrong with it; no mistake of ours comes to light."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import grpc
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from protos.recommender_pb2 import RankRequest, RecommendRequest, RecommendResponse
from tests.serving.generations import ARMS, CONTEXT, DUPLICATES, WORLD, publish_generation
from tests.serving.replica_under_test import Asking, running, wait_for_generation
from tests.store.memory_store import MemoryStore

USERS, ITEMS, MINE = 50, 120, 0
ALLOWED = {3, 4, 8, 9, 14}
"""Codes that a failure may have, by recommender.proto."""
numbers = st.one_of(st.integers(0, 60), st.integers(0, 2**32 - 1))
text = st.text(st.characters(codec="utf-8"), max_size=20)


@st.composite
def queries(draw: st.DrawFn) -> RecommendRequest:
    """Queries of which about half are good."""
    query = RecommendRequest(
        query_id=draw(st.integers(0, 2**64 - 1)),
        user=draw(st.one_of(st.integers(0, USERS), numbers)),
        context=draw(st.one_of(st.just([]), st.lists(st.integers(0, 3), max_size=4), st.lists(numbers, max_size=3))),
        k=draw(st.one_of(st.integers(0, 20), numbers)),
        arm=draw(st.one_of(st.sampled_from(ARMS), text)),
        candidates=draw(st.one_of(st.just([]), st.lists(st.integers(0, ITEMS), max_size=9), st.lists(numbers))),
        score_all=draw(st.booleans()),
    )
    for field in draw(st.sets(st.sampled_from(["duplicate", "generation"]))):
        setattr(query, field, draw(st.one_of(st.integers(0, 4), numbers)))
    return query


def is_good(query: RecommendRequest) -> bool:
    """The ranges of recommender.proto, written down a second time."""
    context, items = list(query.context), list(query.candidates)
    return (
        (not context or len(context) == len(CONTEXT))
        and all(value < field.vocabulary for value, field in zip(context, CONTEXT, strict=False))
        and query.k <= 1_000
        and query.arm in ARMS
        and len(items) <= 10_000
        and len(items) == len(set(items))
        and all(item < ITEMS for item in items)
        and (not query.HasField("duplicate") or query.duplicate == MINE)
        and (not query.HasField("generation") or query.generation in (0, 1))
    )


@pytest.fixture(scope="module")
def asking() -> Iterator[Asking]:
    assert (WORLD.encoder.user_rows.shape[0], WORLD.encoder.item_rows.shape[0], DUPLICATES) == (USERS, ITEMS, 3)
    store = MemoryStore(1_000)
    with running(store) as asking:
        for number in (0, 1):
            publish_generation(store, number)
            wait_for_generation(asking, number)
        yield asking


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(queries(), st.binary(max_size=30)), min_size=1, max_size=8))
@example([RecommendRequest(arm="relu", candidates=range(10_001))])
def test_every_query_is_answered_or_told_why_not(
    asking: Asking, caplog: pytest.LogCaptureFixture, asked: list[RecommendRequest | bytes]
) -> None:
    raw = [query if isinstance(query, bytes) else query.SerializeToString() for query in asked]
    response = asking.send(RankRequest(queries=raw).SerializeToString())
    failures = {failure.index: failure for failure in response.failures}
    assert len(response.answers) == len(asked)
    for index, (query, answer) in enumerate(zip(asked, response.answers, strict=True)):
        assert (index in failures) == (not answer)
        if isinstance(query, RecommendRequest):
            assert is_good(query) == bool(answer)
        if failure := failures.get(index):
            assert failure.code in ALLOWED and " = " in failure.message and ": " in failure.message
            assert len(failure.message.splitlines()) == 1 and "Traceback" not in failure.message
        else:
            check(RecommendResponse.FromString(answer), query)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def check(response: RecommendResponse, query: RecommendRequest | bytes) -> None:
    """An answer keeps what recommender.proto promises."""
    if isinstance(query, bytes):  # random bytes that happen to be a query
        query = RecommendRequest.FromString(query)
    places = [(-place.score, place.item) for place in response.slate]
    assert places == sorted(places) and len({item for _, item in places}) == len(places)
    candidates = len(query.candidates) or 40
    assert len(places) == min(query.k or 10, candidates)
    assert len(response.scored.items) == len(response.scored.scores) == (candidates if query.score_all else 0)
    assert (response.query_id, response.answered_by.arm) == (query.query_id, query.arm)
    assert response.unknown_user == (query.user >= USERS)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_any_bytes_for_a_call(asking: Asking, caplog: pytest.LogCaptureFixture, raw: bytes) -> None:
    try:
        asking.send(raw)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error.details()
        assert " = " in (error.details() or "")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
