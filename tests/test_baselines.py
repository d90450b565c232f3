"""The baselines beside every run: what they predict, that they learn in order, and what they leave in a result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, SGDClassifier

from simulator.config import ReplayConfig, SyntheticConfig
from simulator.measures.quality import auc, log_loss
from simulator.models.baselines import ACCUMULATOR, BASELINES, PRIOR, RATE, Baselines
from simulator.types import Batch, Field, Schema, World
from simulator.world.open import open_world
from tests.small_runs import small_log, small_replay


def taught(world: World, stop: int, chunk: int = 1_000, batch: int = 100) -> Baselines:
    found = Baselines(world.schema, world.items, batch, 500)
    for part in world.batches(chunk, 0, stop):
        found.learn(part)
    return found


@pytest.fixture(scope="module")
def world() -> World:
    return open_world(SyntheticConfig(events=60_000, users=200, items=100), seed=3)


def held_out(world: World) -> Batch:
    return Batch.concatenate(list(world.batches(6_000, 54_000)))


def test_rates_are_those_of_the_events_so_far(world: World) -> None:
    learned, found = Batch.concatenate(list(world.batches(9_000, 0, 9_000))), taught(world, 9_000)
    items = np.arange(world.items)
    constant, popularity, *_ = found.score(np.zeros((len(items), world.schema.slots), np.int32), items)
    base = (learned.label.sum() + 1) / (len(learned) + 2)
    np.testing.assert_allclose(1 / (1 + np.exp(-constant)), base, rtol=1e-6)
    for item in items:
        own = learned.label[learned.item == item]
        rate = (own.sum() + PRIOR * base) / (len(own) + PRIOR)
        assert 1 / (1 + np.exp(-popularity[item])) == pytest.approx(rate, rel=1e-5)


def test_one_step_of_the_logistic_regression_is_adagrad_by_hand() -> None:
    schema = Schema((Field("user", "user", 2), Field("tags", "item", 2, slots=2)))
    features = np.array([[1, 3, 4], [2, 3, 0], [1, 4, 0]], np.int32)
    label = np.array([1, 0, 1], np.float32)
    batch = Batch(np.array([0, 1, 0]), np.array([0, 0, 1]), np.arange(3.0), features, label)
    found = Baselines(schema, 2, batch=3, recent=9)
    found.learn(batch)
    gradient = np.array([-0.5, -1.0, 0.5, 0.0, -1.0])  # of the bias, then of rows 1 to 4: sums of 0.5 - label
    weights = -RATE * gradient / np.sqrt(gradient**2 + ACCUMULATOR)
    np.testing.assert_allclose(found.state()["weights"], weights)
    weighted = Baselines(schema, 2, batch=3, recent=10)
    weighted.learn(replace(batch, weight=np.array([2, 0, 1], np.float32)))
    assert all(np.array_equal(value, weighted.state()[name]) for name, value in found.state().items())
    again = found.score(features, batch.item)[BASELINES.index("logistic")]
    np.testing.assert_allclose(
        again, weights[0] + [weights[[1, 3, 4]].sum(), weights[[2, 3]].sum(), weights[[1, 4]].sum()]
    )


def test_recent_ranks_by_the_latest_engagements_alone(tmp_path: Path) -> None:
    """As retrieval counts: a line over ln(1 + count), which is as good as that of the best line in hindsight."""
    log = open_world(ReplayConfig(small_log(tmp_path / "log", ratings=6_000)), seed=0)
    chunks = list(log.batches(100, 0, log.events // 100 * 100))
    found, ranks, said = Baselines(log.schema, log.items, 100, recent=30), [], []
    for chunk in chunks:
        engaged = np.concatenate([np.empty(0, np.int64), *(c.item[c.label == 1] for c in chunks[: len(ranks)])])[-30:]
        ranks.append(np.log1p((chunk.item[:, None] == engaged).sum(1)))
        said.append(found.score(chunk.features, chunk.item)[2])
        assert np.linalg.matrix_rank(np.stack([np.ones(100), ranks[-1], said[-1]]), tol=1e-4) <= 2, "not on a line"
        found.learn(chunk)
    rank, label = np.concatenate(ranks)[2_000:], np.concatenate([chunk.label for chunk in chunks])[2_000:]
    best = LogisticRegression(C=1e6).fit(rank[:, None], label).decision_function(rank[:, None])
    assert log_loss(np.concatenate(said)[2_000:], label).mean() < 1.01 * log_loss(best, label).mean()


def test_a_logistic_regression_is_as_good_as_that_of_scikit_learn(world: World) -> None:
    """Which learns by plain gradient steps from one column per table row, the same events once."""
    learned, tail = Batch.concatenate(list(world.batches(54_000, 0, 54_000))), held_out(world)

    def columns(batch: Batch) -> np.ndarray:
        found = np.zeros((len(batch), world.schema.rows), np.float32)
        np.put_along_axis(found, batch.features, 1, axis=1)
        found[:, 0] = 0
        return found

    peer = SGDClassifier(
        loss="log_loss", alpha=0, learning_rate="constant", eta0=0.03, shuffle=False, max_iter=1, tol=None
    )
    peer.fit(columns(learned), learned.label)
    constant, popularity, _, own = taught(world, 54_000).score(tail.features, tail.item)
    losses = [float(log_loss(x, tail.label).mean()) for x in (constant, popularity, own)]
    its = float(log_loss(peer.decision_function(columns(tail)), tail.label).mean())
    assert losses[2] < 1.01 * its and losses[2] < losses[1] < losses[0]
    assert auc(constant, tail.label) == 0.5 < auc(popularity, tail.label) < auc(own, tail.label)


def test_what_comes_later_changes_nothing_and_chunks_do_not_matter(world: World) -> None:
    tail = held_out(world)
    first = taught(world, 8_000).score(tail.features, tail.item)
    np.testing.assert_array_equal(first, taught(world, 8_000, chunk=400).score(tail.features, tail.item))
    assert (first != taught(world, 8_100).score(tail.features, tail.item)).any()


def test_they_go_on_exactly_from_what_was_saved(world: World, tmp_path: Path) -> None:
    whole, again = taught(world, 8_000), Baselines(world.schema, world.items, 100, 500)
    again.restore({name: value.copy() for name, value in taught(world, 5_000).state().items()})
    for part in world.batches(1_000, 5_000, 8_000):
        again.learn(part)
    for name, value in whole.state().items():
        np.testing.assert_array_equal(again.state()[name], value)
    log = open_world(small_replay(tmp_path / "log").world, seed=0)
    assert taught(log, 500).score_queries(log.queries(5, 20, 500, "final")).shape == (4, 5, 20)
