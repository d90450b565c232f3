"""The events of the synthetic world against its own statements: frequencies and replays of the seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.config import SyntheticConfig
from simulator.measures.quality import log_loss
from simulator.types import Batch, World
from simulator.world.population import logit
from simulator.world.stream import BLOCK, SPAN, SyntheticWorld
from tests.world.synthetic_checks import CONFIG, assert_frequencies, same, truth, value


@pytest.fixture(scope="module")
def world() -> SyntheticWorld:
    return SyntheticWorld(CONFIG, seed=3)


@pytest.fixture(scope="module")
def log(world: SyntheticWorld) -> Batch:
    return next(world.batches(CONFIG.events))


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


def test_truth_is_learnable() -> None:
    log = next((world := SyntheticWorld(SyntheticConfig(events=50_000), seed=0)).batches(50_000))
    p = truth(world, log)

    def entropy(q: np.ndarray | float) -> np.ndarray:
        return -(q * np.log(q) + (1 - q) * np.log1p(-q))

    assert abs(p.mean() - 0.4) < 0.03 and 0.2 <= log.label.mean() <= 0.3
    assert entropy(p).mean() < 0.75 * entropy(p.mean())


def anova(log_odds: np.ndarray) -> tuple[float, float, float]:
    """Variance components of rows, columns and their interaction of a table [n, m] of all pairs of n rows and m
    columns drawn at random: the two-way analysis of variance with one observation in a cell."""
    n, m = log_odds.shape
    row, column = log_odds.mean(1, keepdims=True), log_odds.mean(0, keepdims=True)
    both = float(((log_odds - row - column + log_odds.mean()) ** 2).sum() / ((n - 1) * (m - 1)))
    return float(row.var(ddof=1)) - both / m, float(column.var(ddof=1)) - both / n, both


@pytest.mark.parametrize("interaction", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_the_dial_is_the_share_of_the_variance_that_is_user_by_item(interaction: float, seed: int) -> None:
    """Over users and items as impressions have them, at one moment: within 8 % of what the dial says; and what the
    world reports of itself, from more of them, within 0.02."""
    world = SyntheticWorld(SyntheticConfig(events=20_000, interaction=interaction), seed)
    log = next(world.batches(20_000))
    users, items = np.repeat(log.user[:400], 400), np.tile(log.item[400:800], 400)
    context, time = np.tile(log.features[7:8, -3:], (160_000, 1)), np.full(160_000, log.time[7])
    table = logit(world.probability(users, items, context, time)).reshape(400, 400)
    whole = logit(truth(world, log)).var()
    of_user, of_item, both = (part / whole for part in anova(table.astype(np.float64)))
    shares = world.shares()
    assert both == pytest.approx(interaction, rel=0.08, abs=1e-6)
    assert shares["user x item"] == pytest.approx(interaction, abs=0.02)
    assert shares["user"] == pytest.approx((1 - interaction) / 2, abs=0.02)
    assert shares["user"] == pytest.approx(of_user, abs=0.06)
    assert shares["item"] == pytest.approx(of_item, abs=0.12)  # some 150 items bear most impressions
    assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) > -0.01


def test_the_oracle_predicts_clicks_with_their_position_bias(world: SyntheticWorld, log: Batch) -> None:
    p = truth(world, log) * (value(world, log, "position") + 1.0) ** -CONFIG.position_bias
    oracle = world.truth(log)
    np.testing.assert_allclose(1 / (1 + np.exp(-oracle)), p, rtol=1e-4)
    losses = [log_loss(oracle + step, log.label).mean() for step in (-0.1, 0, 0.1)]
    assert losses[1] == min(losses), "not even another level is better"


def test_popularity_and_activity_in_the_log() -> None:
    world = SyntheticWorld(SyntheticConfig(events=200_000, users=500, items=300, turnover=0), seed=1)
    log = next(world.batches(200_000))
    for number, count, exponent in ((log.item, 300, 0.8), (log.user, 500, 0.6)):
        top = np.sort(np.bincount(number, minlength=count))[::-1][:100]
        assert np.polyfit(np.log(np.arange(1, 101)), np.log(top), 1)[0] == pytest.approx(-exponent, abs=0.05)


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


def test_blocks_do_not_repeat_each_other(world: SyntheticWorld, log: Batch) -> None:
    position = value(world, log, "position")
    assert not np.array_equal(position[:BLOCK], position[BLOCK : 2 * BLOCK])


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
    assert not np.array_equal(value(again, part, "position"), value(other, different, "position"))
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


def test_the_smallest_world() -> None:
    world = SyntheticWorld(SyntheticConfig(events=1_000, users=10, items=20, turnover=0.9), seed=7)
    assert sum(len(batch) for batch in world.batches(64)) == 1_000
    assert world.queries(0, 2, 500, "run") == []
