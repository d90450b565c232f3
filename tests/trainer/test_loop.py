"""The trainer on a store in memory: what it learns, when it publishes, and how it goes on."""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
from prometheus_client import CollectorRegistry
from sklearn.metrics import log_loss, roc_auc_score

from simulator.errors import FlickerError, ResultError, SettingError
from simulator.models.engines import Engines
from simulator.models.factories import ALLOWED, source_digest
from simulator.models.specs import parse_arms
from simulator.store.codec import decode
from simulator.store.protocol import LogFull, StoreAway, entry_order
from simulator.types import Batch
from tests.store.memory_store import MemoryStore
from tests.trainer.conftest import Reference, learned_only
from tests.trainer.small_trainer import (
    CHUNK,
    CHUNKS,
    CONFIG,
    EVENTS,
    GENERATION,
    GENERATIONS,
    OWN_CONFIG,
    OWN_FACTORY,
    Running,
    finish,
    published,
    running,
    same_tensors,
    saved,
    small_world,
    wait_for,
)
from trainer.loop import Trainer
from trainer.metrics import Metrics
from trainer.reader import REASONS
from trainer.resume import StateFolder


def test_it_learns_what_a_plain_learner_learns(reference: Reference) -> None:
    world = small_world()
    engines = Engines(world.schema, parse_arms(CONFIG.arms), CONFIG)
    logits, chunks = [], list(world.batches(CHUNK, 0, CHUNKS * CHUNK))
    for number, chunk in enumerate(chunks, 1):
        logits.append(engines.learn(chunk))
        if number == GENERATION // CHUNK * GENERATIONS:
            for duplicate in range(3):  # of the arms [relu, smelu], three duplicates each
                part = safetensors.torch.load(bytes(reference.parts[GENERATIONS, f"duplicate/{duplicate}"]))
                own = engines.published(duplicate)
                assert part.keys() == own.keys() and all(part[name].equal(tensor) for name, tensor in own.items())
    for name, tensor in engines.state().items():
        assert reference.tensors[name].equal(tensor), name

    last = slice((GENERATIONS - 1) * GENERATION // CHUNK, GENERATIONS * GENERATION // CHUNK)
    probability = 1 / (1 + np.exp(-np.concatenate(logits[last], axis=1).astype(np.float64)))
    label = np.concatenate([chunk.label for chunk in chunks[last]])
    quality = reference.abouts[-1]["quality"]
    for number, arm in enumerate(("relu", "smelu:beta=1")):
        own = probability[3 * number : 3 * number + 3]
        assert quality[arm]["log_loss"] == pytest.approx(np.mean([log_loss(label, p) for p in own]))
        assert quality[arm]["auc"] == pytest.approx(np.mean([roc_auc_score(label, p) for p in own]))
        assert quality[arm]["calibration"] == pytest.approx(own.mean() / label.mean(), rel=1e-5)


def test_what_is_announced(reference: Reference) -> None:
    about = reference.abouts[-1]
    assert {**about, "fields": None, "quality": None, "models": None} == {
        "generation": GENERATIONS,
        "events": GENERATIONS * GENERATION,
        "arms": ["relu", "smelu:beta=1"],
        "specs": ["relu", "smelu:beta=1"],
        "duplicates": 3,
        "fields": None,
        "engines": ["torch", "torch"],  # delayed gradients
        "modules": [None, None],
        "models": None,
        "quality": None,
        "world": "synthetic",
        "names": "",
    }
    assert about["fields"][0] == {"name": "user", "side": "user", "vocabulary": 80, "slots": 1, "kind": "category"}
    assert about["models"] == [json.loads(json.dumps(vars(CONFIG.model)))] * 2


def test_candidates_are_what_was_clicked_lately_in_the_segment(reference: Reference) -> None:
    world, catalog = small_world(), safetensors.torch.load(bytes(reference.parts[GENERATIONS, "catalog"]))
    seen = next(world.batches(GENERATIONS * GENERATION))
    clicked = seen.label == 1
    group, everyone, present = world.audience.age_group, Counter(seen.item[clicked]), world.present(seen.time[-1])
    assert catalog["candidates"].shape == (len(set(group)) + 1, 30)
    for user in range(80):
        own = Counter(i for u, i in zip(seen.user[clicked], seen.item[clicked], strict=True) if group[u] == group[user])
        best = sorted(set(own) & set(present), key=lambda item: (-own[item], -everyone[item], item))[:30]
        assert catalog["candidates"][catalog["segment"][user]].tolist()[: len(best)] == best
    every = Counter(seen.item[clicked].tolist())
    best = sorted(set(every) & set(present), key=lambda item: (-every[item], item))[:30]
    assert catalog["candidates"][catalog["segment"][80]].tolist()[: len(best)] == best, "a user who is not there"
    assert np.array_equal(catalog["user_rows"], world.encoder.user_rows)
    assert np.array_equal(catalog["item_rows"], world.encoder.item_rows)


@pytest.mark.parametrize("entry", [1_000, 37])
def test_the_size_of_entries_changes_nothing(reference: Reference, tmp_path: Path, entry: int) -> None:
    store = MemoryStore(10_000)
    finish(store, tmp_path, entry=entry)
    reference.check(store, tmp_path)


class Gated(MemoryStore):
    """Lets events in only up to a gate."""

    gate = 0

    def append(self, batch: Batch, *, writer: str = "", mark: str = "", keys: Sequence[bytes] = ()) -> str:
        if int(mark) > self.gate:
            raise LogFull("full: a test said so")
        return super().append(batch, writer=writer, mark=mark, keys=keys)


def test_stopped_and_started_again_and_again(reference: Reference, tmp_path: Path) -> None:
    store = Gated(2_000)
    for chunks in (1, 2, 7, 9, 10):  # in the middle of a generation, and at its end
        store.gate = chunks * CHUNK + 200
        with running(store, tmp_path, entry=100) as one:
            one.learn(chunks * CHUNK)
        assert saved(tmp_path)[1]["events"] == chunks * CHUNK
    store.gate = EVENTS
    finish(store, tmp_path, entry=300)
    reference.check(store, tmp_path)


def test_a_full_log_holds_the_feeder_back_and_nothing_is_lost(reference: Reference, tmp_path: Path) -> None:
    store = MemoryStore(2 * GENERATION)
    with running(store, tmp_path, entry=200) as one:
        one.learn(CHUNKS * CHUNK)
        one.wait_for(lambda: store.newest() == GENERATIONS)
        assert one.metric("flicker_feeder_paused_seconds_total")
        one.wait_for(lambda: one.metric("flicker_world_ended") == 1)
        assert one.metric("flicker_feeder_events_total") == EVENTS
    reference.check(store, tmp_path)


class Watched(MemoryStore):
    """Notes the order of what it is asked, and is away when told."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.acknowledged: list[str] = []
        self.away = threading.Event()

    def acknowledge(self, group: str, upto: str) -> None:
        self.ping()
        super().acknowledge(group, upto)
        self.acknowledged.append(upto)

    def publish(self, *arguments: Any) -> int:
        self.ping()
        return super().publish(*arguments)

    def read(self, group: str, after: str, events: int, wait: float) -> Any:
        self.ping()
        return super().read(group, after, events, wait)

    def ping(self) -> None:
        if self.away.is_set():
            raise StoreAway("away: a test said so")


def test_only_what_is_saved_is_acknowledged(tmp_path: Path) -> None:
    store = Watched(10_000)
    with running(store, tmp_path, entry=100, generation_events=4 * CHUNK) as one:
        one.learn(6 * CHUNK)
        one.wait_for(lambda: bool(store.acknowledged))
        # generation 1 ends at event 1024; what was read behind it is saved, too
        assert entry_order(store.acknowledged[0]) >= 4 * CHUNK
    tensors, state = saved(tmp_path)
    assert entry_order(state["after"]) - state["events"] == len(tensors.get("reader.label", ()))


def test_a_store_that_is_away_for_a_while_changes_nothing(reference: Reference, tmp_path: Path) -> None:
    store = Watched(10_000)
    with running(store, tmp_path) as one:
        for events in (GENERATION, 3 * GENERATION, 4 * GENERATION):
            one.learn(events)
            store.away.set()
            before = one.metric("flicker_store_errors_total") or 0
            one.wait_for(lambda least=before + 2: (one.metric("flicker_store_errors_total") or 0) >= least)
            store.away.clear()
        one.learn(CHUNKS * CHUNK)
        one.wait_for(lambda: store.newest() == GENERATIONS)
    reference.check(store, tmp_path)


def test_it_stops_while_the_store_is_away(tmp_path: Path) -> None:
    store = Watched(10_000)
    with running(store, tmp_path, rate=2_000.0) as one:
        one.learn(CHUNK)
        store.away.set()
        one.wait_for(lambda: (one.metric("flicker_store_errors_total") or 0) >= 1)
    assert saved(tmp_path)[1]["events"] >= CHUNK


def test_clicks_of_users_are_learned_beside_the_world(tmp_path: Path) -> None:
    store, clicks = MemoryStore(50_000), next(small_world().batches(CHUNK, 1_000))
    with running(store, tmp_path) as one:
        one.wait_for(lambda: one.metric("flicker_world_ended") == 1)
        one.learn(CHUNKS * CHUNK)
        store.append(clicks)
        one.learn((CHUNKS + 1) * CHUNK)
    assert saved(tmp_path)[1]["events"] == (CHUNKS + 1) * CHUNK


def test_metrics_of_a_run(reference: Reference, tmp_path: Path) -> None:
    store = MemoryStore(10_000)
    with running(store, tmp_path) as one:
        one.learn(CHUNKS * CHUNK)
        one.wait_for(lambda: one.metric("flicker_generation") == GENERATIONS)
        one.wait_for(lambda: one.metric("flicker_events_waiting") == EVENTS - CHUNKS * CHUNK)
        assert one.metric("flicker_events_learned_total") == CHUNKS * CHUNK
        assert one.metric("flicker_learn_seconds_count") == CHUNKS
        assert one.metric("flicker_publish_seconds_count") == GENERATIONS
        assert one.metric("flicker_feeder_events_total") == EVENTS
        assert one.metric("flicker_store_errors_total") == 0
        assert one.metric("flicker_snapshot_published_timestamp_seconds") == store.about(GENERATIONS)["published"]
        for arm, quality in reference.abouts[-1]["quality"].items():
            assert one.metric("flicker_progressive_log_loss", arm=arm) == quality["log_loss"]
            assert one.metric("flicker_progressive_auc", arm=arm) == quality["auc"]
            assert one.metric("flicker_calibration", arm=arm) == quality["calibration"]
    with running(store, tmp_path) as again:  # a new process knows what it serves before it has learned anything
        again.wait_for(lambda: again.metric("flicker_generation") == GENERATIONS)
        assert again.metric("flicker_progressive_log_loss", arm="relu") == quality_of(reference, "relu")


def quality_of(reference: Reference, arm: str) -> float:
    """Log loss of the last generation."""
    return float(reference.abouts[-1]["quality"][arm]["log_loss"])


@pytest.mark.parametrize("events", [0, -512, 100, 300, 6 * CHUNK])
def test_generations_that_cannot_be(tmp_path: Path, events: int) -> None:
    with pytest.raises(SettingError, match=f"generation_events = {events}"):
        Running(MemoryStore(10 * CHUNK), tmp_path, generation_events=events)


def test_state_that_lags_behind_what_is_published(tmp_path: Path) -> None:
    store = MemoryStore(10_000)
    finish(store, tmp_path / "one")
    with pytest.raises(ResultError, match=r"two: holds generation 0, but 5 is published"):
        with running(store, tmp_path / "two") as one:
            one.wait_for(lambda: False)


def test_an_empty_store_under_old_state(tmp_path: Path) -> None:
    finish(MemoryStore(10_000), tmp_path)
    with pytest.raises(FlickerError, match="lost its data"):
        with running(MemoryStore(10_000), tmp_path) as one:
            one.wait_for(lambda: False)


def test_models_that_diverge_end_it_and_are_not_saved(tmp_path: Path) -> None:
    store, stop = MemoryStore(10_000), threading.Event()
    store.join("trainer")
    store.append(next(small_world().batches(CHUNK)))
    trainer = Trainer(CONFIG, small_world(), store, StateFolder(tmp_path, "a test"), Metrics(CollectorRegistry()), stop)
    for engine in trainer.engines.engines:
        engine.weights.dense.fill_(float("nan"))
    trainer.startup()
    with pytest.raises(SettingError, match="learning_rate = .* diverged within 256 events"):
        trainer.main_loop()
    assert not list(tmp_path.iterdir())


def test_a_module_that_may_not_be_imported_is_refused_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "planted.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(ALLOWED, "planted:other,elsewhere:make")
    store, config = MemoryStore(10_000), replace(CONFIG, arms=("relu", "torch:planted:make,lr=0.1"))
    with pytest.raises(SettingError) as problem:
        Running(store, tmp_path / "state", config=config)
    assert str(problem.value) == (
        "arms = torch:planted:make: not among the factories that may be imported here "
        "(elsewhere:make, planted:other): add it to FLICKER_MODELS if you trust it"
    )
    assert "planted" not in sys.modules and not (tmp_path / "state").exists()
    assert store.waiting() == 0 and store.newest() < 0


def test_a_module_is_announced_with_its_identity(own_reference: Reference) -> None:
    about = own_reference.abouts[-1]
    assert about["arms"] == about["specs"] == list(OWN_CONFIG.arms) and about["modules"][0] is None
    module = about["modules"][1]
    assert module.keys() == {"source", "torch", "states"} and module["source"] == source_digest(OWN_FACTORY)
    part = safetensors.torch.load(bytes(own_reference.parts[GENERATIONS, "duplicate/1"]))
    shapes = {name.removeprefix("1."): tensor for name, tensor in part.items() if name.startswith("1.")}
    assert module["states"] == {n: [str(t.dtype).removeprefix("torch."), *t.shape] for n, t in shapes.items()}
    assert module["states"]["calls"] == ["int64"] and (shapes["calls"] > 0).all()


def test_other_settings_cannot_go_on(tmp_path: Path) -> None:
    store = MemoryStore(10_000)
    finish(store, tmp_path)
    one = Running(store, tmp_path)
    one.trainer.settings["config"] = json.loads(json.dumps(one.trainer.settings["config"])) | {"seed": 7}
    with pytest.raises(ResultError, match="config.seed: 0 there, 7 here"):
        one.trainer.startup()


def spoiled(good: Batch, kind: str, place: int) -> Batch:
    """A batch of which one event fits no more."""
    column = {"row": "features"}.get(kind, kind)
    value = {"user": 80, "item": -1, "row": 10**6, "label": np.nan, "time": np.inf, "features": -7, "weight": -1}[kind]
    changed = {name: values.copy() for name, values in (vars(good) | {"weight": np.ones(len(good))}).items()}
    changed[column][place] = value
    return Batch(**changed)


BAD = {"user": 3, "item": 40, "row": 99, "label": 7, "time": 64, "features": 98, "weight": 50}
"""Kind -> place of the one bad event of its entry of 100; the entries are the first ones."""


class Spoiling(MemoryStore):
    """Spoils one event of each of the world's first entries, behind a copy of it that is good; one entry is noise."""

    def append(self, batch: Batch, *, writer: str = "", mark: str = "") -> str:
        number = int(mark) // 100 - 1
        if number < len(BAD) and self.mark(writer) != mark:
            kind, place = list(BAD.items())[number]
            batch = Batch.concatenate([batch[:place], spoiled(batch[place : place + 1], kind, 0), batch[place:]])
        id = super().append(batch, writer=writer, mark=mark)
        if number == 2:
            super().append(batch[:5])
            self._entries[-1] = b"noise"
        return id


def test_bad_events_are_set_aside_and_the_others_learned_as_without_them(reference: Reference, tmp_path: Path) -> None:
    """Over a restart, too, which counts nothing twice."""
    store, counted = Spoiling(10_000), Counter[str]()
    for events in (2 * CHUNK, CHUNKS * CHUNK):
        with running(store, tmp_path, entry=100) as one:
            one.learn(events)
            one.wait_for(lambda least=events // GENERATION: store.newest() >= least)  # type: ignore[misc]
            for reason in REASONS:
                counted[reason] += int(one.metric("flicker_events_set_aside_total", reason=reason) or 0)
    assert +counted == {"user": 1, "item": 1, "features": 2, "label": 1, "time": 1, "weight": 1, "entry": 5}
    tensors, state = saved(tmp_path)
    assert same_tensors(learned_only(tensors), learned_only(reference.tensors))
    assert published(store) == reference.parts
    aside = store.quarantine()
    assert [decode(one.data).time.size for one in aside if one.data != b"noise"] == [1] * 7
    assert [one.data for one in aside][3] == b"noise"


def test_a_log_full_of_bad_events_does_not_stop_it(tmp_path: Path) -> None:
    """Fewer good ones than a chunk in all that the log can hold."""
    store, good = MemoryStore(2 * GENERATION), next(small_world().batches(2 * CHUNK))
    with running(store, tmp_path, rate=0.001) as one:
        for first in range(0, 2 * CHUNK, 32):
            entry = good[first : first + 32]
            bad = Batch(entry.user + 80, entry.item, entry.time, entry.features, entry.label)
            for batch in (bad, bad, bad, bad, bad, bad, bad, entry):
                wait_for(lambda batch=batch: appended(store, batch))  # type: ignore[misc]
        one.learn(2 * CHUNK)
        one.wait_for(lambda: one.metric("flicker_events_set_aside_total", reason="user") == 7 * 2 * CHUNK)


def appended(store: MemoryStore, batch: Batch) -> bool:
    try:
        return bool(store.append(batch))
    except LogFull:
        return False
