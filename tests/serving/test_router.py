"""Queries through a real router to fake replicas, over real sockets."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from protos.recommender_pb2 import (
    CompareRequest,
    DescribeRequest,
    Failure,
    FeedbackRequest,
    ListReplicasRequest,
    RecommendRequest,
    RecommendResponse,
    ShownItem,
)
from serving.metrics import RouterMetrics
from serving.router.pool import Pool, Replica
from serving.router.published import Watch
from simulator.store.protocol import Member
from tests.serving.fake_replica import ARMS, FakeReplica, about, catalog, publish
from tests.serving.router_under_test import Asked, healthy, refusal, running, until
from tests.store.memory_store import MemoryStore

ROOT = Path(__file__).parents[2]
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore(10_000)
    publish(store, 1)
    return store


@pytest.fixture
def replicas(store: MemoryStore) -> Iterator[list[FakeReplica]]:
    """Replica a, b, c with duplicate 0, 1, 2, healthy and announced."""
    started = [FakeReplica(name, number) for number, name in enumerate("abc")]
    for replica in started:
        replica.say(True)
        replica.announce(store)
    try:
        yield started
    finally:
        for replica in started:
            replica.stop()


@pytest.fixture
def asked(store: MemoryStore, replicas: list[FakeReplica]) -> Iterator[Asked]:
    """A router that knows them."""
    with running(store) as router:
        healthy(router, 3)
        yield router


def health_of(asked: Asked) -> int:
    stub = health_pb2_grpc.HealthStub(asked.channel)
    return int(stub.Check(health_pb2.HealthCheckRequest(service="flicker.v1.Recommender")).status)


def test_an_answer_says_who_gave_it_and_is_passed_on_as_it_is(asked: Asked, replicas: list[FakeReplica]) -> None:
    query = RecommendRequest(query_id=7, user=3, arm="relu", k=5)
    response = asked.stub.Recommend(query)
    replica = next(r for r in replicas if r.name == response.answered_by.replica)
    assert response.SerializeToString() == replica.answer(query)
    assert asked.metric("flicker_router_queries_total", arm="relu", code="OK") == 1


def test_replicas_are_chosen_at_random_and_again_the_same_for_the_same_query(asked: Asked) -> None:
    def who(query_id: int) -> str:
        return asked.stub.Recommend(RecommendRequest(query_id=query_id, user=1)).answered_by.replica

    first = [who(number) for number in range(1, 91)]
    assert first == [who(number) for number in range(1, 91)]
    assert set(Counter(first)) == {"a", "b", "c"} and min(Counter(first).values()) >= 15


def test_a_user_always_meets_the_same_arm_and_all_arms_are_met(asked: Asked) -> None:
    def arm(user: int) -> str:
        return asked.stub.Recommend(RecommendRequest(user=user)).answered_by.arm

    first = [arm(user) for user in range(20)]
    assert first == [arm(user) for user in range(20)] and set(first) == set(ARMS)


def test_queries_without_a_number_get_one_of_their_own(asked: Asked) -> None:
    numbers = {asked.stub.Recommend(RecommendRequest(user=1)).query_id for _ in range(20)}
    assert len(numbers) == 20 and 0 not in numbers


def test_fields_that_the_router_does_not_know_pass_through(asked: Asked, replicas: list[FakeReplica]) -> None:
    seen: list[bytes] = []
    for replica in replicas:
        replica.failure = lambda query: seen.append(query.SerializeToString())
    unknown = bytes([(100 << 3) & 0x7F | 0x80, (100 << 3) >> 7, 42])  # field 100, varint 42
    call = asked.channel.unary_unary("/flicker.v1.Recommender/Recommend")
    RecommendResponse.FromString(call(RecommendRequest(user=1).SerializeToString() + unknown))
    assert unknown in seen[0]


def test_pinned_duplicates_answer(asked: Asked) -> None:
    for duplicate in (0, 1, 2):
        response = asked.stub.Recommend(RecommendRequest(user=1, duplicate=duplicate, generation=0))
        assert (response.answered_by.duplicate, response.answered_by.generation) == (duplicate, 0)


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        (RecommendRequest(arm="none"), "INVALID_ARGUMENT", "arm = 'none': one of relu, smelu:beta=1"),
        (RecommendRequest(duplicate=3), "INVALID_ARGUMENT", "duplicate = 3: 0 to 2"),
        (RecommendRequest(generation=5), "FAILED_PRECONDITION", "generation = 5: here are [0, 1]"),
    ],
)
def test_bad_queries_are_told_why(asked: Asked, query: RecommendRequest, code: str, message: str) -> None:
    found, details = refusal(lambda: asked.stub.Recommend(query))
    assert (found.name, details) == (code, message)


def test_bytes_that_are_no_query_are_refused(asked: Asked) -> None:
    for method in ("Recommend", "Compare", "Feedback"):
        call = asked.channel.unary_unary(f"/flicker.v1.Recommender/{method}")
        code, details = refusal(lambda call=call: call(b"\xff\xff\xff"))
        assert code is grpc.StatusCode.INVALID_ARGUMENT and "3 bytes" in details


def test_an_error_of_one_query_is_not_told_to_those_that_share_its_call(
    asked: Asked, replicas: list[FakeReplica]
) -> None:
    for replica in replicas:
        replica.failure = lambda query: Failure(code=3, message="user = 9: 0 to 8") if query.user == 9 else None
    with ThreadPoolExecutor(20) as threads:
        found = list(threads.map(lambda user: ask(asked, user), [1, 9] * 40))
    assert found == ["", "user = 9: 0 to 8"] * 40


def ask(asked: Asked, user: int, **more: object) -> str:
    """The error's message, empty for an answer."""
    try:
        asked.stub.Recommend(RecommendRequest(user=user, **more))  # type: ignore[arg-type]
    except grpc.RpcError as problem:
        return str(problem.details())  # type: ignore[attr-defined]
    return ""


