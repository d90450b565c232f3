"""What users get wrong, through a real router and real replicas: field, value and range, never a failure of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
import pytest

from protos.recommender_pb2 import CompareRequest, FeedbackRequest, RecommendRequest, ShownItem
from tests.integration.publisher import CANDIDATES, ITEMS, USERS, Publisher
from tests.integration.system import Asked, System, refusal, until

ONE = [ShownItem(item=1)]


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


@pytest.mark.parametrize(
    ("query", "field", "value", "range_"),
    [
        ({"arm": "zelu"}, "arm", "zelu", "one of relu, smelu:beta=1"),
        ({"k": 1_001}, "k", "1001", "1 to 1,000"),
        ({"context": [0]}, "context", "1 values", "3 (device, hour, position)"),
        ({"context": [0, 99, 0]}, "context", "99", "for hour"),
        ({"candidates": [5, 7, 5]}, "candidates", "5", "distinct"),
        ({"candidates": [0, ITEMS]}, "candidates", f"{ITEMS}", f"0 to {ITEMS - 1}"),
        ({"candidates": range(10_001)}, "candidates", "10001", "at most 10,000"),
        ({"duplicate": 3}, "duplicate", "3", "0 to 2"),
    ],
)
def test_bad_values(asked: Asked, query: dict[str, object], field: str, value: str, range_: str) -> None:
    request = RecommendRequest(**query)  # type: ignore[arg-type]
    assert_named(lambda: asked.stub.Recommend(request, timeout=5), field, value, range_)


def test_generations_that_are_not_there(asked: Asked, publisher: Publisher) -> None:
    request = RecommendRequest(generation=publisher.generation + 5)
    code, details = refusal(lambda: asked.stub.Recommend(request, timeout=5))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert details.startswith(f"generation = {publisher.generation + 5}: here are ")


@pytest.mark.parametrize("method", ["Recommend", "Compare", "Feedback"])
@pytest.mark.parametrize("raw", [b"\xff\xff\xff", b"\x08", b"\x2a\x05ab"])
def test_bytes_that_are_no_message(asked: Asked, method: str, raw: bytes) -> None:
    call = asked.channel.unary_unary(f"/flicker.v1.Recommender/{method}")
    code, details = refusal(lambda: call(raw, timeout=5))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"{len(raw)} bytes" in details and "flicker.v1." in details


@pytest.mark.parametrize(
    ("report", "field", "value", "range_"),
    [
        ({"shown": []}, "shown", "0", "1 to 1,000 items"),
        ({"shown": [ShownItem(item=ITEMS)]}, "shown", f"{ITEMS}", f"0 to {ITEMS - 1}"),
        ({"shown": ONE, "time": float("nan")}, "time", "nan", "finite"),
        ({"shown": ONE, "time": -1.0}, "time", "-1.0", "0 or more"),
        ({"shown": ONE, "context": [0] * 9}, "context", "9 values", "3 (device, hour, position)"),
    ],
)
def test_bad_feedback(asked: Asked, report: dict[str, object], field: str, value: str, range_: str) -> None:
    request = FeedbackRequest(**report)  # type: ignore[arg-type]
    assert_named(lambda: asked.stub.Feedback(request, timeout=5), field, value, range_)


@pytest.mark.parametrize(
    ("request_", "field", "value", "range_"),
    [
        (CompareRequest(duplicates=[0, 3]), "duplicates", "3", "0 to 2"),
        (CompareRequest(duplicates=[1, 1]), "duplicates", "1", "distinct"),
        (CompareRequest(duplicates=[1]), "duplicates", "1", "at least 2"),
        (CompareRequest(query=RecommendRequest(duplicate=0)), "query.duplicate", "0", "not to be set"),
        (CompareRequest(cause=7), "cause", "7", "CAUSE_UNSPECIFIED"),  # type: ignore[arg-type]
    ],
)
def test_bad_comparisons(asked: Asked, request_: CompareRequest, field: str, value: str, range_: str) -> None:
    assert_named(lambda: asked.stub.Compare(request_, timeout=5), field, value, range_)


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
