"""The page's client of the router: its replicas, the served world, and one query of two models."""

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

ASKED_TIMEOUT, POLL_TIMEOUT = 3.0, 1.0
"""Seconds to wait for an answer that a viewer asked for, and for one that is polled every second."""
PairKind = Literal["duplicates", "generations", "arms"]
"""What two slates side by side differ by."""
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class RouterQuery:
    """A query of the router."""

    user: str
    context: tuple[int, ...] = ()
    """One value per field; or none."""
    k: int = 10
    arm: str = ""
    """Empty: the router picks one by user."""

    def request(self, **pinned: Any) -> RecommendRequest:
        """The message, with a new query id."""
        fields: dict[str, Any] = {"query_id": secrets.randbits(63) | 1, "user_id": self.user, "context": self.context}
        return RecommendRequest(**fields | {"k": self.k, "arm": self.arm} | pinned)


@dataclass(frozen=True)
class TitledSlate:
    """An answer with titles."""

    by: AnsweredBy
    places: list[Place]
    unknown_user: bool


@dataclass(frozen=True)
class SlatePair:
    """Two answers to one query, and how much they differ."""

    slates: tuple[TitledSlate, TitledSlate]
    measures: dict[str, float]
    """By name in MEASURES; without those that have nothing to measure."""


class RouterClient:
    """A router, or several that are asked in turn."""

    def __init__(self, address: str, credentials: Credentials = PLAIN) -> None:
        self.address = address
        self._channel = router_channel(address, partial(connect, credentials))
        self._stub = RecommenderStub(self._channel)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def replicas(self) -> list[ReplicaState]:
        """Replicas that it knows, by name. This and all below raise FlickerError in a line that names the address."""
        return list(self._call(self._stub.ListReplicas, ListReplicasRequest(), POLL_TIMEOUT).replicas)

    def world(self, find: str) -> World:
        """The served world, and users whose ids begin with `find`."""
        return self._call(self._stub.Describe, DescribeRequest(find=find), ASKED_TIMEOUT).world

    def recommend(self, query: RouterQuery, **pinned: Any) -> TitledSlate:
        """One answer; `pinned`: the duplicate and the generation that give it."""
        return self._with_titles([self._call(self._stub.Recommend, query.request(**pinned), ASKED_TIMEOUT)])[0]

    def slate_pair(
        self, query: RouterQuery, beside: PairKind, duplicates: tuple[int, int], other_arm: str = ""
    ) -> SlatePair:
        """The answers of two duplicates, of two generations of the first one, or of two arms of it."""
        if beside == "arms":
            first = self._call(self._stub.Recommend, query.request(duplicate=duplicates[0]), ASKED_TIMEOUT)
            pinned = {"duplicate": duplicates[0], "generation": first.answered_by.generation, "arm": other_arm}
            answers = [first, self._call(self._stub.Recommend, query.request(**pinned), ASKED_TIMEOUT)]
            left, right = self._with_titles(answers)
            return SlatePair((left, right), slate_measures(*answers))
        is_refresh = beside == "generations"
        request = CompareRequest(
            query=query.request(),
            duplicates=duplicates[:1] if is_refresh else sorted(duplicates),
            cause=CAUSE_REFRESH if is_refresh else CAUSE_DUPLICATE,
        )
        compared = self._call(self._stub.Compare, request, ASKED_TIMEOUT)
        left, right = self._with_titles(compared.answers)
        if not is_refresh and left.by.duplicate != duplicates[0]:
            left, right = right, left
        return SlatePair((left, right), dict(compared.comparisons[0].measures))

    def user_pair(self, arm: str, users: int) -> tuple[float, float]:
        """Pairs of candidates that one model orders differently for two random users in one context, and all pairs:
        the candidates are the first one's."""

        def ask(**pinned: Any) -> RecommendResponse:
            query, user = secrets.randbits(63) | 1, secrets.randbelow(users)
            request = RecommendRequest(query_id=query, user=user, arm=arm, score_all=True, **pinned)
            return self._call(self._stub.Recommend, request, POLL_TIMEOUT)

        answer1 = ask()
        pinned: dict[str, Any] = {
            "duplicate": answer1.answered_by.duplicate,
            "generation": answer1.answered_by.generation,
        }
        pinned["candidates"] = answer1.scored.items
        answer2 = ask(**pinned)
        score_of = dict(zip(answer2.scored.items, answer2.scored.scores, strict=True))
        both = answer1.scored.scores, [score_of[item] for item in answer1.scored.items]
        no_slate, items = np.empty((1, 0), np.int64), np.array([answer1.scored.items])
        sums = MEASURES["pair"].fn(*(Answers(no_slate, items, np.array([scores], np.float32)) for scores in both))
        return float(sums[0][0]), float(sums[1][0])

    def _with_titles(self, answers: Sequence[RecommendResponse]) -> list[TitledSlate]:
        items = sorted({place.item for answer in answers for place in answer.slate})
        descriptions = self._call(self._stub.Describe, DescribeRequest(items=items), ASKED_TIMEOUT).items
        by_item = dict(zip(items, descriptions, strict=True))
        return [
            TitledSlate(
                answer.answered_by,
                [Place(by_item[place.item].id, by_item[place.item].title, place.score) for place in answer.slate],
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


def slate_measures(answer1: RecommendResponse, answer2: RecommendResponse) -> dict[str, float]:
    """The measures of MEASURES that two slates give without scores."""
    k = min(len(answer1.slate), len(answer2.slate))
    no_scores = np.empty((1, 0), np.float32)
    slates = [np.array([[place.item for place in answer.slate[:k]]], np.int64) for answer in (answer1, answer2)]
    names = [name for name, measure in MEASURES.items() if measure.swap]
    first, second = (Answers(slate, no_scores.astype(np.int64), no_scores) for slate in slates)
    sums = compare(first, second, names)[:, :, 0]
    return {name: above / below for name, (above, below) in zip(names, sums.tolist(), strict=True) if below}
