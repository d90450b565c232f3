"""The server kit over real sockets: calls that hold no thread, and who is let in."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import grpc
import pytest
from grpc import _server
from grpc._cython import cygrpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from serving import rpc
from serving.codec import Refusal
from serving.metrics import GrpcMetrics
from serving.rpc import (
    INTERVAL,
    TARGET_SECONDS,
    Begin,
    ControlledDelay,
    Door,
    GrpcServer,
    Handler,
    Reply,
    by_threads,
)
from tests.serving.router_under_test import refusal, until

METHOD, OTHER = "/test.Service/Method", "/test.Service/Other"
LIMITS = rpc.Limits(calls=400, request_bytes=1 << 20, streams=1_000, pending=1_000)


@dataclass(frozen=True)
class Served:
    """A running server, and its client."""

    server: GrpcServer
    door: Door
    registry: CollectorRegistry
    channel: grpc.Channel

    @property
    def ask(self) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
        return self.channel.unary_unary(METHOD)

    def refused(self, reason: str) -> float:
        return self.registry.get_sample_value("flicker_rpc_refused_total", {"reason": reason}) or 0.0

    def handled(self, code: str) -> float:
        labels = {"grpc_type": "unary", "grpc_service": "test.Service", "grpc_method": "Method", "grpc_code": code}
        return self.registry.get_sample_value("grpc_server_handled_total", labels) or 0.0


@contextmanager
def serving(
    begin: Begin, limits: rpc.Limits = LIMITS, other: Callable[[Door], Handler] | None = None
) -> Iterator[Served]:
    """A server with a method that sheds load, and another one."""
    registry = CollectorRegistry()
    door = Door(limits, GrpcMetrics(registry, (1.0,)))
    methods = {"Method": Handler(begin, "server", sheds=True)} | ({"Other": other(door)} if other else {})
    server = GrpcServer("test.Service", methods, door, ("127.0.0.1", 0))
    server.start()
    try:
        with grpc.insecure_channel(server.address) as channel:
            yield Served(server, door, registry, channel)
    finally:
        server.stop(1.0)


class Kept:
    """Replies that the test ends."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []

    def __call__(self, raw: bytes, reply: Reply) -> None:
        self.replies.append(reply)

    def answer(self) -> None:
        """All of them."""
        while self.replies:
            self.replies.pop().end(b"done", None)


def test_the_installed_grpcio_has_inside_what_the_kit_needs() -> None:
    """pyproject.toml caps the version: raise the cap once this passes with a newer one."""
    assert list(inspect.signature(rpc._theirs).parameters) == [
        "rpc_event", "method_with_handler", "interceptor_pipeline", "thread_pool", "concurrency_exceeded",
    ]  # fmt: skip
    source = inspect.getsource(_server._process_event_and_continue)
    assert "_handle_call(" in source and "rpc_state, callbacks = event.tag(event)" in source
    operations = "ReceiveMessage", "ReceiveCloseOnServer", "SendInitialMetadata", "SendMessage", "SendStatusFromServer"
    assert all(hasattr(cygrpc, f"{name}Operation") for name in operations)
    assert hasattr(cygrpc.Channel, "segregated_call") and hasattr(cygrpc.SegregatedCall, "next_event")
    assert "experimental_thread_pool" in inspect.getsource(_server._select_thread_pool_for_behavior)  # of streams


def test_answers_come_from_any_thread_and_take_none_of_the_server() -> None:
    with ThreadPoolExecutor(4) as others:

        def begin(raw: bytes, reply: Reply) -> None:
            others.submit(reply.end, raw[::-1], None)

        with serving(begin, replace(LIMITS, half_open=400)) as served:  # all at once, on a machine with other work
            ask, before = served.ask, threading.active_count()
            futures = [ask.future(b"%d" % number) for number in range(100, 400)]
            assert [future.result() for future in futures] == [(b"%d" % number)[::-1] for number in range(100, 400)]
            assert threading.active_count() <= before + 5  # the others, and the client's own
            until(lambda: not served.door._unread and not served.server._server._state.rpc_states)
            assert served.handled("OK") == 300 and served.door.in_flight == served.door._bytes == 0


