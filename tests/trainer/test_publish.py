"""The parts of a generation, and what candidates are retrieved from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from prometheus_client import CollectorRegistry
from sklearn.metrics import log_loss, roc_auc_score

from simulator.config import NO_NOISE, ReplayConfig, SyntheticConfig
from simulator.experiment import open_world
from simulator.models.engines import Engines
from simulator.models.specs import parse_arms
from simulator.store.arrays import arrays_of, label
from tests.small_runs import SMALL, small_log
from trainer.metrics import Metrics
from trainer.progressive import Progressive
from trainer.publish import Engagements, catalog, duplicate_part, parts


@pytest.mark.parametrize("size", [1, 7, 400])
def test_engagements_are_the_last_ones_whatever_the_chunks(size: int) -> None:
    world = open_world(SyntheticConfig(events=1_000, users=20, items=30), seed=3)
    recent, events = Engagements(50), next(world.batches(600))
    for first in range(0, 600, size):
        recent.add(events[first : min(first + size, 600)])
    clicked = np.flatnonzero(events.label)[-50:]
    trail = recent.trail()
    assert trail.user.tolist() == events.user[clicked].tolist()
    assert trail.item.tolist() == events.item[clicked].tolist()
    assert trail.items == events.item.max() + 1
    again = Engagements(50)
    again.restore(recent.state())
    again.add(events[:3])
    recent.add(events[:3])
    assert again.trail().item.tolist() == recent.trail().item.tolist()


def test_candidates_are_those_of_the_offline_queries(tmp_path: Path) -> None:
    """On a replayed log the live system ranks what `flicker run` ranks after the same events."""
    world = open_world(ReplayConfig(small_log(tmp_path / "log"), recent=100, horizon=7_200.0), seed=1)
    recent, at = Engagements(100), 2_000
    recent.add(next(world.batches(at)))
    found = catalog(world.encoder, recent.trail(), 25)
    for query in world.queries(20, 25, at, "test"):
        assert found["candidates"][found["segment"][query.user]].tolist() == query.candidates.tolist()
        assert np.array_equal(found["user_rows"][query.user], query.features[0, : found["user_rows"].shape[1]])


def test_fewer_candidates_while_few_items_are_known() -> None:
    world = open_world(SyntheticConfig(events=1_000, users=20, items=30), seed=3)
    recent, events = Engagements(50), next(world.batches(5))
    recent.add(events)
    found = catalog(world.encoder, recent.trail(), 25)["candidates"]
    assert found.shape[1] == min(25, events.item.max() + 1)
    assert all(len(set(row)) == len(row) for row in found.tolist())


def test_each_duplicate_has_its_own_part() -> None:
    world = open_world(SyntheticConfig(events=1_000, users=20, items=30), seed=3)
    specs, noise = ("relu", "relu", "average:gelu:norm=weight"), replace(NO_NOISE, init="own")
    config = replace(SMALL, arms=specs, noise=noise, duplicates=2, candidates=10, k=5)
    engines = Engines(world.schema, parse_arms(specs), config)
    engines.learn(next(world.batches(engines.chunk_events)))
    recent = Engagements(50)
    recent.add(next(world.batches(300)))
    made = parts(engines, config, world.encoder, recent.trail(), "one", 7)
    assert sorted(made) == ["catalog", "duplicate/0", "duplicate/1"]
    state = engines.state()
    for duplicate in range(2):
        part = safetensors.torch.load(made[duplicate_part(duplicate)])
        arrays_of(bytearray(made[duplicate_part(duplicate)]), label("one", 7, duplicate_part(duplicate)))
        assert sorted(part) == [f"{arm}.{name}" for arm in range(3) for name in ("dense", "table")]
        for arm, served in enumerate(("weights", "weights", "served")):
            assert torch.equal(part[f"{arm}.table"], state[f"{arm}.{served}.table"][duplicate])
            assert torch.equal(part[f"{arm}.dense"], state[f"{arm}.{served}.dense"][duplicate])
    assert made == parts(engines, config, world.encoder, recent.trail(), "one", 7)  # the same bytes: a digest can tell


def test_progressive_quality_against_scikit_learn() -> None:
    draws = np.random.default_rng(4)
    logits, labels = draws.normal(size=(4, 90)).astype(np.float32), (draws.random(90) < 0.3).astype(np.float32)
    one = Progressive(["a", "b"], 2)
    one.add(logits[:, :50], labels[:50])
    other = Progressive(["a", "b"], 2)
    other.restore(one.state())
    other.add(logits[:, 50:], labels[50:])
    quality, probability = other.cut(), 1 / (1 + np.exp(-logits.astype(np.float64)))
    for arm, own in (("a", probability[:2]), ("b", probability[2:])):
        assert quality[arm]["log_loss"] == pytest.approx(np.mean([log_loss(labels, p) for p in own]))
        assert quality[arm]["auc"] == pytest.approx(np.mean([roc_auc_score(labels, p) for p in own]))
        assert quality[arm]["calibration"] == pytest.approx(own.mean() / labels.mean())
    other.add(logits, np.zeros(90, np.float32))  # forgets what was cut; nothing can be said without a click
    assert other.cut()["a"]["auc"] is None


def test_what_is_undefined_is_no_sample() -> None:
    registry = CollectorRegistry()
    metrics, known = Metrics(registry), {"log_loss": 0.5, "auc": 0.75, "calibration": 1.0}
    auc = lambda: registry.get_sample_value("flicker_progressive_auc", {"arm": "a"})  # noqa: E731
    for quality, shown in (({**known, "auc": None}, None), (known, 0.75), ({**known, "auc": None}, None)):
        metrics.show_generation(1, 2.0, {"a": quality})
        assert auc() == shown
