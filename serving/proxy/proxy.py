"""What passes: bytes of a request to the first server, its bytes, code and metadata back. No thread waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Semaphore
from typing import Any

import grpc

from serving.codec import Refusal
from serving.proxy.channel import stream, unary
from serving.proxy.mirror import Mirror
from serving.rpc import FOREVER, NOTHING, Handler, Reply
from simulator.security.credentials import HEADER

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


class Proxy:
    """Answers as the first server does."""

    def __init__(self, first: grpc.Channel, mirror: Mirror, streams: int, takes_tokens: bool) -> None:
        """`takes_tokens`: those that users send are for this proxy, and not for the server."""
        self._first, self._mirror = first, mirror
        self._withheld = (*OURS, HEADER) if takes_tokens else OURS
        self._infer = self._call("ModelInfer")
        self._stream = stream(first, "ModelStreamInfer")
        self._room = Semaphore(streams)
        self._threads = ThreadPoolExecutor(streams + 4, thread_name_prefix="stream")  # some that refuse

    def handlers(self) -> dict[str, Handler]:
        """What answers each method with one request and one answer."""
        handlers = {name: Handler(partial(self._pass, self._call(name), None), WHO) for name in (*READS, *TRITONS)}
        return handlers | {"ModelInfer": Handler(self._model_infer, WHO, sheds=True)}

    def streams(self) -> dict[str, Any]:
        """What answers the others."""

        def serve(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            return self._model_stream_infer(requests, context)

        serve.experimental_thread_pool = self._threads  # type: ignore[attr-defined]  # how grpcio is told
        return {"ModelStreamInfer": grpc.stream_stream_rpc_method_handler(serve)}

    def _call(self, name: str) -> Any:
        return unary(self._first, name)

    def _model_infer(self, raw: bytes, reply: Reply) -> None:
        self._pass(self._infer, self._mirror.offer if self._mirror.samples(raw) else None, raw, reply)

    def _pass(self, call: Any, on_answer: OnAnswer | None, raw: bytes, reply: Reply) -> None:
        """Ask, and answer when the answer is there; does not wait."""
        pending = call.future(
            raw, timeout=reply.deadline - time.monotonic(), metadata=passed(reply.metadata, self._withheld)
        )
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
