"""What users get wrong, through a real router and real replicas: field, value and range, never a failure of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
import pytest

from protos.recommender_pb2 import CompareRequest, FeedbackRequest, RecommendRequest, ShownItem
from tests.integration.publisher import CANDIDATES, ITEMS, USERS, Publisher
from tests.integration.system import Asked, System, refusal, until


@pytest.fixture(scope="module")
def asked(replicas: System, publisher: Publisher) -> Iterator[Asked]:
    """A router whose pool is full."""
    with replicas.router() as router:
        until(lambda: len(router.healthy()) == 3 and router.serves(), "three replicas serve")
        yield router


def assert_named(call: Callable[[], object], field: str, value: str, range_: str) -> None:
    """INVALID_ARGUMENT, and in one line `FIELD = VALUE: RANGE`."""
    code, details = refusal(call)
    said_value, _, said_range = details.removeprefix(f"{field} = ").partition(": ")
    assert code is grpc.StatusCode.INVALID_ARGUMENT and details.startswith(f"{field} = "), (code, details)
    assert value in said_value and range_ in said_range and "\n" not in details, details


def recommend(asked: Asked, **query: object) -> Callable[[], object]:
    return lambda: asked.stub.Recommend(RecommendRequest(**query), timeout=5)  # type: ignore[arg-type]


def test_what_is_wrong_is_named_by_whoever_sees_it(asked: Asked) -> None:
    """One of each kind; all of them: test_router.py, test_router_compare.py, test_router_feedback.py, test_codec.py."""
    for query, field, value, range_ in (
        ({"arm": "zelu"}, "arm", "zelu", "one of relu, smelu:beta=1"),  # by the router
        ({"context": [0]}, "context", "1 values", "3 (device, hour, position)"),  # by a replica
        ({"candidates": [5, 7, 5]}, "candidates", "5", "distinct"),
        ({"candidates": [0, ITEMS]}, "candidates", f"{ITEMS}", f"0 to {ITEMS - 1}"),
    ):
        assert_named(recommend(asked, **query), field, value, range_)
    report = FeedbackRequest(shown=[ShownItem(item=ITEMS)])
    assert_named(lambda: asked.stub.Feedback(report, timeout=5), "shown", f"{ITEMS}", f"0 to {ITEMS - 1}")
    compare = CompareRequest(duplicates=[0, 3])
    assert_named(lambda: asked.stub.Compare(compare, timeout=5), "duplicates", "3", "0 to 2")


def test_a_generation_that_is_not_there_is_no_bad_value(asked: Asked, publisher: Publisher) -> None:
    code, details = refusal(recommend(asked, generation=publisher.generation + 5))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert details.startswith(f"generation = {publisher.generation + 5}: here are ")


@pytest.mark.parametrize("raw", [b"\xff\xff\xff", b"\x08", b"\x2a\x05ab"])
def test_bytes_that_are_no_message(asked: Asked, raw: bytes) -> None:
    for method in ("Recommend", "Compare", "Feedback"):
        call = asked.channel.unary_unary(f"/flicker.v1.Recommender/{method}")
        code, details = refusal(lambda call=call: call(raw, timeout=5))  # type: ignore[misc]
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert f"{len(raw)} bytes" in details and "flicker.v1." in details


def test_the_edges_of_the_ranges_are_answered(asked: Asked) -> None:
    for request, items in (
        (RecommendRequest(user=USERS - 1), 10),
        (RecommendRequest(user=USERS), 10),
        (RecommendRequest(user=2**32 - 1), 10),
        (RecommendRequest(k=1_000), CANDIDATES),
        (RecommendRequest(candidates=[ITEMS - 1]), 1),
        (RecommendRequest(candidates=range(ITEMS), k=3), 3),
    ):
        answer = asked.stub.Recommend(request, timeout=5)
        assert len(answer.slate) == items and answer.unknown_user == (request.user >= USERS)
