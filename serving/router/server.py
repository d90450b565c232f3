"""The router's gRPC server: bytes in, bytes out; health and reflection beside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from protos import recommender_pb2
from protos.recommender_pb2 import CompareRequest, FeedbackRequest, FeedbackResponse, ListReplicasResponse
from serving.calls import Reply, unary
from serving.codec import Refusal, bad
from serving.grpc_server import End, GrpcMetrics, GrpcServer, as_refusal, ending
from serving.router.compare import compare_all
from serving.router.feedback import Feedback, report_of
from serving.router.metrics import RouterMetrics
from serving.router.router import Router
from serving.router.work import late
from serving.shadow import Shadow

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

    def __init__(self, router: Router, shadow: Shadow, feedback: Feedback, metrics: RouterMetrics) -> None:
        self._router, self._shadow, self._feedback, self._metrics = router, shadow, feedback, metrics

    def recommend(self, raw: bytes, deadline: float, end: End) -> None:
        """Recommender.Recommend; does not wait."""
        self._router.begin(raw, deadline, self._shadow, end)

    def compare(self, raw: bytes, deadline: float) -> bytes:
        """Recommender.Compare."""
        return compare_all(parse(CompareRequest(), raw), self._router, deadline).SerializeToString()

    def feedback(self, raw: bytes, deadline: float, end: End) -> None:
        """Recommender.Feedback; does not wait."""
        try:
            published = self._router.published()
            report = report_of(parse(FeedbackRequest(), raw), published)
        except Exception as problem:
            return end(b"", as_refusal(problem, "router"))
        events, clicked = len(report.events), int(report.events.label.sum())

        def told(refusal: Refusal | None) -> None:
            if refusal:
                return end(b"", refusal)
            self._metrics.feedback_events.labels("true").inc(clicked)
            self._metrics.feedback_events.labels("false").inc(events - clicked)
            accepted = events if published.learns_feedback else 0
            end(FeedbackResponse(accepted=accepted).SerializeToString(), None)

        if published.learns_feedback:
            self._feedback.take(report, told)
        else:
            told(None)

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


class Server(GrpcServer):
    """Its health is SERVING while queries can be answered."""

    def __init__(
        self, methods: Methods, metrics: GrpcMetrics, address: tuple[str, int], most_in_flight: int, deadline: float
    ) -> None:
        """`deadline`: seconds for an answer where the caller allows more or says nothing."""
        self._metrics, self._deadline = metrics, deadline
        waiting = {"Compare": methods.compare, "ListReplicas": methods.list_replicas}
        handlers = {name: self._handler(name, method) for name, method in waiting.items()}
        handlers["Recommend"] = self._direct("Recommend", methods.recommend)
        handlers["Feedback"] = self._direct("Feedback", methods.feedback)
        threads = most_in_flight + SPARE
        super().__init__(SERVICE, handlers, address, threads, threads)

    def _direct(self, name: str, method: Beginning) -> grpc.RpcMethodHandler[bytes, bytes]:
        """A method that is answered by whichever thread has the answer."""
        begins = self._metrics.method(SERVICE, name)

        def begin(raw: bytes, reply: Reply) -> None:
            end = ending(reply, begins())
            left = reply.seconds_left()
            if left <= 0:
                return end(b"", late())
            method(raw, time.monotonic() + min(left, self._deadline), end)

        return unary(begin)

    def _handler(self, name: str, method: Method) -> grpc.RpcMethodHandler[bytes, bytes]:
        """A method that a thread answers."""
        begins = self._metrics.method(SERVICE, name)

        def behave(raw: bytes, context: grpc.ServicerContext) -> bytes:
            ended, refusal, answer = begins(), None, b""
            try:
                answer = method(raw, time.monotonic() + self._time_left(context))
            except Exception as problem:
                refusal = as_refusal(problem, "router")
                context.set_code(refusal.code)
                context.set_details(refusal.message)
            ended(refusal.code if refusal else grpc.StatusCode.OK)
            return answer

        return grpc.unary_unary_rpc_method_handler(behave)  # no serialisers: raw bytes

    def _time_left(self, context: grpc.ServicerContext) -> float:
        left = context.time_remaining()
        if left is not None and left <= 0:
            raise late()
        return self._deadline if left is None else min(left, self._deadline)
