"""The router's gRPC server: bytes in, bytes out; health and reflection beside it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import Counter, Histogram

from protos import recommender_pb2
from protos.recommender_pb2 import CompareRequest, FeedbackRequest, FeedbackResponse, ListReplicasResponse
from serving.calls import DirectPool, Reply, unary
from serving.codec import Refusal, bad
from serving.router.compare import compare_all
from serving.router.feedback import FeedbackBuffer, events_of
from serving.router.metrics import GrpcMetrics, RouterMetrics
from serving.router.router import End, Router
from serving.router.work import late
from serving.shadow import Shadow
from simulator.errors import SettingError

log = logging.getLogger(__name__)

SERVICE = recommender_pb2.DESCRIPTOR.services_by_name["Recommender"].full_name
SPARE = 32
"""Calls beyond the queries in flight: feedback, health and people's questions."""
Parsed = TypeVar("Parsed", bound=Message)
Method = Callable[[bytes, float], bytes]
"""From a request's bytes and its deadline on the monotonic clock to the answer's bytes; raises Refusal."""
Beginning = Callable[[bytes, float, End], None]
"""The same without waiting: the end is told the outcome."""


class Methods:
    """What the router answers."""

    def __init__(self, router: Router, shadow: Shadow, feedback: FeedbackBuffer, metrics: RouterMetrics) -> None:
        self._router, self._shadow, self._feedback, self._metrics = router, shadow, feedback, metrics

    def recommend(self, raw: bytes, deadline: float, end: End) -> None:
        """Recommender.Recommend; does not wait."""
        self._router.begin(raw, deadline, self._shadow, end)

    def compare(self, raw: bytes, deadline: float) -> bytes:
        """Recommender.Compare."""
        return compare_all(parse(CompareRequest(), raw), self._router, deadline).SerializeToString()

    def feedback(self, raw: bytes, deadline: float) -> bytes:
        """Recommender.Feedback."""
        request, published = parse(FeedbackRequest(), raw), self._router.published()
        events = events_of(request, published)
        if published.learns_feedback:
            self._feedback.take(events)
        clicked = int(events.label.sum())
        self._metrics.feedback_events.labels("true").inc(clicked)
        self._metrics.feedback_events.labels("false").inc(len(events) - clicked)
        return FeedbackResponse(accepted=len(events) if published.learns_feedback else 0).SerializeToString()

    def list_replicas(self, raw: bytes, deadline: float) -> bytes:
        """Recommender.ListReplicas."""
        try:
            arms = self._router.published().ranges.arms
        except Refusal:  # replicas may wait for the first generation
            arms = ()
        return ListReplicasResponse(replicas=self._router.pool.states(arms)).SerializeToString()


def parse(message: Parsed, raw: bytes) -> Parsed:
    """Fill a message from its bytes. Raises Refusal where they are none."""
    try:
        message.ParseFromString(raw)
    except DecodeError:
        raise bad("request", f"{len(raw)} bytes", f"the bytes of a {message.DESCRIPTOR.full_name}") from None
    return message


def spelled(code: grpc.StatusCode) -> str:
    """As the metrics of other gRPC servers spell it: `InvalidArgument`, `OK`."""
    return "OK" if code is grpc.StatusCode.OK else code.name.title().replace("_", "")


class Server:
    """Listens from the start; its health is SERVING while queries can be answered."""

    def __init__(
        self, methods: Methods, metrics: GrpcMetrics, address: str, most_in_flight: int, deadline: float
    ) -> None:
        """`deadline`: seconds for an answer where the caller allows more or says nothing."""
        self._metrics, self._deadline = metrics, deadline
        threads = most_in_flight + SPARE
        self._server = grpc.server(
            DirectPool(threads, thread_name_prefix="serve"),
            options=[("grpc.so_reuseport", 0)],
            maximum_concurrent_rpcs=threads,
        )
        handlers = {"Recommend": self._direct("Recommend", methods.recommend)}
        handlers |= {
            name: self._handler(name, method)
            for name, method in (
                ("Compare", methods.compare),
                ("Feedback", methods.feedback),
                ("ListReplicas", methods.list_replicas),
            )
        }
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self.say(False)
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError:
            raise SettingError("port", address, "in use, or not ours: name a free port, or 0 for any") from None

    def start(self) -> None:
        """Begin to listen."""
        self._server.start()

    def say(self, serving: bool) -> None:
        """Set the health of the whole server and of the Recommender."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", SERVICE):
            self._health.set(service, status)

    def stop(self, seconds: float) -> None:
        """Say that it ends, take nothing new, and wait for what is being answered."""
        self._health.enter_graceful_shutdown()
        self._server.stop(seconds).wait()

    def _counters(self, name: str) -> tuple[Counter, dict[grpc.StatusCode, Counter], Histogram]:
        """Calls begun, calls ended by code, seconds of one method."""
        labels = ("unary", SERVICE, name)
        handled = {code: self._metrics.handled.labels(*labels, spelled(code)) for code in grpc.StatusCode}
        return self._metrics.started.labels(*labels), handled, self._metrics.seconds.labels(*labels)

    def _direct(self, name: str, method: Beginning) -> grpc.RpcMethodHandler[bytes, bytes]:
        """A method that is answered by whichever thread has the answer."""
        started, handled, seconds = self._counters(name)

        def begin(raw: bytes, reply: Reply) -> None:
            started.inc()
            start, left = time.monotonic(), reply.seconds_left()

            def end(answer: bytes, refusal: Refusal | None) -> None:
                handled[refusal.code if refusal else grpc.StatusCode.OK].inc()
                seconds.observe(time.monotonic() - start)
                if refusal is None:
                    reply.answer(answer)
                else:
                    reply.refuse(refusal.code, refusal.message)

            if left <= 0:
                return end(b"", late())
            method(raw, start + min(left, self._deadline), end)

        return unary(begin)

    def _handler(self, name: str, method: Method) -> grpc.RpcMethodHandler[bytes, bytes]:
        """A method that a thread answers."""
        started, handled, seconds = self._counters(name)

        def behave(raw: bytes, context: grpc.ServicerContext) -> bytes:
            started.inc()
            start, code = time.monotonic(), grpc.StatusCode.OK
            answer = b""
            try:
                answer = method(raw, start + self._time_left(context))
            except Refusal as refusal:
                code = refusal.code
                context.set_code(code)
                context.set_details(refusal.message)
            except Exception:
                log.exception("%s failed", name)
                code = grpc.StatusCode.INTERNAL
                context.set_code(code)
                context.set_details("a fault of the router; its log says more")
            handled[code].inc()
            seconds.observe(time.monotonic() - start)
            return answer

        return grpc.unary_unary_rpc_method_handler(behave)  # no serialisers: raw bytes

    def _time_left(self, context: grpc.ServicerContext) -> float:
        left = context.time_remaining()
        if left is not None and left <= 0:
            raise late()
        return self._deadline if left is None else min(left, self._deadline)
