"""The router's gRPC server: bytes in, bytes out; health and reflection beside it."""

from __future__ import annotations

import grpc

from protos import recommender_pb2
from protos.recommender_pb2 import (
    CompareRequest,
    DescribeRequest,
    FeedbackRequest,
    FeedbackResponse,
    ListReplicasResponse,
)
from serving.codec import Refusal, parse
from serving.router.compare import compare_all
from serving.router.feedback import Feedback, report_of
from serving.router.metrics import RouterMetrics
from serving.router.router import Router
from serving.rpc import Door, Handler, Reply, by_threads
from serving.shadow import Shadow

SERVICE = recommender_pb2.DESCRIPTOR.services_by_name["Recommender"].full_name
WHO = "router"
COMPARES = 2, 8
"""Threads for comparisons, and such calls at work or waiting: each takes as long as many queries."""
REQUEST_BYTES = 128 << 10
"""Twice what a query with 10,000 candidates takes."""


class Methods:
    """What the router answers."""

    def __init__(self, router: Router, shadow: Shadow, feedback: Feedback, metrics: RouterMetrics) -> None:
        self._router, self._shadow, self._feedback, self._metrics = router, shadow, feedback, metrics

    def handlers(self, door: Door) -> dict[str, Handler]:
        """What answers each method."""
        return {
            "Recommend": Handler(self.recommend, WHO, sheds=True, refused=self.refused),
            "Compare": by_threads(door, self.compare, *COMPARES, WHO, sheds=True),
            "Feedback": Handler(self.feedback, WHO),
            "Describe": Handler(self.describe, WHO),
            "ListReplicas": Handler(self.list_replicas, WHO),
        }

    def recommend(self, raw: bytes, reply: Reply) -> None:
        """Recommender.Recommend; does not wait."""
        self._router.begin(raw, reply.deadline, self._shadow, reply.end)

    def refused(self) -> None:
        """A query that did not come so far."""
        self._metrics.queries.labels("", grpc.StatusCode.RESOURCE_EXHAUSTED.name).inc()

    def compare(self, raw: bytes, deadline: float) -> bytes:
        """Recommender.Compare."""
        return compare_all(parse(CompareRequest, raw), self._router, deadline).SerializeToString()

    def feedback(self, raw: bytes, reply: Reply) -> None:
        """Recommender.Feedback; does not wait. Raises Refusal."""
        published = self._router.published()
        request = parse(FeedbackRequest, raw)
        user = published.user(request.user_id) if request.user_id else request.user
        report = report_of(request, user, published)
        learned = published.learns_feedback and user < published.ranges.users
        events, clicked = len(report.events), int(report.events.label.sum())

        def told(refusal: Refusal | None) -> None:
            if refusal:
                return reply.end(b"", refusal)
            self._metrics.feedback_events.labels("true").inc(clicked)
            self._metrics.feedback_events.labels("false").inc(events - clicked)
            accepted = events if learned else 0
            reply.end(FeedbackResponse(accepted=accepted).SerializeToString(), None)

        if learned:
            self._feedback.take(report, told)
        else:
            told(None)

    def describe(self, raw: bytes, reply: Reply) -> None:
        """Recommender.Describe; does not wait. Raises Refusal."""
        described = self._router.published().describe(parse(DescribeRequest, raw))
        reply.end(described.SerializeToString(), None)

    def list_replicas(self, raw: bytes, reply: Reply) -> None:
        """Recommender.ListReplicas; does not wait."""
        try:
            arms = self._router.published().ranges.arms
        except Refusal:  # replicas may wait for the first generation
            arms = ()
        reply.end(ListReplicasResponse(replicas=self._router.pool.states(arms)).SerializeToString(), None)
