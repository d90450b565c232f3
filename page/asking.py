"""What the page asks the router: who serves, what there is to ask, and one query of two models."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import grpc
import numpy as np

from protos.channel import router_channel
from protos.recommender_pb2 import (
    CAUSE_DUPLICATE,
    CAUSE_REFRESH,
    AnsweredBy,
    CompareRequest,
    DescribeRequest,
    ListReplicasRequest,
    RecommendRequest,
    RecommendResponse,
    ReplicaState,
    World,
)
from protos.recommender_pb2_grpc import RecommenderStub
from simulator.errors import FlickerError
from simulator.measures.registry import MEASURES, Answers, compare
from simulator.result import Place
from simulator.security.channels import connect
from simulator.security.credentials import PLAIN, Credentials

TIMEOUT, SHORT = 3.0, 1.0
"""Seconds to wait for an answer that somebody asked for, and for what is asked every second."""
Beside = Literal["duplicates", "generations", "arms"]
"""What two slates side by side differ by."""
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Query:
    """What is asked."""

    user: str
    context: tuple[int, ...] = ()
    """A number per field; or none."""
    k: int = 10
    arm: str = ""
    """Empty: whom the router takes for the user."""

    def request(self, **pinned: Any) -> RecommendRequest:
        """As it travels, with a number of its own."""
        fixed: dict[str, Any] = {"query_id": secrets.randbits(63) | 1, "user_id": self.user, "context": self.context}
        return RecommendRequest(**fixed | {"k": self.k, "arm": self.arm} | pinned)


@dataclass(frozen=True)
class Slate:
    """An answer with titles."""

    by: AnsweredBy
    places: list[Place]
    unknown_user: bool


@dataclass(frozen=True)
class Two:
    """Two answers to one query, and how much they differ."""

    slates: tuple[Slate, Slate]
    measures: dict[str, float]
    """By name in MEASURES; without those that have nothing to measure."""


class Router:
    """A router, or several that are asked in turn."""

    def __init__(self, address: str, credentials: Credentials = PLAIN) -> None:
        self.address = address
        self._channel = router_channel(address, partial(connect, credentials))
        self._stub = RecommenderStub(self._channel)

    def close(self) -> None:
        """Ask nothing more."""
        self._channel.close()

    def replicas(self) -> list[ReplicaState]:
        """Those that it knows, by name. This and all below raise FlickerError in a line that names the address."""
        return list(self._call(self._stub.ListReplicas, ListReplicasRequest(), SHORT).replicas)

    def world(self, find: str) -> World:
        """What may be asked, and users whose ids begin so."""
        return self._call(self._stub.Describe, DescribeRequest(find=find), TIMEOUT).world

    def recommend(self, query: Query, **pinned: Any) -> Slate:
        """One answer; `pinned`: the duplicate and the generation that are to give it."""
        return self._titled([self._call(self._stub.Recommend, query.request(**pinned), TIMEOUT)])[0]

    def two(self, query: Query, beside: Beside, duplicates: tuple[int, int], other_arm: str = "") -> Two:
        """The answers of two duplicates, of two generations of the first one, or of two arms of it."""
        if beside == "arms":
            first = self._call(self._stub.Recommend, query.request(duplicate=duplicates[0]), TIMEOUT)
            pinned = {"duplicate": duplicates[0], "generation": first.answered_by.generation, "arm": other_arm}
            answers = [first, self._call(self._stub.Recommend, query.request(**pinned), TIMEOUT)]
            one, other = self._titled(answers)
            return Two((one, other), slate_measures(*answers))
        refresh = beside == "generations"
        asked = CompareRequest(
            query=query.request(),
            duplicates=duplicates[:1] if refresh else sorted(duplicates),
            cause=CAUSE_REFRESH if refresh else CAUSE_DUPLICATE,
        )
        compared = self._call(self._stub.Compare, asked, TIMEOUT)
        one, other = self._titled(compared.answers)
        if not refresh and one.by.duplicate != duplicates[0]:
            one, other = other, one
        return Two((one, other), dict(compared.comparisons[0].measures))

    def strangers(self, arm: str, users: int) -> tuple[float, float]:
        """Pairs of candidates that one model orders differently for two random users in the same context, of how many:
        the candidates are the first one's."""
        first, second = (str(secrets.randbelow(users)) for _ in range(2))
        one = self._call(self._stub.Recommend, self._of(first, arm, score_all=True), SHORT)
        pinned = {"duplicate": one.answered_by.duplicate, "generation": one.answered_by.generation}
        other = self._call(
            self._stub.Recommend,
            self._of(second, arm, score_all=True, candidates=one.scored.items, **pinned),
            SHORT,
        )
        items, scores = np.array(one.scored.items), dict(zip(other.scored.items, other.scored.scores, strict=True))
        own = np.array(one.scored.scores, np.float32)
        its = np.array([scores[item] for item in one.scored.items], np.float32)
        none = np.empty((1, 0), np.int64)
        parts = MEASURES["pair"].fn(Answers(none, items[None], own[None]), Answers(none, items[None], its[None]))
        return float(parts[0][0]), float(parts[1][0])

    @staticmethod
    def _of(user: str, arm: str, **more: Any) -> RecommendRequest:
        return RecommendRequest(query_id=secrets.randbits(63) | 1, user=int(user), arm=arm, **more)

    def _titled(self, answers: Sequence[RecommendResponse]) -> list[Slate]:
        items = sorted({place.item for answer in answers for place in answer.slate})
        described = self._call(self._stub.Describe, DescribeRequest(items=items), TIMEOUT).items
        called = dict(zip(items, described, strict=True))
        return [
            Slate(
                answer.answered_by,
                [Place(called[each.item].id, called[each.item].title, each.score) for each in answer.slate],
                answer.unknown_user,
            )
            for answer in answers
        ]

    def _call(self, method: Callable[..., Answer], request: Any, seconds: float) -> Answer:
        try:
            return method(request, timeout=seconds)
        except grpc.RpcError as problem:
            assert isinstance(problem, grpc.Call)
            raise FlickerError(f"{self.address}: {problem.code().name}: {problem.details()}") from None


def slate_measures(one: RecommendResponse, other: RecommendResponse) -> dict[str, float]:
    """What two slates alone say: the measures of MEASURES that need no scores."""
    k = min(len(one.slate), len(other.slate))
    nothing = np.empty((1, 0), np.float32)
    first, second = (
        Answers(np.array([[place.item for place in answer.slate[:k]]], np.int64), nothing.astype(np.int64), nothing)
        for answer in (one, other)
    )
    names = [name for name, measure in MEASURES.items() if measure.swap]
    sums = compare(first, second, names)[:, :, 0].tolist()
    return {name: part / whole for name, (part, whole) in zip(names, sums, strict=True) if whole}
