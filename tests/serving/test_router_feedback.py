"""Feedback becomes events of the log, each exactly once, whatever the store does meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
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

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.hangs = threading.Event()  # while it is not set
        self.hangs.set()

    def append(self, batch: Batch, *, writer: str = "", mark: str = "", keys: Sequence[bytes] = ()) -> str:
        self.hangs.wait()
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
    with running(store) as router:
        until(lambda: router.metric("flicker_router_generation") == 1)
        yield router


def shown(
    user: int = 2,
    items: int = 7,
    time: float = 5.0,
    context: tuple[int, ...] = (1, 4),
    query: int = 0,
    client: str = "",
) -> FeedbackRequest:
    places = [ShownItem(item=10 + place, clicked=place == 1) for place in range(items)]
    return FeedbackRequest(query_id=query, user=user, context=context, shown=places, time=time, client=client)


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


def test_without_a_spool_what_the_store_does_not_take_is_refused(asked: Asked, store: Unreliable) -> None:
    store.away_before = True
    for _ in range(2):
        code, details = refusal(lambda: asked.stub.Feedback(shown()))
        assert code.name == "UNAVAILABLE" and details == "the store is away; report again later"
    assert asked.metric("flicker_feedback_refused_total") == 14
    assert asked.metric("flicker_store_errors_total") == 1, "the second was refused at once"
    store.away_before = False
    until(lambda: accepted(asked, shown()) == 7)
    assert store.waiting() == 7, "what was refused is not there"


def accepted(asked: Asked, request: FeedbackRequest) -> int:
    try:
        return int(asked.stub.Feedback(request, timeout=5).accepted)
    except grpc.RpcError:
        return 0


def test_a_store_that_hangs_holds_few_calls_and_no_query_up(asked: Asked, store: Unreliable) -> None:
    store.hangs.clear()
    first = [asked.stub.Feedback.future(shown(user), timeout=20) for user in range(5)]
    time.sleep(1.2)
    code, details = refusal(lambda: asked.stub.Feedback(shown()))
    assert code.name == "UNAVAILABLE" and "is not kept yet" in details
    store.hangs.set()
    assert sum(future.result().accepted for future in first) == store.waiting() == 35


@pytest.mark.parametrize("spooled", [False, True])
def test_a_report_that_is_sent_again_is_learned_once(spooled: bool, store: Unreliable, tmp_path: Path) -> None:
    with running(store, spool=tmp_path if spooled else None) as asked:
        until(lambda: asked.metric("flicker_router_generation") == 1)
        store.away_after = True  # it was appended, and the answer lost
        for _ in range(3):
            until(lambda: accepted(asked, shown(query=9, client="one")) == 7)
        both = [asked.stub.Feedback.future(shown(query=10, client="one")) for _ in range(20)]
        assert {future.result().accepted for future in both} == {7}
        until(lambda: store.waiting() >= 14)
        asked.stub.Feedback(shown(query=9, client="another"))
        for _ in range(2):
            asked.stub.Feedback(shown(query=9))  # who does not say its name is not known again
    assert store.waiting() == 14 + 3 * 7


def test_many_reports_at_once_are_few_entries_in_the_order_of_time(asked: Asked, store: Unreliable) -> None:
    store.hangs.clear()
    futures = [asked.stub.Feedback.future(shown(user, time=100.0 - user), timeout=20) for user in range(30)]
    time.sleep(0.3)
    store.hangs.set()
    assert sum(future.result().accepted for future in futures) == 210
    entries = store.read("test", "", 10_000, 0)
    assert len(entries) < 10 and sum(len(entry.batch) for entry in entries) == 210
    assert all(np.all(np.diff(entry.batch.time) >= 0) for entry in entries)


def test_a_spool_takes_what_the_store_does_not_and_keeps_it_over_a_restart(store: Unreliable, tmp_path: Path) -> None:
    store.away_before = True
    for start in (0, 10):
        with running(store, spool=tmp_path) as asked:
            until(lambda: asked.metric("flicker_router_generation") == 1)
            for user in range(start, start + 10):
                assert asked.stub.Feedback(shown(user, query=user + 1, client="one")).accepted == 7
            until(lambda waiting=start + 10: asked.metric("flicker_feedback_buffered") == waiting)
            assert asked.metric("flicker_feedback_spool_bytes") > 100
            assert asked.metric("flicker_feedback_spool_limit_bytes") == 2**26
    assert store.waiting() == 0
    store.away_before, store.away_after = False, True
    with running(store, spool=tmp_path) as asked:
        until(lambda: store.waiting() == 140)
        until(lambda: asked.metric("flicker_feedback_buffered") == 0)
    assert store.events().user.tolist() == np.repeat(np.arange(20), 7).tolist(), "in the order of taking"
    with running(store, spool=tmp_path):
        pass
    assert store.waiting() == 140, "nothing is handed over twice"


def test_a_full_spool_refuses(store: Unreliable, tmp_path: Path) -> None:
    store.away_before = True
    with running(store, spool=tmp_path, spool_bytes=2**22) as asked:
        until(lambda: asked.metric("flicker_router_generation") == 1)
        many = FeedbackRequest(user=1, shown=[ShownItem(item=1)] * 1_000)
        taken = 0
        while accepted(asked, many):
            taken += 1
        code, details = refusal(lambda: asked.stub.Feedback(shown()))
        assert code.name == "UNAVAILABLE" and "of at most 4194304 bytes" in details
        assert 2**21 < asked.metric("flicker_feedback_spool_bytes") <= 2**22
        store.away_before = False
        until(lambda: store.waiting() >= 9_000)  # as much as the log takes
        last = store.read("test", "", 10_000, 0)[-1].id
        until(lambda: accepted(asked, shown()) == 7)
    assert taken > 50 and last


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


def test_what_users_report_whom_the_world_has_not_is_checked_and_not_learned(asked: Asked, store: Unreliable) -> None:
    nobody = FeedbackRequest(user=1, user_id="u-7", shown=[ShownItem(item=1)])
    assert [asked.stub.Feedback(each).accepted for each in (shown(user=30), shown(user=2**32 - 1), nobody)] == [0] * 3
    assert refusal(lambda: asked.stub.Feedback(shown(user=30, items=31)))[0].name == "INVALID_ARGUMENT"
    assert asked.stub.Feedback(shown(user=29)).accepted == 7 == store.waiting()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (FeedbackRequest(user=1), "shown = 0: 1 to 1,000"),
        (shown(items=31), "shown = 40: item 0 to 39"),
        (shown(context=(1,)), "context = 1 values: 2 (device, position), or none"),
        (shown(context=(3, 0)), "context = 3: 0 to 2 for device"),
        (shown(time=float("nan")), "time = nan"),
        (shown(time=-1.0), "time = -1.0"),
        (shown(client="x" * 65), "client = " + "x" * 65 + ": at most 64 characters"),
    ],
)
def test_bad_feedback_is_told_why(asked: Asked, store: Unreliable, request_: FeedbackRequest, message: str) -> None:
    code, details = refusal(lambda: asked.stub.Feedback(request_))
    assert code.name == "INVALID_ARGUMENT" and details.startswith(message)
    assert store.waiting() == 0
