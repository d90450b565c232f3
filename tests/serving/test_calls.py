"""Calls that hold no thread: over real sockets, with grpcio's inside and without it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from serving import calls
from serving.calls import Begin, DirectPool, Reply, unary
from tests.serving.router_under_test import refusal, until

METHOD = "/test.Service/Method"


@pytest.fixture(params=["direct", "threads"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By grpcio's inside, which the pinned version has, and as with a version that lacks it."""
    assert calls._INSIDE is not None
    if request.param == "threads":
        monkeypatch.setattr(calls, "_INSIDE", None)
    return str(request.param)


@contextmanager
def a_server(begin: Begin, most: int = 400) -> Iterator[tuple[grpc.Server, DirectPool, str]]:
    """A server with one such method, and where it listens."""
    pool = DirectPool(most)
    server = grpc.server(pool, maximum_concurrent_rpcs=most)
    service, method = METHOD.strip("/").split("/")
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: unary(begin)})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield server, pool, f"127.0.0.1:{port}"
    finally:
        server.stop(1.0).wait()


@contextmanager
def serving(begin: Begin, most: int = 400) -> Iterator[tuple[grpc.UnaryUnaryMultiCallable[bytes, bytes], DirectPool]]:
    """The same, asked by the block."""
    with a_server(begin, most) as (_, pool, target), grpc.insecure_channel(target) as channel:
        yield channel.unary_unary(METHOD), pool


def test_answers_come_from_any_thread_and_take_none_of_the_pool(way: str) -> None:
    with ThreadPoolExecutor(4) as others:

        def begin(raw: bytes, reply: Reply) -> None:
            others.submit(reply.answer, raw[::-1])

        with serving(begin) as (ask, pool):
            futures = [ask.future(b"%d" % number) for number in range(100, 400)]
            assert [future.result() for future in futures] == [(b"%d" % number)[::-1] for number in range(100, 400)]
            assert (len(pool._threads) == 0) == (way == "direct")


def test_a_refusal_and_a_fault_end_the_call_with_their_codes() -> None:
    def begin(raw: bytes, reply: Reply) -> None:
        if raw == b"bad":
            return reply.refuse(grpc.StatusCode.INVALID_ARGUMENT, "raw = bad: good \u00b5")
        if raw == b"late fault":
            reply.answer(b"answered")
        raise ValueError("ours")

    with serving(begin) as (ask, _):
        assert refusal(lambda: ask(b"bad")) == (grpc.StatusCode.INVALID_ARGUMENT, "raw = bad: good \u00b5")
        code, details = refusal(lambda: ask(b"fault"))
        assert code is grpc.StatusCode.INTERNAL and "ours" not in details
        assert refusal(lambda: ask(b"fault"))[0] is grpc.StatusCode.INTERNAL  # the server lives on


def test_a_fault_after_the_answer_changes_nothing(way: str) -> None:
    def begin(raw: bytes, reply: Reply) -> None:
        reply.answer(b"answered")
        if way == "direct":
            raise ValueError("ours")

    with serving(begin) as (ask, _):
        assert [ask(b"") for _ in range(3)] == [b"answered"] * 3


def test_deadlines_are_told_and_who_goes_is_noticed() -> None:
    replies: list[tuple[Reply, float]] = []
    gone = threading.Event()

    def begin(raw: bytes, reply: Reply) -> None:
        replies.append((reply, reply.seconds_left()))
        reply.when_ended(gone.set)

    with serving(begin) as (ask, _):
        assert refusal(lambda: ask(b"", timeout=0.5))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        assert gone.wait(10) and 0 < replies[0][1] < 0.6
        replies[0][0].answer(b"nobody hears it")
        waiting = ask.future(b"")
        until(lambda: len(replies) == 2)
        assert replies[1][1] > 3_600
        replies[1][0].answer(b"heard")
        assert waiting.result() == b"heard"


def test_calls_beyond_the_limit_are_refused_and_room_is_made_again() -> None:
    replies: list[Reply] = []
    with serving(lambda raw, reply: replies.append(reply), most=2) as (ask, _):
        waiting = [ask.future(b""), ask.future(b"")]
        until(lambda: len(replies) == 2)
        assert refusal(lambda: ask(b""))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        for reply in replies:
            reply.answer(b"done")
        assert [future.result() for future in waiting] == [b"done"] * 2

        def answered() -> bool:
            future = ask.future(b"")
            until(lambda: future.done() or len(replies) == 3)
            return len(replies) == 3

        until(answered)
        replies[2].answer(b"again")


def test_the_server_stops_with_calls_under_way() -> None:
    replies: list[Reply] = []
    with (
        a_server(lambda raw, reply: replies.append(reply)) as (server, _, target),
        grpc.insecure_channel(target) as channel,
    ):
        waiting = channel.unary_unary(METHOD).future(b"")
        until(lambda: len(replies) == 1)
        stopped = server.stop(30)
        assert not stopped.wait(0.2)
        replies[0].answer(b"in time")
        assert stopped.wait(10)
        # The server has sent it; that the caller has read it, too, needs its channel open until then.
        assert waiting.result(10) == b"in time"