def test_a_refusal_and_a_fault_end_the_call_with_their_codes() -> None:
    def begin(raw: bytes, reply: Reply) -> None:
        if raw == b"bad":
            return reply.end(b"", Refusal(grpc.StatusCode.INVALID_ARGUMENT, "raw = bad: good \u00b5"))
        if raw == b"late fault":
            reply.end(b"answered", None)
        raise ValueError("ours")

    with serving(begin) as served:
        assert refusal(lambda: served.ask(b"bad")) == (grpc.StatusCode.INVALID_ARGUMENT, "raw = bad: good \u00b5")
        code, details = refusal(lambda: served.ask(b"fault"))
        assert code is grpc.StatusCode.INTERNAL and "ours" not in details
        assert served.ask(b"late fault") == b"answered"  # and the server lives on
        assert (served.handled("InvalidArgument"), served.handled("Internal"), served.handled("OK")) == (1, 1, 1)


def test_deadlines_are_told_and_who_goes_is_noticed() -> None:
    kept, gone = Kept(), threading.Event()

    def begin(raw: bytes, reply: Reply) -> None:
        kept(raw, reply)
        reply.when_gone(gone.set)

    with serving(begin) as served:
        assert refusal(lambda: served.ask(b"", timeout=0.5))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        assert gone.wait(10) and kept.replies[0].deadline < time.monotonic() + 0.5
        kept.answer()  # nobody hears it
        until(lambda: served.door.in_flight == 0)
        waiting = served.ask.future(b"")
        until(lambda: len(kept.replies) == 1)
        assert kept.replies[0].deadline > time.monotonic() + 3_600
        kept.answer()
        assert waiting.result() == b"done"


def test_calls_beyond_the_limit_are_refused_counted_and_room_is_made_again() -> None:
    kept = Kept()
    with serving(kept, replace(LIMITS, calls=2)) as served:
        waiting = [served.ask.future(b""), served.ask.future(b"")]
        until(lambda: len(kept.replies) == 2)
        code, details = refusal(lambda: served.ask(b""))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED and details.startswith("2 queries are in flight already")
        assert served.refused("in_flight") == served.handled("ResourceExhausted") == 1
        stub = health_pb2_grpc.HealthStub(served.channel)
        assert stub.Check(health_pb2.HealthCheckRequest()).status == 2  # a probe is answered still
        kept.answer()
        assert [future.result() for future in waiting] == [b"done"] * 2
        again = served.ask.future(b"")
        until(lambda: len(kept.replies) == 1)
        kept.answer()
        assert again.result() == b"done"


def test_requests_in_flight_have_so_many_bytes_together() -> None:
    kept = Kept()
    with serving(kept, replace(LIMITS, bytes=1_500)) as served:
        waiting = served.ask.future(bytes(1_000))
        until(lambda: len(kept.replies) == 1)
        assert refusal(lambda: served.ask(bytes(1_000)))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        small = served.ask.future(bytes(400))
        until(lambda: len(kept.replies) == 2)
        kept.answer()
        assert waiting.result() == small.result() == b"done" and served.refused("bytes") == 1


def test_a_request_beyond_the_maximum_is_refused_by_the_core() -> None:
    with serving(lambda raw, reply: reply.end(raw[:3], None)) as served:
        assert served.ask(bytes((1 << 20) - 100)) == bytes(3)
        assert refusal(lambda: served.ask(bytes((1 << 20) + 100)))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        until(lambda: not served.door._half_open and served.door.in_flight == 0)


def test_methods_that_wait_have_threads_and_a_bounded_queue() -> None:
    gate, late = threading.Event(), list[float]()

    def answers(raw: bytes, deadline: float) -> bytes:
        late.append(deadline - time.monotonic())
        assert gate.wait(10)
        if raw == b"bad":
            raise ValueError("ours")
        return raw

    with serving(Kept(), other=lambda door: by_threads(door, answers, 1, 3, "router")) as served:
        ask = served.channel.unary_unary(OTHER)
        first = ask.future(b"a")
        until(lambda: len(late) == 1)
        expired, bad = ask.future(b"b", timeout=0.1), ask.future(b"bad")
        until(expired.done)
        until(lambda: refusal(lambda: ask(b"c", timeout=0.2))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED)
        gate.set()
        assert first.result() == b"a" and refusal(bad.result)[1] == "a fault of the router; its log says more"
        assert len(late) == 2  # what had expired took no thread's time
        assert served.refused("busy") >= 1 and ask(b"d") == b"d"


