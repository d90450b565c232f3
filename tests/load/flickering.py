"""A real gRPC server that plays the router, with flicker that is known: the oracle of the load's tests.

A query has an even number and its repetition the next one, so that the server can tell pairs by itself.
"""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from protos.recommender_pb2 import (
    AnsweredBy,
    FeedbackRequest,
    FeedbackResponse,
    Item,
    RecommendRequest,
    RecommendResponse,
)
from protos.recommender_pb2_grpc import RecommenderServicer, add_RecommenderServicer_to_server


class Flickering(RecommenderServicer):
    """Answers items 0, 1, 2 ...; of every second repetition of an arm's queries the first two are exchanged."""

    def __init__(self, refuse_every: int = 0, refresh_every: int = 0) -> None:
        """Every `refuse_every`-th query fails; after every `refresh_every` queries the generation is another."""
        self._refuse_every, self._refresh_every = refuse_every, refresh_every
        self._lock = threading.Lock()
        self.asked: list[RecommendRequest] = []
        self.refused = 0
        self.answers: dict[int, RecommendResponse] = {}
        self.feedback: list[FeedbackRequest] = []
        self._repeats: Counter[str] = Counter()

    def Recommend(self, request: RecommendRequest, context: grpc.ServicerContext) -> RecommendResponse:
        with self._lock:
            self.asked.append(request)
            if self._refuse_every and len(self.asked) % self._refuse_every == 0:
                self.refused += 1
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")
            arm = request.arm or ("even" if request.user % 2 == 0 else "odd")
            items = list(range(request.k))
            if request.query_id % 2:
                self._repeats[arm] += 1
                if self._repeats[arm] % 2 == 0:
                    items[:2] = [1, 0]
            generation = len(self.asked) // self._refresh_every if self._refresh_every else 0
            answer = RecommendResponse(
                query_id=request.query_id,
                slate=[Item(item=item, score=-place) for place, item in enumerate(items)],
                answered_by=AnsweredBy(replica="one", arm=arm, generation=generation),
            )
            self.answers[request.query_id] = answer
            return answer

    def Feedback(self, request: FeedbackRequest, context: grpc.ServicerContext) -> FeedbackResponse:
        with self._lock:
            self.feedback.append(request)
        return FeedbackResponse(accepted=len(request.shown))

    def forget(self) -> None:
        """Start to record anew."""
        with self._lock:
            self.asked, self.answers, self.feedback, self.refused = [], {}, [], 0

    def pairs(self) -> Counter[tuple[str, bool, bool]]:
        """Answered repetitions by arm, same generation, and changed."""
        found: Counter[tuple[str, bool, bool]] = Counter()
        for id, second in self.answers.items():
            if id % 2:
                first = self.answers[id - 1]
                same = first.answered_by.generation == second.answered_by.generation
                changed = [place.item for place in first.slate] != [place.item for place in second.slate]
                found[second.answered_by.arm, same, changed] += 1
        return found


def serve(servicer: Flickering, probes: health.HealthServicer | None = None) -> tuple[grpc.Server, str]:
    """A server that listens on a free port of 127.0.0.1, and its address; with a health service where one is given."""
    server = grpc.server(ThreadPoolExecutor(8))
    if probes is not None:
        health_pb2_grpc.add_HealthServicer_to_server(probes, server)
    add_RecommenderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"
