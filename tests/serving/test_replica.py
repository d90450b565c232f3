"""A replica's answers: right, from the model asked for, and an error's own where a query is bad."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import torch
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from protos.recommender_pb2 import AnsweredBy, RankRequest, RecommendRequest, RecommendResponse
from serving.codec import slate_of
from serving.replica import rank
from simulator.models.engines import Engines
from tests.serving.generations import (
    ARMS,
    CONTEXT,
    RECENT,
    WORLD,
    plain_scores,
    publish_generation,
    retrieved,
    stack_of,
)
from tests.serving.replica_under_test import RANK, Asking, best_first, put_gate, running, wait_for, wait_for_generation
from tests.store.memory_store import MemoryStore

NOT_SERVING, SERVING = 2, 1


@pytest.fixture(scope="module")
def stacks() -> list[Engines]:
    return [stack_of(0), stack_of(1)]


@pytest.fixture(scope="module")
def asking(stacks: list[Engines]) -> Iterator[Asking]:
    """A replica with generations 0 and 1."""
    store = MemoryStore(1_000)
    with running(store) as asking:
        for number, stack in enumerate(stacks):
            publish_generation(store, number, stack)
            wait_for_generation(asking, number)
        yield asking


@pytest.fixture
def own(stacks: list[Engines]) -> Iterator[Asking]:
    """A replica with generation 0 and room for four queries, for a test to keep busy."""
    store = MemoryStore(1_000)
    publish_generation(store, 0, stacks[0])
    with running(store, queue=4) as asking:
        wait_for_generation(asking, 0)
        yield asking


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("candidates", [[], [7], [5, 3, 119, 0], list(range(100, 1, -1))])
def test_a_slate_is_that_of_the_whole_network(
    asking: Asking, stacks: list[Engines], arm: str, candidates: list[int]
) -> None:
    query = RecommendRequest(query_id=3, user=11, context=[1, 5, 0], arm=arm, candidates=candidates, score_all=True)
    response = asking.ask(query)
    items, plain = plain_scores(stacks[1], ARMS.index(arm), 0, query)
    found, scores = response.scored.items, np.array(response.scored.scores, np.float32)
    np.testing.assert_array_equal(found, items)
    np.testing.assert_allclose(scores, plain, rtol=0, atol=2e-5)
    slate = slate_of(response)
    assert slate.items.tolist() == best_first(scores, items)[:10]
    np.testing.assert_array_equal(slate.scores, np.sort(scores)[::-1][:10])
    assert response.query_id == 3
    assert response.answered_by == AnsweredBy(replica="a", arm=arm, duplicate=0, generation=1)


def test_equal_scores_are_ordered_by_item(own: Asking) -> None:
    """Items that look alike get equal scores: all that the model knows of them is made the same."""
    current = own.replica.shelf.current
    assert current is not None
    with torch.inference_mode():
        for part in (ranker.items for ranker in current.rankers):
            part[:60] = part[0].clone()
    response = own.ask(RecommendRequest(user=1, arm="relu", candidates=[9, 50, 0, 33, 8]))
    assert [place.item for place in response.slate] == [0, 8, 9, 33, 50]
    assert len({place.score for place in response.slate}) == 1


@pytest.mark.parametrize(("k", "expected"), [(0, 10), (1, 1), (39, 39), (1_000, 40)])
def test_a_slate_has_k_items_or_all_there_are(asking: Asking, k: int, expected: int) -> None:
    response = asking.ask(RecommendRequest(user=2, arm="relu", k=k))
    assert len(response.slate) == expected and not response.HasField("scored")


def test_an_older_generation_answers_queries_pinned_to_it(asking: Asking, stacks: list[Engines]) -> None:
    for generation in (0, 1):
        query = RecommendRequest(user=4, arm="relu", generation=generation, duplicate=0, score_all=True)
        response = asking.ask(query)
        assert response.answered_by.generation == generation
        _, plain = plain_scores(stacks[generation], 0, 0, query)
        np.testing.assert_allclose(response.scored.scores, plain, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        (RecommendRequest(arm="relu", generation=2), 9, "generation = 2: here are 1 and 0"),
        (RecommendRequest(arm="relu", duplicate=1), 9, "duplicate = 1: here is 0"),
        (RecommendRequest(arm="relu", duplicate=3), 3, "duplicate = 3: 0 to 2"),
        (RecommendRequest(arm="gelu"), 3, "arm = 'gelu': one of relu, smelu:beta=1"),
        (RecommendRequest(arm="relu", k=1_001), 3, "k = 1001: 1 to 1,000, or 0 for 10"),
        (RecommendRequest(arm="relu", candidates=[1, 120]), 3, "candidates = 120: 0 to 119"),
    ],
)
def test_a_refusal_says_what_is_there(asking: Asking, query: RecommendRequest, code: int, message: str) -> None:
    failure = asking.refused(query)
    assert (failure.code, failure.message) == (code, message)


@pytest.mark.parametrize("candidates", [[], [5, 3, 119, 0]])
def test_a_user_whom_the_world_has_not_is_answered_without_anything_about_him(
    asking: Asking, stacks: list[Engines], candidates: list[int]
) -> None:
    answers = [
        asking.ask(RecommendRequest(user=user, context=[1, 5, 0], arm=ARMS[0], candidates=candidates, score_all=True))
        for user in (50, 2**32 - 1)
    ]
    assert answers[0] == answers[1] and answers[0].unknown_user
    items = np.array(candidates or retrieved(50))
    rows = WORLD.encoder.candidates(
        0, items, tuple(WORLD.schema.first_row(f.name) + v for f, v in zip(CONTEXT, (1, 5, 0), strict=True))
    )
    rows[:, : WORLD.encoder.user_rows.shape[1]] = 0
    assert list(answers[0].scored.items) == items.tolist()
    np.testing.assert_allclose(answers[0].scored.scores, stacks[1].score_events(rows)[0], rtol=0, atol=2e-5)
    clicks = Counter(RECENT.item[np.isin(RECENT.item, WORLD.present(RECENT.time))].tolist())
    popular = sorted(clicks, key=lambda item: (-clicks[item], item))[:40]
    assert retrieved(50).tolist()[: len(popular)] == popular
    assert not asking.ask(RecommendRequest(user=49, arm=ARMS[0])).unknown_user


def test_bad_queries_are_counted_by_field_and_harm_no_other(asking: Asking) -> None:
    before = asking.metric("flicker_bad_queries_total", field="k")
    answered = asking.metric("flicker_queries_total", arm="relu")
    good, bad = RecommendRequest(query_id=1, user=3, arm="relu"), RecommendRequest(k=1_001, arm="relu")
    response = asking.rank(good, bad, good)
    assert [bool(raw) for raw in response.answers] == [True, False, True]
    assert [failure.index for failure in response.failures] == [1]
    assert asking.metric("flicker_bad_queries_total", field="k") == before + 1
    assert asking.metric("flicker_queries_total", arm="relu") == answered + 2


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (RankRequest(), "queries = 0 queries: 1 to 1,024"),
        (RankRequest(queries=[b""] * 1_025), "queries = 1025 queries: 1 to 1,024"),
        (RankRequest(queries=[b""] * 2, timeouts_ms=[5]), "timeouts_ms = 1 values: as many as queries (2), or none"),
    ],
)
def test_a_bad_call_is_refused_as_a_whole(asking: Asking, request_: RankRequest, message: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        asking.send(request_.SerializeToString())
    assert (error.value.code(), error.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, message)


def test_an_answer_does_not_depend_on_who_shares_the_pass(asking: Asking) -> None:
    queries = [
        RecommendRequest(query_id=n, user=n, arm=ARMS[n % 2], candidates=range(n, 2 * n + 1)) for n in range(1, 50)
    ]
    alone = [asking.rank(query).answers[0] for query in queries]
    assert list(asking.rank(*queries).answers) == alone
    assert list(reversed(asking.rank(*reversed(queries)).answers)) == alone


def test_standard_probes_and_reflection(asking: Asking) -> None:
    assert [asking.health(service) for service in ("", "flicker.v1.Replica")] == [SERVING, SERVING]
    database = ProtoReflectionDescriptorDatabase(asking.channel)
    service = DescriptorPool(database).FindServiceByName("flicker.v1.Replica")
    assert [method.name for method in service.methods] == ["Rank"]


def test_calls_are_counted_under_the_usual_names(asking: Asking) -> None:
    labels = {"grpc_type": "unary", "grpc_service": "flicker.v1.Replica", "grpc_method": "Rank"}
    names = ("grpc_server_started_total", "grpc_server_handling_seconds_count")
    before = [asking.metric(name, **labels) for name in names]
    handled = {code: asking.metric("grpc_server_handled_total", grpc_code=code, **labels) for code in CODES}
    asking.ask(RecommendRequest(arm="relu"))
    with pytest.raises(grpc.RpcError):
        asking.send(b"\xff")
    assert [asking.metric(name, **labels) for name in names] == [count + 2 for count in before]
    for code in CODES:
        assert asking.metric("grpc_server_handled_total", grpc_code=code, **labels) == handled[code] + 1


CODES = ("OK", "InvalidArgument")


def test_before_the_first_generation_and_after() -> None:
    store = MemoryStore(1_000)
    with running(store) as asking:
        assert [asking.health(service) for service in ("", "flicker.v1.Replica")] == [NOT_SERVING, NOT_SERVING]
        with pytest.raises(grpc.RpcError) as error:
            asking.rank(RecommendRequest(arm="relu"))
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        assert error.value.details() == "no generation is published yet"
        wait_for(lambda: [(m.name, m.generation) for m in store.members()] == [("a", -1)])
        publish_generation(store, 0)
        wait_for_generation(asking, 0)
        assert asking.ask(RecommendRequest(arm="relu")).answered_by.generation == 0
        wait_for(lambda: [(m.address, m.generation) for m in store.members()] == [(asking.replica.address, 0)])
        age = asking.metric("flicker_snapshot_age_seconds")
        assert age == pytest.approx(time.time() - 1_000.0, abs=60)
    assert store.members() == []


def in_background(asking: Asking, *queries: RecommendRequest, timeouts: list[int] | None = None) -> Answer:
    return Answer(lambda: asking.rank(*queries, timeouts=timeouts))


class Answer:
    """What comes of a call made by a thread of its own."""

    def __init__(self, call) -> None:  # type: ignore[no-untyped-def]
        self._call = call
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self._response = self._call()

    def result(self):  # type: ignore[no-untyped-def]
        """The response, once it is there."""
        self._thread.join(30)
        return self._response


def test_more_than_the_queue_holds_is_refused_at_once(own: Asking) -> None:
    gate, query = put_gate(own.replica), RecommendRequest(arm="relu")
    busy = in_background(own, query)
    assert gate.reached.wait(10)
    waiting = in_background(own, query, query, query)
    wait_for(lambda: own.metric("flicker_queue_length") == 3)
    partly = in_background(own, query, query)
    wait_for(lambda: own.metric("flicker_shed_total") == 1)
    with pytest.raises(grpc.RpcError) as error:  # while the others still wait
        own.rank(query)
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.value.details() == "queue = 4 queries: full, try again later"
    gate.open.set()
    assert all(busy.result().answers) and all(waiting.result().answers)
    assert [(f.index, f.code) for f in partly.result().failures] == [(1, 8)]
    assert own.metric("flicker_shed_total") == 2
    assert own.metric("flicker_batch_size_sum") == 5 and own.metric("flicker_batch_size_count") == 2


def test_work_whose_time_is_over_is_dropped(own: Asking) -> None:
    gate, query = put_gate(own.replica), RecommendRequest(arm="relu")
    busy = in_background(own, query)
    assert gate.reached.wait(10)
    waiting = in_background(own, query, query, timeouts=[1, 0])
    wait_for(lambda: own.metric("flicker_queue_length") == 2)
    time.sleep(0.002)  # more than the first one's millisecond
    gate.open.set()
    assert all(busy.result().answers)
    response = waiting.result()
    assert [(f.index, f.code) for f in response.failures] == [(0, 4)] and response.answers[1]
    assert own.metric("flicker_expired_total") == 1
    assert own.metric("flicker_batch_size_sum") == 2


def test_a_call_ends_at_its_deadline_and_its_work_is_dropped(own: Asking) -> None:
    gate, query = put_gate(own.replica), RecommendRequest(arm="relu")
    busy = in_background(own, query)
    assert gate.reached.wait(10)
    raw = RankRequest(queries=[query.SerializeToString()] * 2).SerializeToString()
    waiting = own.channel.unary_unary(RANK).future(raw, timeout=2)
    wait_for(lambda: own.metric("flicker_queue_length") == 2)
    deadline = own.replica.queue._users[0].deadline
    assert waiting.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_for(lambda: time.monotonic() > deadline)  # the replica counts from when the call came in: a little later
    gate.open.set()
    assert all(busy.result().answers)
    wait_for(lambda: own.metric("flicker_expired_total") == 2)
    assert own.ask(query).answered_by == AnsweredBy(replica="a", arm="relu")


def test_work_that_its_caller_cancels_is_dropped(own: Asking) -> None:
    gate, query = put_gate(own.replica), RecommendRequest(arm="relu")
    busy = in_background(own, query)
    assert gate.reached.wait(10)
    raw = RankRequest(queries=[query.SerializeToString()]).SerializeToString()
    waiting = own.channel.unary_unary(RANK).future(raw)  # without a deadline
    wait_for(lambda: own.metric("flicker_queue_length") == 1)
    cancelled = own.replica.queue._users[0].call
    waiting.cancel()
    wait_for(lambda: cancelled.cancelled)
    gate.open.set()
    assert all(busy.result().answers)
    wait_for(lambda: own.metric("flicker_expired_total") == 1)
    assert own.metric("flicker_batch_size_sum") == 1


def test_a_user_does_not_wait_for_background_work(own: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank, "MAX_BACKGROUND_PER_DRAIN", 1)
    gate, query, ended = put_gate(own.replica), RecommendRequest(arm="relu"), list[str]()
    busy = in_background(own, query)
    assert gate.reached.wait(10)
    raw, ask = query.SerializeToString(), own.channel.unary_unary(RANK).future
    behind = ask(RankRequest(queries=[raw, raw], background=True).SerializeToString(), timeout=30)
    behind.add_done_callback(lambda future: ended.append("background"))
    wait_for(lambda: own.metric("flicker_queue_length") == 2)
    user = ask(RankRequest(queries=[raw]).SerializeToString(), timeout=30)
    user.add_done_callback(lambda future: ended.append("user"))
    wait_for(lambda: own.metric("flicker_queue_length") == 3)
    gate.open.set()
    assert all(busy.result().answers) and user.result() and behind.result()
    wait_for(lambda: len(ended) == 2)
    assert ended == ["user", "background"]


def test_calls_at_work_are_answered_before_the_end(stacks: list[Engines]) -> None:
    store = MemoryStore(1_000)
    publish_generation(store, 0, stacks[0])
    with running(store) as asking:
        wait_for_generation(asking, 0)
        gate = put_gate(asking.replica)
        last = in_background(asking, RecommendRequest(arm="relu"))
        assert gate.reached.wait(10)
        stopping = threading.Thread(target=asking.replica.stop, args=(0.0,))
        stopping.start()
        wait_for(lambda: store.members() == [])
        gate.open.set()
        assert RecommendResponse.FromString(last.result().answers[0]).slate
        stopping.join(10)
        assert not stopping.is_alive()
