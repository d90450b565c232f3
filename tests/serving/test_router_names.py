"""A router that knows the log's own names: who asks, what items are called, and what of it a damaged part costs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partialmethod

import grpc
import pytest

from protos.recommender_pb2 import CompareRequest, DescribeRequest, DescribeResponse, RecommendRequest
from serving import query
from serving.router.published import Published, beginning
from simulator.store.arrays import pack
from simulator.types import Names
from tests.serving.fake_replica import ITEMS, USERS, FakeReplica, publish
from tests.serving.router_under_test import Asked, healthy, refusal, running, until
from tests.store.memory_store import MemoryStore

Describe = Callable[[Published, DescribeRequest], DescribeResponse]
IDS = [f"u-{number * 7919 % 1000:03d}" for number in range(USERS - 1)] + ["3"]
"""The last user is called as another is numbered."""
TITLES = ["", *(f"Film {number}" for number in range(1, ITEMS))]
NAMES = Names(IDS, [f"sku-{number}" for number in range(ITEMS)], TITLES, {"device": ["phone", "desktop", "1"]})


@pytest.fixture(scope="module")
def asked() -> Iterator[Asked]:
    """A router with two replicas on a log with names."""
    store, replicas = MemoryStore(1_000), [FakeReplica(name, number) for number, name in enumerate("ab")]
    publish(store, 1, "movies", store.share(pack(NAMES)))
    for replica in replicas:
        replica.say(True)
        replica.announce(store)
    with running(store) as router:
        healthy(router, 2)
        yield router
    for replica in replicas:
        replica.stop()


def slate(asked: Asked, **query: object) -> list[int]:
    """What a user gets of duplicate 0, by `relu`."""
    request = RecommendRequest(arm="relu", duplicate=0, **query)  # type: ignore[arg-type]
    return [place.item for place in asked.stub.Recommend(request).slate]


@pytest.mark.parametrize(("id", "number"), [(IDS[0], 0), (IDS[5], 5), ("3", USERS - 1), ("4", 4), ("0", 0)])
def test_a_user_is_named_by_id_or_number_and_an_id_wins(asked: Asked, id: str, number: int) -> None:
    assert slate(asked, user_id=id) == slate(asked, user_id=id, user=9) == slate(asked, user=number)
    compared = asked.stub.Compare(CompareRequest(query=RecommendRequest(user_id=id, arm="relu")))
    assert [place.item for place in compared.answers[0].slate] == slate(asked, user=number)


def test_the_arm_and_the_count_are_those_of_the_user_whoever_names_him(asked: Asked) -> None:
    def arm(**query: object) -> str:
        return asked.stub.Recommend(RecommendRequest(**query)).answered_by.arm  # type: ignore[arg-type]

    before = asked.metric("flicker_router_unknown_users_total")
    assert [arm(user_id=id) for id in IDS] == [arm(user=number) for number in range(USERS)]
    assert asked.metric("flicker_router_unknown_users_total") == before
    strangers = [f"stranger {number}" for number in range(20)]
    first = [arm(user_id=id) for id in strangers]
    assert first == [arm(user_id=id) for id in strangers] and len(set(first)) == 2
    for user in (USERS, 2**32 - 1):
        arm(user=user)
    assert asked.metric("flicker_router_unknown_users_total") == before + 42


def test_numbers_are_described_and_context_is_understood(asked: Asked) -> None:
    request = DescribeRequest(items=[7, 0, 7], users=[5, USERS - 1], context=["desktop", "4"])
    found = asked.stub.Describe(request)
    assert [(item.id, item.title) for item in found.items] == [
        ("sku-7", "Film 7"),
        ("sku-0", "sku-0"),
        ("sku-7", "Film 7"),
    ]
    assert list(found.users) == [IDS[5], "3"] and list(found.context) == [1, 4]
    assert list(asked.stub.Describe(DescribeRequest(context=["1", "0"])).context) == [2, 0], "a name wins"


@pytest.mark.parametrize("start", ["", *sorted({id[:length] for id in IDS for length in range(1, 4)}), "no such user"])
def test_users_are_found_by_how_their_ids_begin(asked: Asked, start: str) -> None:
    world = asked.stub.Describe(DescribeRequest(find=start)).world
    expected = sorted((id for id in IDS if id.startswith(start)), key=str.encode)
    assert list(world.found) == expected[:20]
    assert (world.users, world.items) == (USERS, ITEMS)
    assert [(field.name, field.vocabulary, field.values[:1]) for field in world.context] == [
        ("device", 3, ["phone"]),
        ("position", 5, []),
    ]


@pytest.mark.parametrize(("start", "count"), [("", 7), ("", 500), ("4", 500), ("49", 500), ("0", 500), ("a", 500)])
def test_numbers_are_found_by_how_they_begin(start: str, count: int) -> None:
    assert beginning(start, count) == sorted(each for each in map(str, range(count)) if each.startswith(start))[:20]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (DescribeRequest(items=[1, ITEMS]), "items = 40: 0 to 39"),
        (DescribeRequest(users=[USERS]), "users = 30: 0 to 29"),
        (DescribeRequest(items=[0] * 10_001), "items = 10001 numbers: at most 10,000"),
        (DescribeRequest(context=["phone"]), "context = 1 values: 2 (device, position), or none"),
        (DescribeRequest(context=["fax", "0"]), "context = 'fax': 0 to 2 for device, or a value such as 'phone'"),
        (DescribeRequest(context=["phone", "5"]), "context = '5': 0 to 4 for position"),
        (DescribeRequest(context=["phone", "9" * 5_000]), f"context = '{'9' * 79}: 0 to 4 for position"),
    ],
)
def test_what_is_out_of_range_is_told(asked: Asked, request_: DescribeRequest, message: str) -> None:
    assert refusal(lambda: asked.stub.Describe(request_)) == (grpc.StatusCode.INVALID_ARGUMENT, message)


def test_a_long_description_keeps_no_query_waiting(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(Published, "describe", lambda *_: DescribeResponse() if gate.wait(20) else None)
    described = asked.stub.Describe.future(DescribeRequest(), timeout=20)
    try:
        assert asked.stub.Recommend(RecommendRequest(user=1), timeout=3).slate
    finally:
        gate.set()
    assert described.result() == DescribeResponse()


def test_titles_are_asked_for_in_parts(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "MAX_ITEMS", 7)
    monkeypatch.setattr(Published, "describe", partialmethod(bounded, Published.describe))
    answers, _, titles = query.ask(query.QueryFlags(asked.address, user=IDS[0], k=20, times=2))
    assert {place.item for answer in answers for place in answer.slate} == titles.keys() and len(titles) >= 20
    assert all(title == (TITLES[item] or "sku-0") for item, title in titles.items())


def bounded(published: Published, describe: Describe, request: DescribeRequest) -> DescribeResponse:
    """As a router that takes no more than seven."""
    assert len(request.items) <= 7
    return describe(published, request)


def test_on_a_made_up_world_numbers_are_the_names() -> None:
    store = MemoryStore(1_000)
    publish(store, 1)
    with running(store) as asked:
        until(lambda: asked.metric("flicker_router_generation") == 1)
        found = asked.stub.Describe(DescribeRequest(items=[7], users=[2], context=["1", "0"]))
        assert (found.items[0].id, found.items[0].title, *found.users) == ("7", "item 7", "2")
        assert list(found.context) == [1, 0]


def test_names_are_fetched_once_and_a_generation_without_its_own_is_refused() -> None:
    store, fetched = MemoryStore(1_000), []
    digest, shared = store.share(pack(NAMES)), store.shared
    store.shared = lambda digest: fetched.append(digest) or shared(digest)  # type: ignore[method-assign,func-returns-value]
    with running(store) as asked:
        for generation in (1, 2):
            publish(store, generation, "movies", digest)
            until(lambda number=generation: asked.metric("flicker_router_generation") == number)  # type: ignore[misc]
        publish(store, 3, "movies", "0" * 64)
        until(lambda: asked.metric("flicker_snapshots_refused_total", reason="digest") == 1)
        assert asked.stub.Describe(DescribeRequest(users=[0])).users[0] == IDS[0]
    assert fetched == [digest, "0" * 64]
