"""The synthetic world against its own statements: frequencies, recounts by hand, and replays of the seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from simulator.config import SyntheticConfig
from simulator.errors import SettingError
from simulator.types import Batch, Ints, World
from simulator.world.catalog import Catalog
from simulator.world.clicks import ClickModel, examination
from simulator.world.stream import RECENT, SPAN, SyntheticWorld
from simulator.world.tastes import TASTES
from simulator.world.zipf import Zipf

CONFIG = SyntheticConfig(events=120_000, users=400, items=300, drift=0.5, turnover=0.4)


@pytest.fixture(scope="module")
def world() -> SyntheticWorld:
    return SyntheticWorld(CONFIG, seed=3)


@pytest.fixture(scope="module")
def log(world: SyntheticWorld) -> Batch:
    return next(world.batches(CONFIG.events))


def same(a: Batch, b: Batch) -> bool:
    pairs = ((a.user, b.user), (a.item, b.item), (a.time, b.time), (a.features, b.features), (a.label, b.label))
    return all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in pairs)


def value(world: SyntheticWorld, batch: Batch, field: str) -> Ints:
    """Values of a single-valued field, read back from the table rows."""
    return batch.features[:, world.schema.slot_range(field)][:, 0].astype(np.int64) - world.schema.first_row(field)


def truth(world: SyntheticWorld, batch: Batch) -> np.ndarray:
    return world.probability(batch.user, batch.item, batch.features[:, -3:], batch.time).astype(np.float64)


def assert_frequencies(label: np.ndarray, probability: np.ndarray, cells: np.ndarray) -> None:
    """Chi-square of observed against expected clicks per cell; a true model fails once in a million seeds."""
    observed, expected = np.bincount(cells, label), np.bincount(cells, probability)
    variance = np.bincount(cells, probability * (1 - probability))
    used = variance > 5
    assert used.sum() >= 5
    statistic = ((observed - expected)[used] ** 2 / variance[used]).sum()
    assert chi2.sf(statistic, used.sum()) > 1e-6


def test_it_is_a_world(world: SyntheticWorld) -> None:
    as_world: World = world
    assert as_world.name == "synthetic" and as_world.has_truth and as_world.events == CONFIG.events


def test_events_have_the_stated_form(world: SyntheticWorld, log: Batch) -> None:
    schema, n = world.schema, CONFIG.events
    assert [f.name for f in schema.fields][:3] == ["user", "age_group", "region"]
    assert log.features.shape == (n, schema.slots) and log.features.dtype == np.int32
    assert (np.diff(log.time) > 0).all() and log.time[0] == 0 and log.time[-1] < SPAN
    assert set(np.unique(log.label)) == {0, 1} and log.label.dtype == np.float32
    for field in schema.fields:
        rows, first = log.features[:, schema.slot_range(field.name)], schema.first_row(field.name)
        filled = rows[rows > 0] if field.slots > 1 else rows
        assert filled.min() >= first and filled.max() < first + field.vocabulary
    assert np.array_equal(value(world, log, "user"), log.user)
    assert np.array_equal(value(world, log, "item"), log.item)


def test_tags_are_distinct_one_to_three_and_padded_last(world: SyntheticWorld) -> None:
    tags = world.catalog.tags
    filled = (tags >= 0).sum(1)
    assert set(filled) == {1, 2, 3}
    for row, count in zip(tags, filled, strict=True):
        assert (row[:count] >= 0).all() and (row[count:] == -1).all() and len(set(row[:count])) == count


def test_hour_is_the_local_hour_of_the_event(world: SyntheticWorld, log: Batch) -> None:
    hour = value(world, log, "hour")
    for n in range(0, CONFIG.events, 997):
        assert hour[n] == (int(log.time[n] // 3600) + world.audience.zone[log.user[n]]) % 24
    region = value(world, log, "region")
    assert np.array_equal(region, world.audience.zone[log.user] // 3)


def test_labels_follow_the_true_probability(world: SyntheticWorld, log: Batch) -> None:
    p = truth(world, log) * (value(world, log, "position") + 1.0) ** -CONFIG.position_bias
    for cells in (log.user, log.item, np.floor(p * 50).astype(int), np.arange(len(log)) // 5_000):
        assert_frequencies(log.label, p, cells)


@pytest.mark.parametrize("bias", [0.0, 0.5, 2.0])
def test_position_bias_is_a_power_of_the_position(bias: float) -> None:
    world = SyntheticWorld(replace(CONFIG, events=60_000, position_bias=bias), seed=4)
    log = next(world.batches(60_000))
    position = value(world, log, "position") + 1
    assert set(position) == set(range(1, 11))
    p = truth(world, log) * position.astype(float) ** -bias
    assert_frequencies(log.label, p, position)


def test_the_wrong_bias_would_be_noticed(world: SyntheticWorld, log: Batch) -> None:
    position = value(world, log, "position") + 1
    with pytest.raises(AssertionError):
        assert_frequencies(log.label, truth(world, log) * position.astype(float) ** -0.6, position)


def test_probability_does_not_depend_on_the_position_but_on_all_else(world: SyntheticWorld, log: Batch) -> None:
    few = log[:500]
    base = truth(world, few)
    for column, changes in ((-1, False), (-2, True), (-3, True)):  # position, hour, device
        field = world.schema.fields[column]
        context, first = few.features[:, -3:].copy(), world.schema.first_row(field.name)
        context[:, column] = first + (context[:, column] - first + 1) % field.vocabulary
        other = world.probability(few.user, few.item, context, few.time)
        assert np.array_equal(other, base.astype(np.float32)) != changes
    shuffled = world.probability(few.user, np.roll(few.item, 1), few.features[:, -3:], few.time)
    assert np.abs(shuffled - base).mean() > 0.05


def test_truth_is_learnable_and_not_linear() -> None:
    world = SyntheticWorld(SyntheticConfig(events=50_000), seed=0)
    log = next(world.batches(50_000))
    p = truth(world, log)

    def entropy(q: np.ndarray | float) -> np.ndarray:
        return -(q * np.log(q) + (1 - q) * np.log1p(-q))

    assert abs(p.mean() - 0.4) < 0.03 and 0.2 <= log.label.mean() <= 0.3
    assert entropy(p).mean() < 0.75 * entropy(p.mean())
    # on log-odds, f(u, i) - f(u, j) - f(v, i) + f(v, j) is 0 for every additive model
    users, items = np.arange(0, 1_000), np.arange(0, 1_000)
    context, time = np.tile(log.features[:1, -3:], (1_000, 1)), np.zeros(1_000)

    def log_odds(user: Ints, item: Ints) -> np.ndarray:
        q = world.probability(user, item, context, time).astype(np.float64)
        return np.log(q / (1 - q))

    one, other = log_odds(users, items), log_odds(users, items + 1_000)
    cross = one - other - log_odds(users + 1_000, items) + log_odds(users + 1_000, items + 1_000)
    assert cross.std() > 0.25 * one.std()


def test_the_click_model_is_the_stated_formula() -> None:
    rng = np.random.default_rng(0)
    tastes = [rng.standard_normal((3_000, TASTES), dtype=np.float32) for _ in range(3)]
    model = ClickModel(np.random.default_rng(1), *tastes)
    log_odds = model.log_odds(*tastes).astype(np.float64)
    assert log_odds.std() == pytest.approx(2, rel=1e-3)
    p = model.probability(*tastes)
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-log_odds)), rtol=1e-5)
    assert p.mean() == pytest.approx(0.4, abs=1e-4)


def test_examination_is_one_at_the_top_and_falls_as_a_power() -> None:
    np.testing.assert_allclose(examination(np.array([1, 4, 9]), 0.5), [1, 1 / 2, 1 / 3])


@pytest.mark.parametrize("seed", range(3))
def test_zipf_draws_have_the_slope_and_the_shares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    zipf = Zipf(rng, 1_000, 0.8)
    assert sorted(zipf.share, reverse=True) == pytest.approx(np.arange(1, 1_001) ** -0.8 / (np.arange(1, 1_001) ** -0.8).sum())
    counts = np.bincount(zipf.draw(rng.random(400_000)), minlength=1_000)
    statistic = ((counts - 400_000 * zipf.share) ** 2 / (400_000 * zipf.share)).sum()
    assert 1e-6 < chi2.sf(statistic, 999) < 1 - 1e-6
    top = np.sort(counts)[::-1][:100]
    slope = np.polyfit(np.log(np.arange(1, 101)), np.log(top), 1)[0]
    assert slope == pytest.approx(-0.8, abs=0.05)
    assert zipf.draw(np.array([0.0, 1 - 2**-53])).tolist() == [0, 999]


def test_popularity_and_activity_in_the_log() -> None:
    world = SyntheticWorld(SyntheticConfig(events=200_000, users=500, items=300, turnover=0), seed=1)
    log = next(world.batches(200_000))
    for number, count, exponent in ((log.item, 300, 0.8), (log.user, 500, 0.6)):
        top = np.sort(np.bincount(number, minlength=count))[::-1][:100]
        assert np.polyfit(np.log(np.arange(1, 101)), np.log(top), 1)[0] == pytest.approx(-exponent, abs=0.05)


def test_tastes_stand_still_without_drift_and_move_by_the_stated_share_with_it() -> None:
    users, start, end = np.arange(5_000), np.zeros(5_000), np.full(5_000, SPAN)
    for drift in (0.0, 0.2, 1.0):
        audience = SyntheticWorld(SyntheticConfig(users=5_000, drift=drift), seed=2).audience
        first, half, last = (audience.taste(users, time) for time in (start, end / 2, end))
        assert np.sqrt(((last - first) ** 2).mean()) == pytest.approx(drift, rel=0.05, abs=1e-12)
        assert np.sqrt(((half - first) ** 2).mean()) == pytest.approx(drift / 2, rel=0.15, abs=1e-12)  # arc, chord
        assert last.std() == pytest.approx(first.std(), rel=0.1)


def test_probability_drifts_with_time_only_if_asked(log: Batch) -> None:
    for drift, moves in ((0.0, False), (0.5, True)):
        world = SyntheticWorld(replace(CONFIG, drift=drift), seed=3)
        user, item, context = log.user[:300], log.item[:300], log.features[:300, -3:]
        early = world.probability(user, item, context, np.zeros(300))
        late = world.probability(user, item, context, np.full(300, SPAN))
        later = world.probability(user, item, context, np.full(300, SPAN * 0.999))
        assert np.array_equal(early, late) != moves
        assert np.abs(late - later).max() < 0.01


@settings(max_examples=25, deadline=None)
@given(start=st.integers(0, 60_000), length=st.integers(0, 40_000), size=st.integers(100, 50_000))
def test_any_split_gives_the_same_events(world: SyntheticWorld, log: Batch, start: int, length: int, size: int) -> None:
    parts = list(world.batches(size, start, start + length))
    assert all(len(part) == size for part in parts[:-1])
    assert sum(len(part) for part in parts) == length
    if parts:
        assert same(Batch.concatenate(parts), log[start : start + length])


def test_a_caller_cannot_change_the_world(world: SyntheticWorld) -> None:
    first = next(world.batches(100))
    kept = first.label.copy()
    first.label[:] = 7
    assert np.array_equal(next(world.batches(100)).label, kept)


def test_the_seed_decides_everything(world: SyntheticWorld, log: Batch) -> None:
    again, other = SyntheticWorld(CONFIG, seed=3), SyntheticWorld(CONFIG, seed=4)
    part = next(again.batches(20_000, 50_000))
    assert same(part, log[50_000:70_000])
    different = next(other.batches(20_000, 50_000))
    assert not np.array_equal(part.label, different.label)
    assert np.abs(truth(world, part) - truth(other, part)).mean() > 0.05
    mine, same_query, theirs = (w.queries(5, 20, 60_000, "run") for w in (world, again, other))
    for a, b in zip(mine, same_query, strict=True):
        assert (a.id, a.user, a.context) == (b.id, b.user, b.context)
        assert np.array_equal(a.candidates, b.candidates) and np.array_equal(a.relevance, b.relevance)
    assert [q.user for q in mine] != [q.user for q in theirs]


@pytest.mark.parametrize("turnover", [0.0, 0.3, 0.9])
def test_items_are_shown_only_while_they_are_there(turnover: float) -> None:
    world = SyntheticWorld(replace(CONFIG, events=40_000, turnover=turnover), seed=5)
    catalog, log = world.catalog, next(world.batches(40_000))
    assert (log.time >= catalog.arrival[log.item]).all() and (log.time < catalog.departure[log.item]).all()
    moving = (catalog.arrival > 0) | (catalog.departure < SPAN)
    assert moving.sum() == round(turnover * CONFIG.items)
    for at in (0, 20_000, 40_000):
        present = set(catalog.present(at * SPAN / 40_000))
        for query in world.queries(10, 25, at, "run"):
            assert set(query.candidates) <= present
    assert len(set(log.item)) == CONFIG.items or turnover > 0


def test_absent_items_leave_the_shares_of_the_others_alone() -> None:
    catalog = Catalog(replace(CONFIG, items=50, turnover=0.9), 1, SPAN)
    time = SPAN / 3
    counts = np.bincount(catalog.draw(np.random.default_rng(0), np.full(200_000, time)), minlength=50)
    present = catalog.present(time)
    assert 0 < len(present) < 50 and counts[present].sum() == 200_000
    expected = 200_000 * catalog.popularity.share[present] / catalog.popularity.share[present].sum()
    assert 1e-6 < chi2.sf(((counts[present] - expected) ** 2 / expected).sum(), len(present) - 1) < 1 - 1e-6


@pytest.mark.parametrize("at", [1, 700, 16_384, 50_001, 120_000])
def test_candidates_are_a_recount_of_the_past(world: SyntheticWorld, log: Batch, at: int) -> None:
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


def test_the_smallest_world() -> None:
    world = SyntheticWorld(SyntheticConfig(events=1_000, users=10, items=20, turnover=0.9), seed=7)
    assert sum(len(batch) for batch in world.batches(64)) == 1_000
    assert world.queries(0, 2, 500, "run") == []
