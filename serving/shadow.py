"""Comparisons off the user's path: a sampled share of the queries is asked again of other models.

For a query that replica 1 answered at generation g:

    cause duplicate   replica 1 and another duplicate's replica, both pinned to one generation that both hold (g)
    cause refresh     replica 1 pinned to g - 1 and to g, or to g and g + 1 where it has refreshed meanwhile

A sampled query is asked with the scores of all candidates, which are taken out again before the user gets the answer:
so replica 1 at g need not be asked again, and ranks a sampled query once more instead of twice. The other sides are
asked afterwards, and the user's query waits for none of them. What cannot be compared (a replica went, a generation is
gone) is counted and left out.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
from grpc import StatusCode

from protos.recommender_pb2 import PackedResponse, RecommendRequest
from serving.backlog import Backlog, Sample
from serving.codec import Refusal
from serving.comparison import Answer, compare_pairs
from serving.metrics import ShadowMetrics
from serving.router.pool import RANGE, Pool, Replica, stable_hash
from serving.router.work import Waiting
from simulator.measures.registry import MEASURES
from simulator.types import Doubles


def ask(replica: Replica, query: bytes, duplicate: int, generation: int, deadline: float) -> Waiting:
    """Ask one model a query, with all scores, off the users' lane; the answer comes later."""
    call = Waiting(query + _pinned(duplicate, generation), deadline)
    replica.shadow.submit(call)
    return call


@functools.lru_cache(64)
def _pinned(duplicate: int, generation: int) -> bytes:
    """What is appended to a query."""
    return RecommendRequest(duplicate=duplicate, generation=generation, score_all=True).SerializeToString()


def answered(answer: bytes) -> Waiting:
    """A call whose answer is there."""
    call = Waiting(b"", 0.0)
    call.end(answer, None)
    return call


PATIENCE = 5.0
"""Seconds for an answer."""


@dataclass(eq=False, slots=True)
class Pair:
    """One query asked of two models; the answers are to come."""

    cause: str
    query: bytes
    first: Waiting
    second: Waiting


class Shadow:
    """Samples, asks and compares, in one thread of its own; nothing at all where the share is 0."""

    def __init__(
        self, pool: Pool, recorder: ShadowMetrics, seed: int, share: float, file: IO[str] | None = None
    ) -> None:
        """`share` of the queries, 0 to 1, sampled by hash(seed, query id); `file` gets a line for each comparison."""
        self._pool, self._recorder, self._seed, self._file = pool, recorder, seed, file
        self._below = round(share * RANGE)
        self._backlog = Backlog(recorder, self._work)
        self.offer = self._backlog.offer
        """Takes a query that `samples` chose, and its answer with all scores."""

    def start(self) -> None:
        """Begin to compare."""
        if self._below:
            self._backlog.start()

    def close(self) -> None:
        """Stop after what is being compared."""
        self._backlog.close(2 * PATIENCE)
        if self._file:
            self._file.close()

    def samples(self, query_id: int) -> bool:
        """Whether this query is to be compared: then it is asked with all scores."""
        return self._below > 0 and stable_hash(self._seed, "sample", query_id) < self._below

    def _work(self, samples: list[Sample]) -> None:
        self._compare([pair for sample in samples for pair in self._ask(*sample)])

    def _ask(self, query: bytes, answer: bytes) -> list[Pair]:
        """Ask the other sides of one sampled query; the answers come later."""
        response = PackedResponse.FromString(answer)
        who, healthy = response.answered_by, self._pool.healthy
        first = next((replica for replica in healthy if replica.name == who.replica), None)
        if first is None:
            return []
        pairs: list[Pair] = []
        deadline = time.monotonic() + PATIENCE
        sides = {who.generation: answered(answer)}
        serve = [r for r in reversed(healthy) if r.member.generation >= 0]  # one that came back has none for a moment
        others = {r.member.duplicate: r for r in serve if r.member.duplicate != who.duplicate}

        def side(generation: int) -> Waiting:
            if generation not in sides:
                sides[generation] = ask(first, query, who.duplicate, generation, deadline)
            return sides[generation]

        if others:
            number = stable_hash(self._seed, "second", response.query_id) % len(others)
            duplicate = sorted(others)[number]
            second = others[duplicate]
            both = min(who.generation, second.member.generation)
            other = ask(second, query, duplicate, both, deadline)
            pairs.append(Pair("duplicate", query, side(both), other))
        newest = max(who.generation, first.member.generation)
        if newest > 0:
            pairs.append(Pair("refresh", query, side(newest - 1), side(newest)))
        return pairs

    def _compare(self, pairs: list[Pair]) -> None:
        """Wait for the answers, compare all that came, record."""
        compared: list[tuple[Pair, PackedResponse, PackedResponse]] = []
        answers: list[tuple[Answer, Answer]] = []

        @functools.cache
        def read(side: Waiting) -> tuple[PackedResponse, Answer]:
            response = PackedResponse.FromString(side.result())
            return response, Answer.of(response)

        for pair in pairs:
            try:
                (one, first), (two, second) = read(pair.first), read(pair.second)
            except Refusal as refusal:
                self._recorder.fail(pair.cause, refusal.code.name)
                continue
            if not all(np.isfinite(answer.scores).all() for answer in (first, second)):
                self._recorder.fail(pair.cause, StatusCode.DATA_LOSS.name)  # a NaN would stay in a counter for good
                continue
            compared.append((pair, one, two))
            answers.append((first, second))
        differences = compare_pairs(answers)
        groups: dict[tuple[str, str], list[int]] = {}
        for number, (pair, one, two) in enumerate(compared):
            groups.setdefault((one.answered_by.arm, pair.cause), []).append(number)
            if self._file:
                self._file.write(json.dumps(line(pair, (one, two), differences[number])) + "\n")
        if self._file:
            self._file.flush()
        for (arm, cause), group in groups.items():
            self._recorder.record(arm, cause, differences[group].sum(0))


def line(pair: Pair, answers: Sequence[PackedResponse], difference: Doubles) -> dict[str, object]:
    """One comparison, difference [measures, 2], with all that it takes to repeat it offline from the snapshots."""
    query = RecommendRequest.FromString(pair.query)
    return {
        "query_id": answers[0].query_id,
        "user": query.user,
        "context": list(query.context),
        "k": query.k,
        "candidates": list(query.candidates),
        "arm": answers[0].answered_by.arm,
        "cause": pair.cause,
        "duplicates": [answer.answered_by.duplicate for answer in answers],
        "generations": [answer.answered_by.generation for answer in answers],
        "slates": [[item.item for item in answer.slate] for answer in answers],
        "difference": dict(zip(MEASURES, difference.tolist(), strict=True)),
    }
