"""The parts of a generation, and what candidates are retrieved from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from prometheus_client import CollectorRegistry
from sklearn.metrics import log_loss, roc_auc_score

from simulator.config import NO_NOISE, SyntheticConfig
from simulator.models.engines import Engines
from simulator.models.specs import parse_arms
from simulator.store.arrays import arrays_of, label
from simulator.world.open import open_world
from simulator.world.replay import ReplayWorld
from simulator.world.stream import RECENT, SyntheticWorld
from tests.small_runs import SMALL
from tests.world.made_logs import log_of, rows_of, world_of
from trainer.metrics import Metrics
from trainer.progressive import Progressive, quality_of
from trainer.publish import Engagements, catalog, duplicate_part, parts


def nobody(world: SyntheticWorld | ReplayWorld) -> np.ndarray:
    """Room for everybody's history."""
    return np.full((world.users, world.encoder.history), -1, np.int32)


@pytest.mark.parametrize("size", [1, 7, 400])
def test_engagements_are_the_last_ones_whatever_the_chunks(size: int) -> None:
    world = open_world(SyntheticConfig(events=1_000, users=20, items=30), seed=3)
    events = next(world.batches(600))
    recent, again = (Engagements(50, np.full((20, 4), -1, np.int32)) for _ in range(2))
    for first in range(0, 600, size):
        recent.add(events[first : min(first + size, 600)])
    clicked = np.flatnonzero(events.label)
    assert recent.user.tolist() == events.user[clicked[-50:]].tolist()
    assert recent.item.tolist() == events.item[clicked[-50:]].tolist()
    for user in range(20):
        own = [int(events.item[n]) for n in clicked[::-1] if events.user[n] == user][:4]
        assert recent.history[user].tolist() == own + [-1] * (4 - len(own))
    again.restore(recent.state())
    again.add(events[:3])
    recent.add(events[:3])
    assert again.item.tolist() == recent.item.tolist() and np.array_equal(again.history, recent.history)
    assert again.time == recent.time == events.time[2]


@pytest.mark.parametrize("labelled", [False, True])
def test_a_log_is_served_what_it_is_asked_offline(labelled: bool) -> None:
    """The live system ranks for users as of a cut what `flicker run` ranks after the same events."""
    log = log_of(rows_of(per_second=1), labelled, history=4)
    world, at = world_of(log), 1_000 if labelled else 4_000
    recent = Engagements(150, nobody(world))
    for batch in world.batches(300, 0, at):
        recent.add(batch)
    found = catalog(world, recent, 25)
    for query in world.queries(50, 25, at, "test"):
        assert found["candidates"][found["segment"][query.user]].tolist() == query.candidates.tolist()
        assert np.array_equal(found["user_rows"][query.user], query.features[0, : found["user_rows"].shape[1]])
    assert (found["user_rows"][:, -4:] > 0).any()


def test_on_the_synthetic_world_candidates_are_those_that_are_asked_offline_and_present() -> None:
    world, at = open_world(SyntheticConfig(events=20_000, users=200, items=300, turnover=0.9), seed=3), 15_000
    recent = Engagements(RECENT, nobody(world))
    recent.add(next(world.batches(at + 1, 0, at)))
    # the cut is due when the next event is
    recent.time = float(next(world.batches(1, at)).time[0])
    found = catalog(world, recent, 60)
    queries = world.queries(100, 60, at, "test")
    assert len({world.audience.age_group[query.user] for query in queries}) >= 4
    for query in queries:
        assert found["candidates"][found["segment"][query.user]].tolist() == query.candidates.tolist()
    gone = np.setdiff1d(recent.item, world.present(recent.time))
    assert len(gone) and not np.isin(found["candidates"], gone).any()


def test_fewer_candidates_than_asked_where_there_are_fewer_items() -> None:
    world = open_world(SyntheticConfig(events=1_000, users=20, items=30), seed=3)
    recent = Engagements(50, nobody(world))
    recent.add(next(world.batches(5)))
    found = catalog(world, recent, 25)["candidates"]
    assert found.shape[1] == min(25, len(world.present(recent.time)))
    assert all(len(set(row)) == len(row) for row in found.tolist())


def test_each_duplicate_has_its_own_part() -> None:
    world = open_world(SyntheticConfig(events=1_000, users=20, items=30), seed=3)
    specs, noise = ("relu", "relu", "average:gelu:norm=weight"), replace(NO_NOISE, init="own")
    config = replace(SMALL, arms=specs, noise=noise, duplicates=2, candidates=10, k=5)
    engines = Engines(world.schema, parse_arms(specs), config)
    engines.learn(next(world.batches(engines.chunk_events)))
    recent = Engagements(50, nobody(world))
    recent.add(next(world.batches(300)))
    made = parts(engines, config, world, recent, "one", 7)
    assert sorted(made) == ["catalog", "duplicate/0", "duplicate/1"]
    state = engines.state()
    for duplicate in range(2):
        part = safetensors.torch.load(made[duplicate_part(duplicate)])
        arrays_of(bytearray(made[duplicate_part(duplicate)]), label("one", 7, duplicate_part(duplicate)))
        assert sorted(part) == [f"{arm}.{name}" for arm in range(3) for name in ("dense", "table")]
        for arm, served in enumerate(("weights", "weights", "served")):
            assert torch.equal(part[f"{arm}.table"], state[f"{arm}.{served}.table"][duplicate])
            assert torch.equal(part[f"{arm}.dense"], state[f"{arm}.{served}.dense"][duplicate])
    assert made == parts(engines, config, world, recent, "one", 7)  # the same bytes: a digest can tell


def test_progressive_quality_against_scikit_learn() -> None:
    draws = np.random.default_rng(4)
    logits, labels = draws.normal(size=(4, 90)).astype(np.float32), (draws.random(90) < 0.3).astype(np.float32)
    one = Progressive(["a", "b"], 2)
    one.add(logits[:, :50], labels[:50])
    other = Progressive(["a", "b"], 2)
    other.restore(one.state())
    other.add(logits[:, 50:], labels[50:])
    quality, probability = quality_of([other.cut()]), 1 / (1 + np.exp(-logits.astype(np.float64)))
    for arm, own in (("a", probability[:2]), ("b", probability[2:])):
        assert quality[arm]["log_loss"] == pytest.approx(np.mean([log_loss(labels, p) for p in own]))
        assert quality[arm]["auc"] == pytest.approx(np.mean([roc_auc_score(labels, p) for p in own]))
        assert quality[arm]["calibration"] == pytest.approx(own.mean() / labels.mean())
    other.add(logits, np.zeros(90, np.float32))  # forgets what was cut; nothing can be said without a click
    assert quality_of([other.cut()])["a"]["auc"] is None


def test_what_is_undefined_is_no_sample() -> None:
    registry = CollectorRegistry()
    metrics, known = Metrics(registry), {"log_loss": 0.5, "auc": 0.75, "calibration": 1.0}
    auc = lambda: registry.get_sample_value("flicker_progressive_auc", {"arm": "a"})  # noqa: E731
    for quality, shown in (({**known, "auc": None}, None), (known, 0.75), ({**known, "auc": None}, None)):
        metrics.show_generation(1, 2.0, {"a": quality})
        assert auc() == shown
