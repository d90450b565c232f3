"""What a query may say, and what an answer says."""

from __future__ import annotations

import numpy as np
import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from protos.recommender_pb2 import (
    AnsweredBy,
    Item,
    PackedResponse,
    RecommendRequest,
    RecommendResponse,
    ScoredCandidates,
)
from serving.codec import (
    UNKNOWN_USER,
    Ranges,
    Refusal,
    answer,
    answered_by,
    length,
    parse,
    scored_of,
    slate_of,
    with_user,
    without_scores,
)
from simulator.types import Slate

FIELDS = [
    {"name": "user", "side": "user", "vocabulary": 5, "slots": 1},
    {"name": "item", "side": "item", "vocabulary": 7, "slots": 1},
    {"name": "device", "side": "context", "vocabulary": 3, "slots": 1},
    {"name": "places", "side": "context", "vocabulary": 4, "slots": 2},
]
ABOUT = {"arms": ["relu", "smelu:beta=1"], "duplicates": 3, "fields": FIELDS}
RANGES = Ranges.of(ABOUT, users=5, items=7)


def test_ranges_are_those_of_the_generation() -> None:
    assert (RANGES.arms, RANGES.users, RANGES.items, RANGES.duplicates) == (("relu", "smelu:beta=1"), 5, 7, 3)


@pytest.mark.parametrize(
    ("values", "rows"),
    [
        ([], (13, 16, 0)),  # rows: 0 padding, 1-5 users, 6-12 items, 13-15 devices, 16-19 places
        ([0, 0], (13, 16, 0)),
        ([2, 3], (15, 19, 0)),
    ],
)
def test_a_context_becomes_table_rows(values: list[int], rows: tuple[int, ...]) -> None:
    assert RANGES.context_rows(values) == rows


def test_a_log_without_context_fields_takes_none() -> None:
    bare = Ranges.of(ABOUT | {"fields": FIELDS[:2]}, users=5, items=7)
    assert bare.context_rows([]) == ()
    with pytest.raises(Refusal, match=r"^context = 1 values: 0 "):
        bare.context_rows([0])


@pytest.mark.parametrize(
    ("check", "field", "message"),
    [
        (lambda: RANGES.arm("gelu"), "arm", "arm = 'gelu': one of relu, smelu:beta=1"),
        (lambda: RANGES.arm(""), "arm", "arm = '': one of relu, smelu:beta=1"),
        (lambda: RANGES.context_rows([1]), "context", "context = 1 values: 2 (device, places), or none"),
        (lambda: RANGES.context_rows([3, 0]), "context", "context = 3: 0 to 2 for device"),
        (lambda: RANGES.context_rows([0, 4]), "context", "context = 4: 0 to 3 for places"),
        (lambda: RANGES.candidates([1, 7]), "candidates", "candidates = 7: 0 to 6"),
        (
            lambda: RANGES.candidates([4, 2, 4]),
            "candidates",
            "candidates = 4: distinct items; this one is there twice",
        ),
        (lambda: RANGES.candidates(range(10_001)), "candidates", "candidates = 10001 items: at most 10,000"),
        (lambda: length(1_001), "k", "k = 1001: 1 to 1,000, or 0 for 10"),
        (
            lambda: parse(RecommendRequest, b"\xff\xff", "query"),
            "query",
            "query = 2 bytes: the bytes of a flicker.v1.RecommendRequest",
        ),
    ],
)
def test_a_bad_value_is_named_with_its_range(check, field: str, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Refusal) as refusal:
        check()
    assert (refusal.value.code, refusal.value.field) == (StatusCode.INVALID_ARGUMENT, field)
    assert str(refusal.value) == refusal.value.message == message


def test_values_at_the_edges_pass() -> None:
    assert (RANGES.arm("smelu:beta=1"), length(0), length(1), length(1_000)) == (1, 10, 1, 1_000)
    assert RANGES.candidates([6, 0, 3]).tolist() == [6, 0, 3]


def test_users_whom_the_world_has_not_are_one() -> None:
    assert [RANGES.known(user) for user in (0, 4, 5, 2**32 - 1)] == [0, 4, 5, 5]


def test_whatever_a_text_holds_the_error_is_one_short_line() -> None:
    with pytest.raises(Refusal) as refusal:
        RANGES.arm("re\nlu\x00" * 1_000)
    assert len(refusal.value.message.splitlines()) == 1 and len(refusal.value.message) < 200


def test_an_answer_is_one_message_though_built_from_two() -> None:
    slate = Slate(np.array([4, 2]), np.array([1.5, -0.1], np.float32))
    scored = np.array([2, 4]), np.array([-0.1, 1.5], np.float32)
    raw = answer(9, slate, answered_by("a", "relu", 0, 0), scored)
    response = RecommendResponse.FromString(raw)
    assert response.query_id == 9
    assert list(response.slate) == [Item(item=4, score=1.5), Item(item=2, score=np.float32(-0.1))]
    assert response.answered_by == AnsweredBy(replica="a", arm="relu")
    back, (items, scores) = slate_of(response), scored_of(PackedResponse.FromString(raw))
    np.testing.assert_array_equal(back.items, slate.items)
    np.testing.assert_array_equal(back.scores, slate.scores)  # bit for bit
    np.testing.assert_array_equal(items, scored[0])
    np.testing.assert_array_equal(scores, scored[1])
    unknown = answer(9, slate, answered_by("a", "relu", 0, 0) + UNKNOWN_USER, scored)
    assert RecommendResponse.FromString(without_scores(unknown)).unknown_user and not response.unknown_user
    assert not RecommendResponse.FromString(answer(9, slate, b"")).HasField("scored")
    assert [len(part) for part in scored_of(PackedResponse.FromString(answer(9, slate, b"")))] == [0, 0]


@pytest.mark.parametrize("user", [0, 1, 127, 128, 2**31, 2**32 - 1])
def test_the_user_that_is_appended_wins(user: int) -> None:
    raw = RecommendRequest(user=3, user_id="u-3").SerializeToString() + with_user(user)
    assert RecommendRequest.FromString(raw) == RecommendRequest(user=user, user_id="u-3")


def test_what_is_appended_to_a_query_wins() -> None:
    raw = RecommendRequest(user=3, arm="gelu", candidates=[1]).SerializeToString()
    query = RecommendRequest.FromString(raw + RecommendRequest(query_id=7, arm="relu").SerializeToString())
    assert query == RecommendRequest(user=3, arm="relu", candidates=[1], query_id=7)


@given(
    st.integers(1, 2**64 - 1),
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.floats(width=32, allow_nan=False)), min_size=1, max_size=300),
)
def test_answers_written_by_hand_are_what_protobuf_reads(query_id: int, places: list[tuple[int, float]]) -> None:
    items, scores = np.array([item for item, _ in places]), np.array([score for _, score in places], np.float32)
    raw = answer(query_id, Slate(items[:20], scores[:20]), answered_by("a", "relu", 1, 2), (items, scores))
    expected = RecommendResponse(
        query_id=query_id,
        slate=[Item(item=item, score=score) for item, score in places[:20]],
        answered_by=AnsweredBy(replica="a", arm="relu", duplicate=1, generation=2),
        scored=ScoredCandidates(items=[item for item, _ in places], scores=[score for _, score in places]),
    )
    response = RecommendResponse.FromString(raw)
    assert response == expected
    found = scored_of(PackedResponse.FromString(expected.SerializeToString()))
    np.testing.assert_array_equal(found[0], items)
    assert found[1].tobytes() == scores.tobytes()
    expected.ClearField("scored")
    assert RecommendResponse.FromString(without_scores(raw)) == expected