def test_a_request_that_is_too_large_is_refused_and_counted() -> None:
    with serving(lambda raw, reply: reply.end(raw, None), replace(LIMITS, request_bytes=1_000)) as served:
        assert served.ask(bytes(1_000)) == bytes(1_000)
        code, details = refusal(lambda: served.ask(bytes(1_001)))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED and "1001 vs. 1000" in details
        until(lambda: served.refused("broken") == served.handled("ResourceExhausted") == 1)
        assert refusal(lambda: list(served.channel.stream_unary(METHOD)(iter([]))))[0] is grpc.StatusCode.UNIMPLEMENTED
        assert served.refused("broken") == 1 and served.door.in_flight == 0


def test_a_server_stops_with_calls_under_way() -> None:
    kept = Kept()
    with serving(kept) as served:
        waiting = served.ask.future(b"")
        until(lambda: len(kept.replies) == 1)
        stopped = threading.Thread(target=served.server.stop, args=(30,))
        stopped.start()
        stopped.join(0.2)
        assert stopped.is_alive()
        kept.answer()
        stopped.join(10)
        assert not stopped.is_alive()
        # The server has sent it; that the caller has read it, too, needs its channel open until then.
        assert waiting.result(10) == b"done"


def test_health_is_watched_by_a_few_and_the_oldest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "WATCHERS", 2)
    with serving(Kept()) as served:
        served.server.serving(True)
        stub = health_pb2_grpc.HealthStub(served.channel)
        assert stub.Check(health_pb2.HealthCheckRequest(service="test.Service")).status == 1
        code, details = refusal(lambda: stub.Check(health_pb2.HealthCheckRequest(service="none")))
        assert code is grpc.StatusCode.NOT_FOUND and "test.Service" in details
        watches = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(3) if not time.sleep(0.1)]
        assert next(watches[2]).status == 1 and refusal(lambda: list(watches[0]))[0] is grpc.StatusCode.CANCELLED
        served.server.retire()
        served.server.serving(True)  # has no effect any more
        assert next(watches[2]).status == stub.Check(health_pb2.HealthCheckRequest()).status == 2
        for watch in watches:
            watch.cancel()


def answers(
    delay: ControlledDelay, seconds: float, rate: float, took: float, start: float, pressed: bool = False
) -> float:
    """So many answers that took so long; returns when. `pressed`: others were refused beside them."""
    for number in range(round(seconds * rate)):
        delay.pressed |= pressed
        delay.answered(took, start + number / rate)
    return start + seconds


def test_a_standing_queue_is_cut_to_what_is_answered_in_time() -> None:
    delay = ControlledDelay(256)
    now = answers(delay, 1.0, 2_000, 0.005, 0.0)
    assert delay.now == 256
    now = answers(delay, 3 * INTERVAL, 2_000, 0.15, now)
    assert delay.now == pytest.approx(2_000 * TARGET_SECONDS, rel=0.1)
    now = answers(delay, 3 * INTERVAL, 2_000, 0.02, now, pressed=True)
    assert delay.now < 256  # quick only because others were refused
    now = answers(delay, 3 * INTERVAL, 2_000, 0.02, now)
    assert delay.now == 256


def test_a_burst_is_absorbed_and_slow_models_have_a_target_of_their_own() -> None:
    delay = ControlledDelay(256)
    now = answers(delay, 1.0, 1_000, 0.01, 0.0)
    for number in range(100):  # a stall, and what waited meanwhile; then as before
        delay.answered(0.2 - number / 1_000, now + number / 2_000)
    answers(delay, 1.0, 1_000, 0.01, now + 0.05)
    assert delay.now == 256
    slow = ControlledDelay(256)
    now = answers(slow, 1.0, 100, 0.2, 0.0)
    assert answers(slow, 1.0, 100, 0.5, now) and slow.now == 256
    answers(slow, 1.0, 100, 0.7, now + 1)
    assert slow.now < 256
