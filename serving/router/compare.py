"""Compare: one query asked of several models at once, and how much each pair of the answers differs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from grpc import StatusCode

from protos.recommender_pb2 import (
    CAUSE_REFRESH,
    Cause,
    CompareRequest,
    CompareResponse,
    Comparison,
    PackedResponse,
    RecommendResponse,
)
from serving.codec import Refusal, bad, without_scores
from serving.comparison import Answer, compare_pairs
from serving.router.pool import Replica
from serving.router.router import Router
from serving.shadow import ask
from simulator.measures.registry import MEASURES

MAX_COMPARED = 50_000
"""Candidates of all pairs of answers together that one comparison may have: half a second of CPU."""


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
