"""The router's gRPC server: bytes in, bytes out; health and reflection beside it."""

from __future__ import annotations

from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from protos import recommender_pb2
from protos.recommender_pb2 import CompareRequest, FeedbackRequest, FeedbackResponse, ListReplicasResponse
from serving.codec import Refusal, bad
from serving.router.compare import compare_all
from serving.router.feedback import Feedback, report_of
from serving.router.metrics import RouterMetrics
from serving.router.router import Router
from serving.rpc import Door, GrpcMetrics, GrpcServer, Handler, Limits, Reply, Threads, as_refusal
from serving.shadow import Shadow

SERVICE = recommender_pb2.DESCRIPTOR.services_by_name["Recommender"].full_name
THREADS, MOST_WAITING = 4, 64
"""Threads for the list of replicas, and such calls at work or waiting for one."""
COMPARES = 2, 8
"""The same of comparisons: a person looks, and each takes as long as many queries."""
REQUEST_BYTES = 128 << 10
"""Twice what a query with 10,000 candidates takes."""
Parsed = TypeVar("Parsed", bound=Message)


class Methods:
    """What the router answers."""

    def __init__(self, router: Router, shadow: Shadow, feedback: Feedback, metrics: RouterMetrics) -> None:
        self._router, self._shadow, self._feedback, self._metrics = router, shadow, feedback, metrics

    def recommend(self, raw: bytes, reply: Reply) -> None:
        """Recommender.Recommend; does not wait."""
        self._router.begin(raw, reply.deadline, self._shadow, reply.end)

    def refused(self) -> None:
        """A query that did not come so far."""
        self._metrics.queries.labels("", grpc.StatusCode.RESOURCE_EXHAUSTED.name).inc()

    def compare(self, raw: bytes, deadline: float) -> bytes:
        """Recommender.Compare."""
        return compare_all(parse(CompareRequest(), raw), self._router, deadline).SerializeToString()

    def feedback(self, raw: bytes, reply: Reply) -> None:
        """Recommender.Feedback; does not wait."""
        try:
            published = self._router.published()
            report = report_of(parse(FeedbackRequest(), raw), published)
        except Exception as problem:
            return reply.end(b"", as_refusal(problem, "router"))
        events, clicked = len(report.events), int(report.events.label.sum())

        def told(refusal: Refusal | None) -> None:
            if refusal:
                return reply.end(b"", refusal)
            self._metrics.feedback_events.labels("true").inc(clicked)
            self._metrics.feedback_events.labels("false").inc(events - clicked)
            accepted = events if published.learns_feedback else 0
            reply.end(FeedbackResponse(accepted=accepted).SerializeToString(), None)

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

    def __init__(self, methods: Methods, metrics: GrpcMetrics, address: tuple[str, int], limits: Limits) -> None:
        """Raises SettingError where the address cannot be had."""
        door = Door(limits, metrics)
        threads, compares = Threads(door, THREADS, MOST_WAITING, "router"), Threads(door, *COMPARES, "router")
        handlers = {
            "Recommend": Handler(methods.recommend, sheds=True, refused=methods.refused),
            "Compare": compares.method(methods.compare, sheds=True),
            "Feedback": Handler(methods.feedback),
            "ListReplicas": threads.method(methods.list_replicas),
        }
        super().__init__(SERVICE, handlers, door, address)
