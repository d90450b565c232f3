"""Feedback becomes events of the log, each exactly once, whatever the store does meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from protos.recommender_pb2 import FeedbackRequest, ShownItem
from simulator.store.protocol import StoreAway
from simulator.types import Batch, Schema
from tests.serving.fake_replica import FIELDS, publish
from tests.serving.router_under_test import Asked, refusal, running, until
from tests.store.memory_store import MemoryStore

SCHEMA = Schema(tuple(FIELDS))


class Unreliable(MemoryStore):
    """A store that can be away, before or after it did what it was asked."""

    away_before = away_after = False

    def append(self, batch: Batch, *, writer: str = "", mark: str = "", keys: Sequence[bytes] = ()) -> str:
        if self.away_before:
            raise StoreAway("the store is away")
        id = super().append(batch, writer=writer, mark=mark, keys=keys)
        if self.away_after:
            self.away_after = False
            raise StoreAway("the answer was lost")
        return id

    def events(self) -> Batch:
        return Batch.concatenate([entry.batch for entry in self.read("test", "", 10_000, 0)])


@pytest.fixture
def store() -> Unreliable:
    store = Unreliable(10_000)
    store.join("test")
    publish(store, 1)
    return store


@pytest.fixture
def asked(store: Unreliable) -> Iterator[Asked]:
    with running(store, feedback_buffer=1_000) as router:
        until(lambda: router.metric("flicker_router_generation") == 1)
        yield router


def shown(user: int = 2, items: int = 7, time: float = 5.0, context: tuple[int, ...] = (1, 4)) -> FeedbackRequest:
    places = [ShownItem(item=10 + place, clicked=place == 1) for place in range(items)]
    return FeedbackRequest(user=user, context=context, shown=places, time=time)


def test_a_shown_slate_becomes_events_with_their_positions(asked: Asked, store: Unreliable) -> None:
    assert asked.stub.Feedback(shown()).accepted == 7
    until(lambda: store.waiting() == 7)
    events = store.events()
    assert events.user.tolist() == [2] * 7 and events.item.tolist() == list(range(10, 17))
    assert events.label.tolist() == [0, 1, 0, 0, 0, 0, 0] and events.time.tolist() == [5.0] * 7
    expected = [
        [SCHEMA.first_row("user") + 2, SCHEMA.first_row("item") + item, SCHEMA.first_row("device") + 1,
         SCHEMA.first_row("position") + min(place, 4)]
        for place, item in enumerate(range(10, 17))
    ]  # fmt: skip
    assert events.features.tolist() == expected
    assert asked.metric("flicker_feedback_events_total", clicked="true") == 1
    assert asked.metric("flicker_feedback_events_total", clicked="false") == 6


def test_while_the_store_is_away_feedback_waits_up_to_a_bound_then_is_refused(asked: Asked, store: Unreliable) -> None:
    store.away_before = True
    for user in range(10):
        asked.stub.Feedback(many(user))
    assert asked.metric("flicker_feedback_buffered") == 1_000
    code, details = refusal(lambda: asked.stub.Feedback(shown()))
    assert code.name == "UNAVAILABLE" and "1000 of at most 1000 events wait" in details
    assert asked.metric("flicker_feedback_refused_total") == 7
    store.away_before = False
    until(lambda: asked.metric("flicker_feedback_buffered") == 0)
    events = store.events()
    assert sorted(events.user.tolist()) == sorted(np.repeat(np.arange(10), 100).tolist())
    assert all(np.all(np.diff(entry.batch.time) >= 0) for entry in store.read("test", "", 10_000, 0))
    assert asked.stub.Feedback(shown()).accepted == 7


def many(user: int) -> FeedbackRequest:
    return FeedbackRequest(user=user, shown=[ShownItem(item=1)] * 100, time=100.0 - user)


def test_an_append_whose_answer_was_lost_is_there_once(asked: Asked, store: Unreliable) -> None:
    store.away_after = True
    asked.stub.Feedback(shown())
    until(lambda: asked.metric("flicker_feedback_buffered") == 0)
    assert store.waiting() == 7


def test_what_was_taken_is_handed_over_at_the_end(store: Unreliable) -> None:
    with running(store) as asked:
        until(lambda: asked.metric("flicker_router_generation") == 1)
        for user in range(20):
            asked.stub.Feedback(shown(user))
    assert store.waiting() == 140


def test_a_world_that_replays_a_log_counts_feedback_and_learns_none() -> None:
    store = Unreliable(10_000)
    publish(store, 1, world="movietweetings")
    with running(store) as asked:
        until(lambda: asked.metric("flicker_router_generation") == 1)
        assert asked.stub.Feedback(shown()).accepted == 0
        assert asked.metric("flicker_feedback_events_total", clicked="false") == 6
    assert store.waiting() == 0


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (FeedbackRequest(user=1), "shown = 0: 1 to 1,000"),
        (shown(user=30), "user = 30: 0 to 29"),
        (shown(items=31), "shown = 40: item 0 to 39"),
        (shown(context=(1,)), "context = 1 values: 2 (device, position), or none"),
        (shown(context=(3, 0)), "context = 3: 0 to 2 for device"),
        (shown(time=float("nan")), "time = nan"),
        (shown(time=-1.0), "time = -1.0"),
    ],
)
def test_bad_feedback_is_told_why(asked: Asked, store: Unreliable, request_: FeedbackRequest, message: str) -> None:
    code, details = refusal(lambda: asked.stub.Feedback(request_))
    assert code.name == "INVALID_ARGUMENT" and details.startswith(message)
    assert store.waiting() == 0
