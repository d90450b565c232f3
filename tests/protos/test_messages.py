"""Messages keep what they are given: every field, absent from zero, unknown fields, and what a router appends."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import json_format, message_factory

from protos.recommender_pb2 import Item, RankRequest, RecommendRequest, RecommendResponse, ReplicaState
from tests.protos.filled import MESSAGES, UNKNOWN, filled


@pytest.mark.parametrize("name", MESSAGES)
def test_every_field_survives_the_wire_and_json(name: str) -> None:
    message = filled(MESSAGES[name])
    assert len(message.ListFields()) == len(MESSAGES[name].fields)
    kind = message_factory.GetMessageClass(MESSAGES[name])
    assert kind.FromString(message.SerializeToString()) == message
    assert json_format.Parse(json_format.MessageToJson(message), kind()) == message


@pytest.mark.parametrize("name", MESSAGES)
def test_field_numbers_take_one_byte(name: str) -> None:
    assert all(field.number <= 15 for field in MESSAGES[name].fields)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (RecommendRequest(duplicate=0), "duplicate"),
        (RecommendRequest(generation=0), "generation"),
        (ReplicaState(generation=0), "generation"),
    ],
)
def test_zero_is_told_from_absent(message: RecommendRequest, field: str) -> None:
    kind = type(message)
    assert kind.FromString(message.SerializeToString()).HasField(field)
    assert not kind.FromString(kind().SerializeToString()).HasField(field)


def test_scores_keep_their_32_bits() -> None:
    scores = np.random.default_rng(0).normal(0, 5, 1_000).astype(np.float32)
    sent = RecommendResponse(slate=[Item(item=i, score=score) for i, score in enumerate(scores)])
    sent.scored.scores.extend(scores)
    got = RecommendResponse.FromString(sent.SerializeToString())
    assert np.array([item.score for item in got.slate], np.float32).tobytes() == scores.tobytes()
    assert np.array(got.scored.scores, np.float32).tobytes() == scores.tobytes()


def test_what_a_router_appends_wins_and_the_rest_stays() -> None:
    query = RecommendRequest(user=4, context=[1, 2], k=5, arm="relu", candidates=[7, 8, 9], generation=3)
    decided = RecommendRequest(query_id=77, arm="smelu:beta=1", duplicate=0, generation=0, score_all=True)
    got = RecommendRequest.FromString(query.SerializeToString() + decided.SerializeToString())
    assert got == RecommendRequest(
        query_id=77, user=4, context=[1, 2], k=5, arm="smelu:beta=1", candidates=[7, 8, 9], duplicate=0, generation=0,
        score_all=True,
    )  # fmt: skip


def test_unknown_fields_survive_appending_and_batching() -> None:
    query = RecommendRequest(user=4).SerializeToString() + UNKNOWN
    batch = RankRequest(queries=[query + RecommendRequest(query_id=1).SerializeToString()])
    got = RecommendRequest.FromString(RankRequest.FromString(batch.SerializeToString()).queries[0])
    assert (got.user, got.query_id) == (4, 1)
    assert UNKNOWN in got.SerializeToString()


def test_an_answer_is_never_empty_and_so_told_from_a_failed_one() -> None:
    answer = RecommendResponse()
    answer.answered_by.SetInParent()
    assert RecommendResponse().SerializeToString() == b"" != answer.SerializeToString()