def test_what_is_pending_shares_a_call(asked: Asked, replicas: list[FakeReplica]) -> None:
    replica = replicas[0]
    replica.gate.clear()
    with ThreadPoolExecutor(30) as threads:
        waiting = [threads.submit(ask, asked, user, duplicate=0) for user in range(25)]
        until(lambda: in_flight(asked, "a") == 25)
        replica.gate.set()
        assert [each.result() for each in waiting] == [""] * 25
    assert sum(replica.calls) == 25 and len(replica.calls) <= 3
    assert in_flight(asked, "a") == 0


def in_flight(asked: Asked, name: str) -> int:
    states = asked.stub.ListReplicas(ListReplicasRequest()).replicas
    return next(state.in_flight for state in states if state.name == name)


def test_deadlines_end_the_wait_and_expired_queries_are_not_sent(asked: Asked, replicas: list[FakeReplica]) -> None:
    replica = replicas[0]
    replica.gate.clear()
    ask_a = RecommendRequest(duplicate=0)
    assert refusal(lambda: asked.stub.Recommend(ask_a, timeout=0.2))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert refusal(lambda: asked.stub.Recommend(ask_a, timeout=0.1))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    replica.gate.set()
    assert asked.stub.Recommend(ask_a).answered_by.replica == "a"
    assert sum(replica.calls) == 2  # not the one that expired while it was pending


def test_more_queries_than_allowed_are_refused_at_once(store: MemoryStore, replicas: list[FakeReplica]) -> None:
    with running(store, in_flight=4) as asked, ThreadPoolExecutor(8) as threads:
        healthy(asked, 3)
        for replica in replicas:
            replica.gate.clear()
        waiting = [threads.submit(ask, asked, user) for user in range(4)]
        until(lambda: asked.metric("flicker_rpc_in_flight") == 4)
        code, details = refusal(lambda: asked.stub.Recommend(RecommendRequest()))
        for replica in replicas:
            replica.gate.set()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED and details.startswith("4 queries are in flight")
        assert [each.result() for each in waiting] == [""] * 4
        assert asked.metric("flicker_rpc_refused_total", reason="in_flight") == 1


def test_a_lost_replica_fails_no_query_and_comes_back(
    asked: Asked, store: MemoryStore, replicas: list[FakeReplica]
) -> None:
    numbers, stop = itertools.count(1), threading.Event()

    def keep_asking() -> list[str]:
        failed = []
        while not stop.is_set():
            failed.append(ask(asked, 1, query_id=next(numbers)))
        return failed

    with ThreadPoolExecutor(8) as threads:
        askers = [threads.submit(keep_asking) for _ in range(8)]
        until(lambda: next(numbers) > 200)
        replicas[1].stop()
        healthy(asked, 2)
        reached = next(numbers)
        until(lambda: next(numbers) > reached + 200)
        replicas[1] = FakeReplica("b", 1, port=replicas[1].port)
        replicas[1].say(True)
        healthy(asked, 3)
        until(lambda: sum(replicas[1].calls) > 10)
        stop.set()
        failures = [message for asker in askers for message in asker.result() if message]
    assert failures == []
    assert asked.metric("flicker_router_retried_total") >= 1


