"""Comparisons of answers to one query: of a sampled share of the users' queries, off their path, and on demand.

For a query that replica 1 answered at generation g, a sample compares

    cause duplicate   replica 1 and another duplicate's replica, both pinned to one generation that both hold (g)
    cause refresh     replica 1 pinned to g - 1 and to g, or to g and g + 1 where it has refreshed meanwhile

A sampled query is asked with the scores of all candidates, which are taken out again before the user gets the answer:
so replica 1 at g need not be asked again, and ranks a sampled query once more instead of twice. The other sides are
asked afterwards, and the user's query waits for none of them. What cannot be compared (a replica went, a generation is
gone) is counted and left out.

`Compare` asks several models at once, and says how much each pair of their answers differs.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
from grpc import StatusCode

from protos.recommender_pb2 import (
    CAUSE_REFRESH,
    Cause,
    CompareRequest,
    CompareResponse,
    Comparison,
    PackedResponse,
    RecommendRequest,
    RecommendResponse,
)
from serving.codec import Refusal, bad, without_scores
from serving.comparison import Answer, Backlog, Sample, compare_pairs
from serving.metrics import ShadowMetrics
from serving.router.pool import Pool, Replica, Waiting
from serving.router.router import RANGE, Router, stable_hash
from simulator.measures.registry import MEASURES
from simulator.types import Doubles

PATIENCE = 5.0
"""Seconds for an answer."""
MAX_COMPARED = 50_000
"""Candidates of all pairs of answers together that one comparison may have: half a second of CPU."""


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
class Pair:
    """One query asked of two models; the answers are to come."""

    cause: str
    query: bytes
    first: Waiting
    second: Waiting


class Shadow(Backlog):
    """Samples, asks and compares, in one thread of its own."""

    def __init__(
        self, pool: Pool, recorder: ShadowMetrics, seed: int, share: float, file: IO[str] | None = None
    ) -> None:
        """`share` of the queries, 0 to 1, sampled by hash(seed, query id); `file` gets a line for each comparison."""
        super().__init__(recorder, round(share * RANGE))
        self._pool, self._seed, self._file = pool, seed, file

    def close(self) -> None:
        """Stop after what is being compared."""
        self.finish(2 * PATIENCE)
        if self._file:
            self._file.close()

    def samples(self, query_id: int) -> bool:
        """Whether this query is to be compared: then it is asked with all scores, and offered with its answer."""
        return self._below > 0 and stable_hash(self._seed, "sample", query_id) < self._below

    def work(self, samples: list[Sample]) -> None:
        """See Backlog."""
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
        sides = {who.generation: Waiting(query, deadline)}
        sides[who.generation].end(answer, None)
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


def compare_all(request: CompareRequest, router: Router, deadline: float) -> CompareResponse:
    """Ask, and compare what was answered. Raises Refusal."""
    query, refresh = request.query, request.cause == CAUSE_REFRESH
    if request.cause not in Cause.values():
        raise bad("cause", request.cause, f"one of {', '.join(Cause.keys())}")
    if query.HasField("duplicate"):
        raise bad("query.duplicate", query.duplicate, "not to be set: name them in `duplicates`")
    routed = router.decide(query, query.SerializeToString())
    asked = holders(request.duplicates, router, refresh)
    pairs = len(asked) if refresh else math.comb(len(asked), 2)
    bounded(pairs, len(query.candidates))
    calls = [
        ask(replica, routed.query, number, generation, deadline)
        for number, replica in asked.items()
        for generation in generations(routed.generation, replica, asked.values(), refresh)
    ]
    raw = [call.result() for call in calls]
    answers = [Answer.of(PackedResponse.FromString(one)) for one in raw]
    bounded(pairs, max(len(answer.items) for answer in answers))
    numbers = range(len(answers))
    compared = [*zip(numbers[::2], numbers[1::2], strict=True)] if refresh else [*itertools.combinations(numbers, 2)]
    sums = compare_pairs([(answers[first], answers[second]) for first, second in compared])
    return CompareResponse(
        query_id=routed.query_id,
        comparisons=[measured(*pair, values) for pair, values in zip(compared, sums.tolist(), strict=True)],
        answers=[RecommendResponse.FromString(one if query.score_all else without_scores(one)) for one in raw],
    )


def bounded(pairs: int, candidates: int) -> None:
    """Raises Refusal where a comparison would keep the router from its users' queries."""
    if pairs * candidates > MAX_COMPARED:
        hint = f"at most {MAX_COMPARED:,} candidates in all: name fewer duplicates or fewer candidates"
        raise bad("duplicates", f"{pairs:,} pairs of answers with {candidates:,} candidates each", hint)


def generations(pinned: int | None, replica: Replica, asked: Iterable[Replica], refresh: bool) -> tuple[int, ...]:
    """What one replica is asked at: the newest that all have, or its own last two. Raises Refusal."""
    if not refresh:
        return (min(max(each.member.generation, 0) for each in asked) if pinned is None else pinned,)
    newest = replica.member.generation if pinned is None else pinned
    if newest < 1:
        message = f"generation = {newest}: there is none before it; wait for the next refresh"
        raise Refusal(StatusCode.FAILED_PRECONDITION, message)
    return newest - 1, newest


def holders(wanted: Sequence[int], router: Router, refresh: bool) -> dict[int, Replica]:
    """A healthy replica for each duplicate, ascending; all duplicates where none is named. Raises Refusal."""
    duplicates = router.published().ranges.duplicates
    for number in wanted:
        if number >= duplicates or list(wanted).count(number) > 1:
            raise bad("duplicates", number, f"distinct, each from 0 to {duplicates - 1}")
    held = sorted({replica.member.duplicate for replica in router.pool.able(None, None)})
    minimum = 1 if refresh else 2
    if 0 < len(wanted) < minimum:
        raise bad("duplicates", list(wanted), "at least 2 for CAUSE_DUPLICATE, or none for all")
    chosen = {number: router.pool.able(number, None)[0] for number in sorted(wanted or held)}
    if len(chosen) < minimum:
        message = f"healthy replicas hold duplicate {held[0]} only: start another replica, or ask with CAUSE_REFRESH"
        raise Refusal(StatusCode.FAILED_PRECONDITION, message)
    return chosen


def measured(first: int, second: int, sums: list[tuple[float, float]]) -> Comparison:
    """How much two of the answers differ."""
    values = dict(zip(MEASURES, sums, strict=True))
    return Comparison(
        first=first,
        second=second,
        common_candidates=int(values["pd_candidates"][1]),
        measures={name: part / whole for name, (part, whole) in values.items() if whole},
    )
