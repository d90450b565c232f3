"""The answers that a comparison has on its sides: the user's own, and those of models that are asked for it."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from protos.recommender_pb2 import PackedResponse, RecommendRequest
from serving.router.replica import Replica
from serving.router.work import Waiting


def ask(replica: Replica, query: bytes, duplicate: int, generation: int, deadline: float) -> Waiting:
    """Ask one model a query, with all scores, off the users' lane; the answer comes later."""
    call = Waiting(query + _pinned(duplicate, generation), deadline)
    replica.shadow.submit(call)
    return call


@functools.lru_cache(64)
def _pinned(duplicate: int, generation: int) -> bytes:
    """What is appended to a query."""
    return RecommendRequest(duplicate=duplicate, generation=generation, score_all=True).SerializeToString()


@dataclass(eq=False, slots=True)
class Answered:
    """The user's own answer, with all scores."""

    response: PackedResponse

    def parsed(self) -> PackedResponse:
        """See Asked."""
        return self.response


@dataclass(eq=False, slots=True)
class Asked:
    """A model that was asked off the user's path."""

    call: Waiting

    def parsed(self) -> PackedResponse:
        """Its answer, once it is there. Raises Refusal."""
        return PackedResponse.FromString(self.call.result())


Side = Answered | Asked