def test_what_waits_for_a_replica_that_hangs_is_asked_elsewhere(
    asked: Asked, replicas: list[FakeReplica], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.router.pool.HANGS", 0.3)
    replicas[2].hang()
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: ask(asked, 1, query_id=number), range(1, 30)))
    assert found == [""] * 29
    healthy(asked, 2)


def test_nothing_that_is_sent_brings_a_fault_to_light(asked: Asked) -> None:
    calls = {name: asked.channel.unary_unary(f"/flicker.v1.Recommender/{name}") for name in METHODS}

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.sampled_from(METHODS), st.binary(max_size=40) | messages())
    def send(method: str, raw: bytes) -> None:
        try:
            calls[method](raw, timeout=5)
        except grpc.RpcError as problem:
            assert isinstance(problem, grpc.Call)
            assert problem.code().name in ("INVALID_ARGUMENT", "FAILED_PRECONDITION") and problem.details()

    send()


METHODS = ("Recommend", "Compare", "Feedback", "Describe", "ListReplicas")


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Well-formed queries, comparisons and feedback with any values."""
    number, small = st.integers(0, 2**32 - 1), st.integers(0, 4)
    numbers = st.lists(small | number, max_size=4)
    query = RecommendRequest(
        query_id=draw(st.integers(0, 2**64 - 1)),
        user=draw(small | number),
        context=draw(numbers),
        k=draw(small),
        arm=draw(st.sampled_from([*ARMS, "", "x" * 200])),
        duplicate=draw(st.none() | small | number),
        generation=draw(st.none() | small | number),
        score_all=draw(st.booleans()),
    )
    compare = CompareRequest(query=query, duplicates=draw(numbers), cause=draw(st.integers(-1, 3)))  # type: ignore[arg-type]
    shown = [ShownItem(item=item) for item in draw(numbers)]
    time = draw(st.floats() | st.just(0.0))
    feedback = FeedbackRequest(user=draw(small | number), context=draw(numbers), shown=shown, time=time)
    query.user_id = feedback.user_id = draw(st.sampled_from(["", "7", "u-7"]))
    describe = DescribeRequest(items=draw(numbers), users=draw(numbers), context=map(str, draw(numbers)))
    return draw(st.sampled_from([query, compare, feedback, describe])).SerializeToString()


def test_a_query_is_retried_once(asked: Asked, replicas: list[FakeReplica]) -> None:
    for replica in replicas:
        replica.failure = lambda query: Failure(code=14, message="leaving")
    assert refusal(lambda: asked.stub.Recommend(RecommendRequest())) == (grpc.StatusCode.UNAVAILABLE, "leaving")
    assert sum(sum(replica.calls) for replica in replicas) == 2
    assert asked.metric("flicker_router_retried_total") == 1


def test_a_replica_that_is_not_serving_is_asked_nothing(asked: Asked, replicas: list[FakeReplica]) -> None:
    replicas[0].say(False)
    healthy(asked, 2)
    states = asked.stub.ListReplicas(ListReplicasRequest()).replicas
    assert [(state.name, state.duplicate, state.healthy) for state in states] == [
        ("a", 0, False),
        ("b", 1, True),
        ("c", 2, True),
    ]
    assert list(states[0].arms) == ARMS and states[0].generation == 1
    code, details = refusal(lambda: asked.stub.Recommend(RecommendRequest(duplicate=0)))
    assert code is grpc.StatusCode.FAILED_PRECONDITION and "held: 1, 2" in details


def test_the_router_begins_to_serve_when_it_can(replicas: list[FakeReplica]) -> None:
    empty = MemoryStore(10_000)
    with running(empty) as asked:
        code, details = refusal(lambda: asked.stub.Recommend(RecommendRequest()))
        assert code is grpc.StatusCode.UNAVAILABLE and details.startswith("nothing is published yet")
        publish(empty, 1)
        until(lambda: "no replica is healthy" in ask(asked, 1))
        assert health_of(asked) == health_pb2.HealthCheckResponse.NOT_SERVING
        replicas[0].announce(empty)
        healthy(asked, 1)
        until(lambda: health_of(asked) == SERVING)
        assert ask(asked, 1) == ""
        replicas[0].say(False)
        until(lambda: health_of(asked) == health_pb2.HealthCheckResponse.NOT_SERVING)


def test_reflection_names_the_service(asked: Asked) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(asked.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = next(iter(stub.ServerReflectionInfo(iter([request]))))
    assert "flicker.v1.Recommender" in {service.name for service in answer.list_services_response.service}


def test_calls_are_counted_as_other_grpc_servers_count(asked: Asked) -> None:
    ask(asked, 1)
    ask(asked, 1, arm="none")
    labels = {"grpc_type": "unary", "grpc_service": "flicker.v1.Recommender", "grpc_method": "Recommend"}
    until(lambda: asked.metric("grpc_server_handled_total", **labels, grpc_code="InvalidArgument") == 1)
    assert asked.metric("grpc_server_started_total", **labels) == 2
    assert asked.metric("grpc_server_handled_total", **labels, grpc_code="OK") == 1


def test_the_router_loads_no_torch() -> None:
    code = "import sys, serving.router.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_replica_that_was_just_forgotten_may_be_checked_once_more() -> None:
    channel, metrics = grpc.insecure_channel("127.0.0.1:1"), RouterMetrics(CollectorRegistry())
    replica = Replica(Member("gone", "127.0.0.1:1", 0, 1), metrics, lambda: None, channel, 0)
    replica.close()
    replica.check()
    assert not replica.healthy


class Changing(Pool):
    """Whose certificates change: `version` counts them, and those of `broken` are believed by nobody."""

    version, broken = 0, -1  # type: ignore[assignment]

    def channel(self, address: str) -> grpc.Channel:
        return super().channel("127.0.0.1:1" if self.version == self.broken else address)


def test_new_certificates_take_over_once_they_connect_and_the_old_ones_serve_until_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeReplica("one", 0)
    try:
        fake.say(True)
        seen = list[int]()
        pool = Changing(RouterMetrics(CollectorRegistry()), lambda: seen.append(len(pool.healthy)))

        def look() -> list[Replica]:
            pool.check()
            return pool.known()

        pool.announce([Member("one", f"127.0.0.1:{fake.port}", 0, 1)])
        until(lambda: bool(look()[0].healthy))
        (first,), before = pool.known(), len(seen)
        monkeypatch.setattr(Changing, "broken", 1)
        monkeypatch.setattr(Changing, "version", 1)
        look()
        until(lambda: look() and pool._renewed["one"].checked)
        assert pool.known() == [first]
        monkeypatch.setattr(Changing, "version", 2)
        until(lambda: look() != [first])
        (second,) = pool.known()
        look()
        assert pool.healthy == (second,) and set(seen[before:]) == {1}, "never without"
        assert not pool._renewed and not pool._left
        pool.close()
    finally:
        fake.stop()


def test_a_router_that_starts_takes_an_older_generation_than_a_damaged_one(caplog: pytest.LogCaptureFixture) -> None:
    store, changed = MemoryStore(100), []
    for number in (3, 4):
        publish(store, number)
    store.publish(5, {"catalog": catalog(store.run, 4)}, about(5))
    registry = CollectorRegistry()
    watch = Watch(store, Nobody(), RouterMetrics(registry), threading.Event(), lambda: changed.append(1))  # type: ignore[arg-type]
    for _ in range(3):
        watch._look()
    assert watch.current().generation == 4 and changed == [1]
    assert [record.getMessage() for record in caplog.records if "cannot be used" in record.getMessage()] == [
        "generation 5 cannot be used: it says that it is 'run default, generation 4, catalog', "
        "expected 'run default, generation 5, catalog'"
    ]
    assert registry.get_sample_value("flicker_snapshots_refused_total", {"reason": "label"}) == 1
    publish(store, 6)
    watch._look()
    assert watch.current().generation == 6


class Nobody:
    """A pool without replicas."""

    def announce(self, members: list[Member]) -> None:
        """Nothing comes of it."""

    def check(self) -> None:
        """Nobody is there."""
