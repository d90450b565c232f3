"""`flicker shadow`, `python -m serving shadow`: from flags and environment to a running proxy, and what passes it.

Bytes of a request go to the first server, its bytes, code and metadata back. No thread waits for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

from serving.codec import Refusal
from serving.metrics import SECONDS, GrpcMetrics, ProxyMetrics
from serving.process import serve_alone
from serving.proxy.flags import ShadowFlags
from serving.proxy.mirror import SERVICE, Mirror
from serving.rpc import FOREVER, NOTHING, Door, GrpcServer, Handler, Limits, Reply
from simulator.flags import parse_flags
from simulator.security.credentials import HEADER

GRACE = 5.0
"""Seconds for what is being answered when the proxy ends."""
WEEKS = 2e6
"""Seconds that a connection may last: none of ours ends a stream."""
READS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata")
TRITONS = ("ModelConfig", "ModelStatistics", "RepositoryIndex")
"""What its clients ask beside the protocol. What changes a server is asked of the server itself."""
WHO = "proxy"
OURS = ("user-agent", "te", "content-type", "grpc-server-stats-bin")
"""Metadata that each connection has of its own, as all text that begins with `grpc-`. What is binary there is the
servers' own: details of an error."""
OnAnswer = Callable[[bytes, bytes], None]
"""Gets a request and the answer to it."""


def passed(metadata: Any, withheld: Collection[str] = OURS) -> tuple[tuple[str, str | bytes], ...]:
    """Metadata that goes on."""
    return tuple(
        (name, value)
        for name, value in metadata or ()
        if name not in withheld and (name.endswith("-bin") or not name.startswith("grpc-"))
    )


class RunningProxy:
    """Answers as the first server does; a process in three verbs."""

    def __init__(self, flags: ShadowFlags, registry: CollectorRegistry, stop: threading.Event) -> None:
        """Raises ResultError for a folder that cannot be written, SettingError for a port that cannot be had."""
        self.name = f"shadow of {flags.first}"
        credentials = flags.security.credentials()
        # tokens that users send are for this proxy where it has some, and else for the server
        self._withheld = (*OURS, HEADER) if credentials.tokens else OURS
        self._first = flags.connect(flags.first, flags.message_bytes)
        self._stream: Any = self._first.stream_stream(f"/{SERVICE}/ModelStreamInfer")  # type: ignore[call-arg]  # as `_call`
        self._room = threading.Semaphore(flags.streams)
        self._threads = ThreadPoolExecutor(flags.streams + 4, thread_name_prefix="stream")  # some that refuse
        self._mirror = Mirror(flags, ProxyMetrics(registry, flags.window))
        door = Door(limits(flags), GrpcMetrics(registry, SECONDS))
        address = flags.host, flags.port
        self._server = GrpcServer(SERVICE, self._handlers(), door, address, self._streams(), credentials)
        self.address = self._server.address

    def start(self) -> None:
        """Take calls; healthy while the first server is connected."""
        self._mirror.start()
        self._first.subscribe(self._connected, try_to_connect=True)
        self._server.start()

    def _connected(self, state: grpc.ChannelConnectivity) -> None:
        """A connection that ended is idle, until somebody asks for it: this does."""
        if state is grpc.ChannelConnectivity.IDLE:
            grpc.channel_ready_future(self._first)
        else:
            self._server.serving(state is grpc.ChannelConnectivity.READY)

    def stop(self) -> None:
        """Take nothing new, answer what was taken, write what was kept."""
        self._server.retire()
        self._server.stop(GRACE)
        self._first.unsubscribe(self._connected)  # and not closed: grpcio's thread that watches it would trip over that
        self._mirror.close()

    def _handlers(self) -> dict[str, Handler]:
        """What answers each method with one request and one answer."""
        handlers = {name: Handler(partial(self._pass, self._call(name), None), WHO) for name in (*READS, *TRITONS)}
        infer = partial(self._model_infer, self._call("ModelInfer"))
        return handlers | {"ModelInfer": Handler(infer, WHO, sheds=True)}

    def _streams(self) -> dict[str, Any]:
        """What answers the others."""

        def serve(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            return self._model_stream_infer(requests, context)

        serve.experimental_thread_pool = self._threads  # type: ignore[attr-defined]  # how grpcio is told
        return {"ModelStreamInfer": grpc.stream_stream_rpc_method_handler(serve)}

    def _call(self, name: str) -> Any:
        """A method with one request and one answer, as bytes."""
        return self._first.unary_unary(f"/{SERVICE}/{name}")  # type: ignore[call-arg]  # without serializers it is bytes

    def _model_infer(self, call: Any, raw: bytes, reply: Reply) -> None:
        self._pass(call, self._mirror.offer if self._mirror.samples(raw) else None, raw, reply)

    def _pass(self, call: Any, on_answer: OnAnswer | None, raw: bytes, reply: Reply) -> None:
        """Ask, and answer when the answer is there; does not wait."""
        seconds, metadata = reply.deadline - time.monotonic(), passed(reply.metadata, self._withheld)
        pending = call.future(raw, timeout=seconds, metadata=metadata)
        reply.when_gone(pending.cancel)
        pending.add_done_callback(partial(self._end, on_answer, raw, reply))

    def _end(self, on_answer: OnAnswer | None, raw: bytes, reply: Reply, done: Any) -> None:
        code, headers, trailers = done.code(), passed(done.initial_metadata()), passed(done.trailing_metadata())
        if code is not grpc.StatusCode.OK:
            return reply.end(b"", Refusal(code, done.details() or ""), headers, trailers)
        answer = done.result()
        if answer is None:
            return reply.end(b"", Refusal(grpc.StatusCode.INTERNAL, NOTHING), headers, trailers)
        reply.end(answer, None, headers, trailers)
        if on_answer:
            on_answer(raw, answer)

    def _model_stream_infer(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Messages of both directions as they come."""
        if not self._room.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "as many streams as may be are open: ask again later")
        try:
            metadata = passed(context.invocation_metadata(), self._withheld)
            call = self._stream(requests, timeout=min(context.time_remaining(), FOREVER), metadata=metadata)
            context.add_callback(call.cancel)
            context.send_initial_metadata(passed(call.initial_metadata()))  # waits for the first server's
            yield from call
            context.set_trailing_metadata(passed(call.trailing_metadata()))
        except grpc.RpcError as problem:
            context.set_trailing_metadata(passed(problem.trailing_metadata()))
            context.abort(problem.code(), problem.details() or "")
        finally:
            self._room.release()


def limits(flags: ShadowFlags) -> Limits:
    """What the proxy holds at once. A slow model is no reason to refuse: its queue is its own."""
    message_bytes = flags.message_bytes
    return Limits(
        flags.in_flight,
        message_bytes,
        deadline_seconds=flags.deadline,
        target_seconds=FOREVER,
        bytes=4 * message_bytes,
        half_open=flags.in_flight,
        half_open_seconds=60.0,
        unread=flags.in_flight,
        unread_bytes=4 * message_bytes,
        unread_seconds=60.0,
        streams=flags.in_flight,  # a gateway in front may bring all of them by one connection
        pending=flags.in_flight,
        pending_seconds=60,
        age_seconds=WEEKS,
    )


def main(arguments: list[str]) -> None:
    """Serve until a signal comes. Raises FlickerError for what the user can mend."""
    flags = parse_flags(ShadowFlags, "flicker shadow", arguments)
    serve_alone("shadow", flags, partial(RunningProxy, flags))
