"""Queries, candidates, clicks and feedback of the synthetic world: recounts by hand and frequencies."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from simulator.config import SyntheticConfig
from simulator.errors import SettingError
from simulator.types import Batch
from simulator.world.stream import BLOCK, RECENT, SPAN, SyntheticWorld
from tests.world.synthetic_checks import CONFIG, assert_frequencies, value


@pytest.fixture(scope="module")
def world() -> SyntheticWorld:
    return SyntheticWorld(CONFIG, seed=3)


@pytest.fixture(scope="module")
def log(world: SyntheticWorld) -> Batch:
    return next(world.batches(CONFIG.events))


def assert_recount(world: SyntheticWorld, log: Batch, at: int) -> None:
    """Recount with plain dictionaries over events 0 .. at - 1 alone: nothing later can have a say."""
    past = log[:at]
    clicked = [(int(u), int(i)) for u, i, y in zip(past.user, past.item, past.label, strict=True) if y == 1][-RECENT:]
    age = world.audience.age_group
    overall = Counter(item for _, item in clicked)
    present = [int(i) for i in world.catalog.present(at * SPAN / CONFIG.events)]
    queries = world.queries(40, 60, at, "run")
    assert len({int(age[q.user]) for q in queries}) >= 4
    for query in queries:
        own = Counter(item for user, item in clicked if age[user] == age[query.user])
        expected = sorted(present, key=lambda item: (-own[item], -overall[item], item))[:60]
        assert query.candidates.tolist() == expected


@pytest.mark.parametrize("at", [700, BLOCK - 1, BLOCK, BLOCK + 1, 50_001, CONFIG.events])
def test_candidates_are_a_recount_of_the_past(world: SyntheticWorld, log: Batch, at: int) -> None:
    assert_recount(world, log, at)


def test_an_engagement_counts_from_the_next_event_on(world: SyntheticWorld, log: Batch) -> None:
    """While clicks are few each of them shows, so one event too many or too few would be seen."""
    for event in np.flatnonzero(log.label[:40]):
        assert_recount(world, log, int(event))
        assert_recount(world, log, int(event) + 1)


def test_the_first_queries_see_the_catalogue_in_order(world: SyntheticWorld) -> None:
    for query in world.queries(3, 20, 0, "run"):
        assert query.candidates.tolist() == world.catalog.present(0.0)[:20].tolist()


def test_a_query_carries_its_truth_and_its_features(world: SyntheticWorld) -> None:
    at, queries = 30_000, world.queries(300, 50, 30_000, "run")
    assert len({q.id for q in queries} | {q.id for q in world.queries(300, 50, at + 1, "run")}) == 600
    for query in queries[:20]:
        assert len(set(query.candidates)) == 50 and query.time == pytest.approx(SPAN / 4)
        context = np.tile(np.array(query.context, np.int32), (50, 1))
        user, time = np.full(50, query.user), np.full(50, query.time)
        assert (context[:, 2] == world.schema.first_row("position")).all()
        assert np.array_equal(query.features, world.encoder.encode(user, query.candidates, context))
        expected = world.probability(user, query.candidates, context, time)
        np.testing.assert_allclose(query.relevance, expected, rtol=1e-5)
    share = world.audience.activity.share
    assert share[[q.user for q in queries]].mean() == pytest.approx((share**2).sum(), rel=0.3)
    users = [q.user for q in world.queries(300, 50, at, "final")]
    assert users != [q.user for q in queries]
    assert users[:7] == [q.user for q in world.queries(7, 50, at, "final")]


def test_too_few_items_for_the_candidates() -> None:
    world = SyntheticWorld(SyntheticConfig(events=1_000, users=10, items=20, turnover=0.5), seed=0)
    assert len(world.queries(2, 15, 0, "run")[0].candidates) == 15
    with pytest.raises(SettingError, match=r"^candidates = 16: .*15.*$") as error:
        world.queries(2, 16, 0, "run")
    assert "\n" not in str(error.value)


def test_clicks_follow_truth_and_position(world: SyntheticWorld) -> None:
    queries = world.queries(3_000, 40, 60_000, "run")
    slates = [query.candidates[np.argsort(-query.relevance)[:12]] for query in queries]
    clicks = np.stack([world.click(q, s, "run") for q, s in zip(queries, slates, strict=True)])
    assert set(np.unique(clicks)) == {0, 1} and clicks.dtype == np.float32
    position = np.arange(1, 13)
    best = np.stack([np.sort(query.relevance)[::-1][:12] for query in queries]).astype(np.float64)
    p = best * position**-CONFIG.position_bias
    assert_frequencies(clicks.ravel(), p.ravel(), np.tile(position, len(queries)))
    assert_frequencies(clicks.ravel(), p.ravel(), np.floor(p * 20).astype(int).ravel())
    again = world.click(queries[0], slates[0], "run")
    assert np.array_equal(again, clicks[0])
    other = np.stack([world.click(q, s, "other") for q, s in zip(queries, slates, strict=True)])
    assert not np.array_equal(other, clicks)


def test_feedback_is_the_shown_slate(world: SyntheticWorld) -> None:
    query = world.queries(1, 40, 60_000, "run")[0]
    items, clicks = query.candidates[:12], np.arange(12, dtype=np.float32) % 2
    batch = world.feedback(query, items, clicks)
    assert batch.user.tolist() == [query.user] * 12 and np.array_equal(batch.item, items)
    assert (batch.time == query.time).all() and np.array_equal(batch.label, clicks)
    assert value(world, batch, "position").tolist() == [*range(10), 9, 9]  # the page has ten, the rest count as last
    assert np.array_equal(batch.features[:, :-1], query.features[:12, :-1])
