"""Estimates against plain double loops over fleets, pairs, queries and users, in Python floats."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

from simulator.measures.comparison import Comparison, Estimates, Rankings, Shape
from simulator.measures.registry import MEASURES, Answers, Measure
from simulator.randomness import generator
from simulator.types import Query

ARMS, FLEETS, DUPLICATES, QUERIES, CANDIDATES, K, EVENTS = 2, 2, 3, 7, 9, 4, 31
MODELS, BIAS = ARMS * FLEETS * DUPLICATES, 0.5
SHAPE = Shape(ARMS, FLEETS, DUPLICATES)
DRAWS = generator(3, "test comparison")

LABELS = (DRAWS.random(EVENTS) < 0.4).astype(np.float32)
LOGITS = DRAWS.normal(-1, 2, (MODELS, EVENTS)).astype(np.float32)
EVENT_USERS = DRAWS.integers(0, 12, EVENTS)
BEFORE, AFTER = DRAWS.integers(-3, 3, (2, MODELS, QUERIES, CANDIDATES)).astype(np.float32)  # integers: many ties


def make_queries() -> list[Query]:
    """Users in common and not in common with the events, one asking several times; one query without an answer."""
    made = []
    for number in range(QUERIES):
        items = DRAWS.permutation(100)[:CANDIDATES]
        relevance = np.round(DRAWS.random(CANDIDATES), 1).astype(np.float32) * (number != 2)
        nothing = np.zeros((CANDIDATES, 1), np.int32)
        made.append(Query(number, (3, 3, 20, 5, 21, 3, 0)[number], 0.0, (), items, nothing, relevance))
    return made


ASKED = make_queries()
COMPARISON = Comparison(SHAPE, ASKED, EVENT_USERS, repetitions=50, seed=0)
RANKED_BEFORE, RANKED = Rankings(BEFORE, ASKED, K), Rankings(AFTER, ASKED, K)
arms = pytest.mark.parametrize("arm", range(ARMS))


def model(arm: int, fleet: int, duplicate: int) -> int:
    return (arm * FLEETS + fleet) * DUPLICATES + duplicate


def pairs(arm: int) -> Iterator[tuple[int, int]]:
    for fleet in range(FLEETS):
        for r in range(DUPLICATES):
            for s in range(r):
                yield model(arm, fleet, r), model(arm, fleet, s)


def members(arm: int) -> list[int]:
    return [model(arm, fleet, r) for fleet in range(FLEETS) for r in range(DUPLICATES)]


def probability(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))


def ranking(scores: np.ndarray, m: int, q: int) -> list[int]:
    """Item numbers of all candidates, best first."""
    given = zip(scores[m, q].tolist(), ASKED[q].candidates.tolist(), strict=True)
    return [item for _, item in sorted(given, key=lambda one: (-one[0], one[1]))]


def relative(p: float, q: float) -> float:
    return 2 * abs(p - q) / (p + q)


def slot(a: list[int], b: list[int]) -> float:
    return sum(a[i] != b[i] for i in range(K)) / K


def top1(a: list[int], b: list[int]) -> float:
    return float(a[0] != b[0])


def members_swapped(a: list[int], b: list[int]) -> float:
    return 1 - len(set(a[:K]) & set(b[:K])) / K


def swapped_pairs(a: list[int], b: list[int]) -> list[tuple[int, int]]:
    """(above, below) in a that are the other way round in b."""
    return [(x, y) for i, x in enumerate(a) for y in a[i + 1 :] if b.index(x) > b.index(y)]


def pair(a: list[int], b: list[int]) -> float:
    return len(swapped_pairs(a, b)) / (CANDIDATES * (CANDIDATES - 1) / 2)


def rbo(a: list[int], b: list[int]) -> float:
    depths = range(1, K + 1)
    overlap = sum(0.9 ** (d - 1) * len(set(a[:d]) & set(b[:d])) / d for d in depths)
    return 1 - overlap / sum(0.9 ** (d - 1) for d in depths)


def slate_pairs(a: list[int], b: list[int]) -> tuple[float, float]:
    common = [item for item in a[:K] if item in b[:K]]
    swapped = [(x, y) for x, y in swapped_pairs(a, b) if x in common and y in common]
    return float(len(swapped)), len(common) * (len(common) - 1) / 2


Swap = Callable[[list[int], list[int]], float]
BRUTE: dict[str, Swap] = {
    "slot": slot,
    "top1": top1,
    "set": members_swapped,
    "pair": pair,
    "rbo": rbo,
    "slate": lambda a, b: float(a[:K] != b[:K]),
}


def agree(found: Estimates, expected: dict[str, float], tolerance: float = 1e-12) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].mean == pytest.approx(value, rel=tolerance, abs=tolerance), name
        interval = found[name].interval(minimum=-math.inf)
        assert interval.low <= interval.mean <= interval.high


def swaps_of(models: list[tuple[int, int]], first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    cells = [(a, b, q) for a, b in models for q in range(QUERIES)]
    lists = [(ranking(first, a, q), ranking(second, b, q)) for a, b, q in cells]
    inside = [slate_pairs(*both) for both in lists]
    given = [(first[a, q].tolist(), second[b, q].tolist()) for a, b, q in cells]
    return {
        **{name: fmean(swap(*both) for both in lists) for name, swap in BRUTE.items()},
        "slate_pair": sum(part[0] for part in inside) / sum(part[1] for part in inside),
        "pd_candidates": fmean(fmean(map(relative, map(probability, x), map(probability, y))) for x, y in given),
        "pd_candidates_ranking": fmean(
            fmean(
                relative(probability(p - (fmean(x) - fmean(y)) / 2), probability(r + (fmean(x) - fmean(y)) / 2))
                for p, r in zip(x, y, strict=True)
            )
            for x, y in given
        ),
    }


def test_models_of_arms_and_fleets_are_numbered_as_the_stack_numbers_them() -> None:
    assert [SHAPE.models(arm).tolist() for arm in range(ARMS)] == [
        [[0, 1, 2], [3, 4, 5]],
        [[6, 7, 8], [9, 10, 11]],
    ]


@arms
def test_cause_duplicate(arm: int) -> None:
    agree(COMPARISON.duplicate_swaps(arm, RANKED), swaps_of(list(pairs(arm)), AFTER, AFTER))


@arms
def test_cause_refresh_compares_a_duplicate_with_itself(arm: int) -> None:
    itself = [(m, m) for m in members(arm)]
    agree(COMPARISON.refresh_swaps(arm, RANKED_BEFORE, RANKED), swaps_of(itself, BEFORE, AFTER))


@arms
def test_cause_both_compares_with_every_other_duplicate_one_generation_later(arm: int) -> None:
    ordered = [*pairs(arm), *((b, a) for a, b in pairs(arm))]
    agree(COMPARISON.both_swaps(arm, RANKED_BEFORE, RANKED), swaps_of(ordered, BEFORE, AFTER))


@arms
def test_prediction_difference_and_its_parts(arm: int) -> None:
    x = LOGITS.astype(float)
    whole, ranked = [], []
    for a, b in pairs(arm):
        mean_a, mean_b = fmean(x[a]), fmean(x[b])
        middle = (mean_a + mean_b) / 2
        for event in range(EVENTS):
            whole.append(relative(probability(x[a, event]), probability(x[b, event])))
            moved = probability(x[a, event] - mean_a + middle), probability(x[b, event] - mean_b + middle)
            ranked.append(relative(*moved))
    pd, left = fmean(whole), fmean(ranked)
    agree(COMPARISON.differences(arm, LOGITS), {"pd": pd, "pd_ranking": left, "pd_shift": pd - left})


@arms
def test_log_loss_auc_and_calibration(arm: int) -> None:
    chances = {m: [probability(x) for x in LOGITS[m].astype(float)] for m in members(arm)}
    losses = [-math.log(p if y else 1 - p) for m in members(arm) for p, y in zip(chances[m], LABELS, strict=True)]
    expected = {
        "log_loss": fmean(losses),
        "auc": fmean(float(roc_auc_score(LABELS, LOGITS[m])) for m in members(arm)),
        "calibration": fmean(fmean(chances[m]) / float(LABELS.mean(dtype=float)) for m in members(arm)),
    }
    agree(COMPARISON.accuracy(arm, LOGITS, LABELS), expected)


def plain_ranking_loss(m: int, q: int) -> float | None:
    rel, score = ASKED[q].relevance.astype(float), AFTER[m, q].astype(float)
    others = [(i, j) for i in range(CANDIDATES) for j in range(CANDIDATES) if i != j]
    mass = sum(rel[i] * (1 - rel[j]) for i, j in others)
    loss = sum(rel[i] * (1 - rel[j]) * math.log1p(math.exp(score[j] - score[i])) for i, j in others)
    return loss / mass if mass else None


def plain_regret(m: int, q: int) -> float:
    truth = dict(zip(ASKED[q].candidates.tolist(), ASKED[q].relevance.tolist(), strict=True))
    seen = [(place + 1) ** -BIAS for place in range(K)]
    best = sum(s * r for s, r in zip(seen, sorted(truth.values(), reverse=True)[:K], strict=True))
    got = sum(s * truth[item] for s, item in zip(seen, ranking(AFTER, m, q)[:K], strict=True))
    return 1 - got / best if best else 0.0


@arms
def test_ranking_loss_and_regret(arm: int) -> None:
    cells = [(m, q) for m in members(arm) for q in range(QUERIES)]
    losses = [loss for cell in cells if (loss := plain_ranking_loss(*cell)) is not None]
    assert len(losses) == len(cells) * (QUERIES - 1) / QUERIES  # the query without an answer has none
    lost = COMPARISON.regret(arm, RANKED, ASKED, BIAS)
    agree({"regret": lost}, {"regret": fmean(plain_regret(*cell) for cell in cells)})
    found = COMPARISON.ranking_quality(arm, RANKED, ASKED, truth=True)
    expected = {"ranking_loss": fmean(losses)}
    agree({"ranking_loss": found["ranking_loss"]}, expected, tolerance=1e-6)  # its terms are float32


def test_ranking_quality_leaves_out_what_nothing_is_known_of() -> None:
    silent = [
        Query(q.id, q.user, q.time, q.context, q.candidates, q.features, np.zeros(CANDIDATES, np.float32))
        for q in ASKED
    ]
    assert COMPARISON.ranking_quality(0, RANKED, silent, truth=False) == {}


@arms
def test_ndcg_recall_and_mrr_of_what_was_engaged_with(arm: int) -> None:
    """On a log: relevance is 0 or 1; the query without an answer counts in none."""
    asked = [replace(query, relevance=(query.relevance > 0.6).astype(np.float32)) for query in ASKED]
    found = COMPARISON.ranking_quality(arm, RANKED, asked, truth=False)
    gains, recalls, ranks = [], [], []
    for m in members(arm):
        for q, query in enumerate(asked):
            if not query.relevance.any():
                continue
            answers = set(query.candidates[query.relevance > 0].tolist())
            ranked = ranking(AFTER, m, q)
            score = [-ranked.index(item) for item in query.candidates.tolist()]
            gains.append(ndcg_score(query.relevance[None], np.array([score]), k=K))
            recalls.append(len(answers & set(ranked[:K])) / len(answers))
            ranks.append(1 / (1 + min(map(ranked.index, answers))))
    expected = {"ndcg": fmean(gains), "recall": fmean(recalls), "mrr": fmean(ranks)}
    agree({name: found[name] for name in expected}, expected)


@arms
def test_personalisation_is_pair_swaps_between_users(arm: int) -> None:
    found = COMPARISON.personalisation(arm, RANKED, RANKED_BEFORE)
    expected = fmean(pair(ranking(AFTER, m, q), ranking(BEFORE, m, q)) for m in members(arm) for q in range(QUERIES))
    agree({"personalisation": found}, {"personalisation": expected})


def test_a_new_measure_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    def last(a: Answers, b: Answers) -> tuple[np.ndarray, np.ndarray]:
        return (a.slates[:, -1] != b.slates[:, -1]).astype(float), np.ones(len(a.slates))

    monkeypatch.setitem(MEASURES, "last", Measure("last", "last swaps", "Whether the last item differs.", last))
    found = COMPARISON.duplicate_swaps(0, RANKED)
    assert found["last"].mean == fmean(
        ranking(AFTER, a, q)[K - 1] != ranking(AFTER, b, q)[K - 1] for a, b in pairs(0) for q in range(QUERIES)
    )


@arms
def test_churn_towards_and_away_from_the_truth(arm: int) -> None:
    useful, useless = [], []
    for m in members(arm):
        for q in range(QUERIES):
            truth = dict(zip(ASKED[q].candidates.tolist(), ASKED[q].relevance.tolist(), strict=True))
            moved = swapped_pairs(ranking(BEFORE, m, q), ranking(AFTER, m, q))
            good = sum(truth[below] > truth[above] for above, below in moved)
            useful.append(good / (CANDIDATES * (CANDIDATES - 1) / 2))
            useless.append((len(moved) - good) / (CANDIDATES * (CANDIDATES - 1) / 2))
    found = COMPARISON.churn(arm, RANKED_BEFORE, RANKED, ASKED)
    agree(found, {"useful_swaps": fmean(useful), "useless_swaps": fmean(useless)})


@arms
def test_progressive_loss_is_the_mean_over_the_arm(arm: int) -> None:
    losses = np.arange(MODELS, dtype=float) ** 2
    expected = fmean(losses[m] for m in members(arm))
    agree({"loss": COMPARISON.progressive(arm, losses)}, {"loss": expected})


def test_equal_rankings_and_predictions_differ_by_exactly_nothing() -> None:
    same = Rankings(np.repeat(AFTER[:1], MODELS, 0), ASKED, K)
    logits = np.repeat(LOGITS[:1], MODELS, 0)
    found = COMPARISON.duplicate_swaps(0, same) | COMPARISON.differences(0, logits)
    assert {name: (e.mean, e.half_width()) for name, e in found.items()} == dict.fromkeys(found, (0.0, 0.0))


def test_rankings_hold_slates_of_item_numbers_and_the_place_of_each_candidate() -> None:
    for m in range(MODELS):
        for q in range(QUERIES):
            best = ranking(AFTER, m, q)
            assert RANKED.slate(m, q).items.tolist() == best[:K]
            assert [best[place] for place in RANKED.parts[0].positions[m, q]] == ASKED[q].candidates.tolist()


def test_queries_of_different_lengths_are_measured_as_each_alone() -> None:
    sizes = [9, 3, 9, 2, 3, 5, 9]  # below and above K
    asked = [
        replace(q, candidates=q.candidates[:n], relevance=q.relevance[:n]) for q, n in zip(ASKED, sizes, strict=True)
    ]
    short = np.arange(CANDIDATES) < np.array(sizes)[:, None]
    before, after = (np.where(short, scores, np.nan).astype(np.float32) for scores in (BEFORE, AFTER))
    one, other = Rankings(before, asked, K), Rankings(after, asked, K)
    quality = Comparison(SHAPE, asked, EVENT_USERS, repetitions=2, seed=0)
    for number, (query, n) in enumerate(zip(asked, sizes, strict=True)):
        part = slice(number, number + 1)
        first, second = (Rankings(scores[:, part, :n], [query], K) for scores in (BEFORE, AFTER))
        for m in (0, MODELS - 1):
            assert np.array_equal(one.compared(m, other, m)[..., part], first.compared(m, second, m))
            assert other.slate(m, number).items.tolist() == second.parts[0].slates[m, 0].tolist()
    assert other.flat(3).tolist() == after[3][short].tolist()
    some = other.part(np.array([1, 4, 6]))
    assert np.array_equal(some.compared(0, some, 1), other.compared(0, other, 1)[..., [1, 4, 6]])
    found = quality.ranking_quality(0, other, asked, truth=True)["ndcg"].mean
    alone = [
        quality_of([query], Rankings(AFTER[:, i : i + 1, :n], [query], K))
        for i, (query, n) in enumerate(zip(asked, sizes, strict=True))
    ]
    assert found == pytest.approx(np.mean([value for value in alone if value is not None]))


def quality_of(asked: list[Query], ranked: Rankings) -> float | None:
    """NDCG of the first arm, None where nothing is relevant."""
    found = Comparison(SHAPE, asked, EVENT_USERS, repetitions=2, seed=0).ranking_quality(0, ranked, asked, truth=True)
    return found["ndcg"].mean if found else None
