"""The trainer's loop, numbered: read, learn, validate, cut a generation, save, acknowledge, publish, and again.

Of several trainers (shards) each teaches a share of the duplicates from the same log. They cut generations at the same
events, and none learns on before all have handed in their parts of the last one: so each can publish its newest again,
whatever happens, and what is not announced yet is never more than one generation.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import numpy as np

from simulator.config import ExperimentConfig, ReplayConfig, as_json, require
from simulator.errors import ResultError
from simulator.models.engines import Engines, log_remarks
from simulator.models.factories import require_allowed
from simulator.models.specs import Arm, parse_arms, require_live
from simulator.process import Stopped, retry
from simulator.store.arrays import pack
from simulator.store.protocol import WHOLE, Shard, Store, StoreAway, StoreError, entry_order
from simulator.types import Batch, Floats
from simulator.world.replay import ReplayWorld
from simulator.world.stream import RECENT, SyntheticWorld
from trainer.feeder import Feeder, NoFeeder
from trainer.metrics import Metrics
from trainer.progressive import Progressive
from trainer.publish import Engagements, about, joined, parts
from trainer.reader import Quarantine, Reader
from trainer.resume import StateFolder, TrainerState

log = logging.getLogger("trainer")

WAIT = 0.5
"""Seconds to wait for events at a time, between looks at the stop flag."""
AGAIN = 5.0
"""Seconds after which a shard that waits for others hands in its parts again: what it did may be lost, or they died
between handing in and announcing."""
LAST_SECONDS = 2.0
"""The feeder has so long to end after the stop flag is raised."""
Result = TypeVar("Result")


def live_arms(config: ExperimentConfig) -> tuple[Arm, ...]:
    """The arms that are taught. Raises SettingError for one that cannot be live, or whose module is not allowed."""
    arms = parse_arms(config.arms)
    require_live(arms)
    for module in (arm.own for arm in arms if arm.own):
        require_allowed(module.factory)
    return arms


class Trainer:
    """Teaches all duplicates of all arms, or a share of them, what is in the log, and publishes generation by
    generation."""

    def __init__(
        self,
        config: ExperimentConfig,
        world: SyntheticWorld | ReplayWorld,
        store: Store,
        folder: StateFolder,
        metrics: Metrics,
        stop: threading.Event,
        generation_events: int | None = None,
        shard: Shard = WHOLE,
        check_held: Callable[[], object] = lambda: None,
    ) -> None:
        """`generation_events`: a whole number of shuffle windows (default: two). `check_held` raises what ends it where
        the shard has become another's: nothing is saved or published then. Raises SettingError."""
        self.config, self.world, self.store, self.folder = config, world, store, folder
        self.metrics, self.stop, self.shard, self._check_held = metrics, stop, shard, check_held
        self.state, self._saved, self._acknowledged = TrainerState(), 0, 0
        self.arms = arms = live_arms(config)
        numbers = shard.of(config.duplicates)
        self.engines = Engines(world.schema, arms, config, subset=slice(numbers.start, numbers.stop))
        log_remarks(self.engines, log.warning)
        chunk = self.engines.chunk_events
        self.generation_events = 2 * chunk if generation_events is None else generation_events
        whole = self.generation_events > 0 and self.generation_events % chunk == 0
        hint = f"a multiple of {chunk}, the events of a shuffle window"
        require(whole, "generation_events", self.generation_events, hint)
        maximum = store.capacity() // 2  # or the log would be full before a generation is complete, and stay so
        require(self.generation_events <= maximum, "generation_events", self.generation_events, f"at most {maximum}")
        users, items = len(world.encoder.user_rows), len(world.encoder.item_rows)
        self.quarantine = Quarantine(store, world.schema, users, items, metrics.set_aside)
        self.reader = self._reader()
        self.progressive = Progressive([arm.label for arm in arms], len(numbers))
        recent = config.world.recent if isinstance(config.world, ReplayConfig) else RECENT
        self.engagements = Engagements(recent, np.full((users, world.encoder.history), -1, np.int32))
        learned = {"config": as_json(config), "generation_events": self.generation_events}
        self._learned = hashlib.sha256(json.dumps(learned, sort_keys=True).encode()).hexdigest()
        self.settings = learned | {"shard": str(shard)}
        self.names = ""
        """Digest of what the log calls users and items; empty on a made-up world."""

    def startup(self) -> None:
        """Take up what is saved, and bring the store to where that is. Raises ResultError, StoreError, Stopped."""
        self._restore()
        groups = [shard.group for shard in self.shard.all]  # or what others have learned would be forgotten
        self._retry(lambda: self.store.join(*groups, alone=True))
        self._acknowledge()
        if self.world.names.users:
            names = pack(self.world.names)
            self.names = self._retry(lambda: self.store.share(names))
        newest, generation = self._retry(self.store.newest), self.state.generation
        if newest > generation:
            hint = f"holds generation {generation}, but {newest} is published"
            raise ResultError(f"state = {self.folder.path}: {hint}: name its own folder, or another --run")
        if generation and newest < generation and self.state.events == generation * self.generation_events:
            self._publish()  # killed after saving, before all was announced
        elif 0 < generation == newest:
            self._show()

    def main_loop(self) -> None:
        """Learn until the stop flag is raised. Raises Stopped where that ends a wait for the store."""
        while not self.stop.is_set():
            chunk = self._read()  # 1. read: a whole shuffle window of events that fit the schema, or nothing yet
            if chunk is None:
                self._make_room()
                continue
            logits = self._learn(chunk)  # 2. learn, every duplicate scores each event first
            self.progressive.add(logits, chunk.label)  # 3. validate
            self.engagements.add(chunk)
            if self.state.events % self.generation_events == 0:
                self._cut()  # 4. cut a generation: all duplicates at once
                self._save()  # 5. save: it can be published again whatever happens
                self._acknowledge()  # 6. acknowledge what is saved: a full store gets room for the next step
                self._publish()  # 7. publish
            self._make_room()

    def shutdown(self) -> None:
        """Save what was learned since the last generation."""
        if self.state.events > self._saved:
            self._save()
        log.info("stopped after %s events, generation %s", f"{self.state.events:,}", self.state.generation)

    def _read(self) -> Batch | None:
        chunk = self._retry(lambda: self.reader.take(WAIT))
        unread = self._retry(self.store.waiting) - self._unacknowledged()
        self.metrics.waiting.set(max(0, unread) + self.reader.ahead)
        return chunk

    def _unacknowledged(self) -> int:
        """Events that were read, learned or set aside, and that the log still holds."""
        return entry_order(self.reader.after) - self._acknowledged

    def _make_room(self) -> None:
        """Where much was set aside the log must not be full before a generation is complete, and stay so."""
        if self._unacknowledged() >= self.store.capacity() // 2:
            self._save()
            self._acknowledge()

    def _learn(self, chunk: Batch) -> Floats:
        with self.metrics.learn_seconds.time():
            logits = self.engines.learn(chunk)
        self.state.events += len(chunk)
        self.metrics.learned.inc(len(chunk))
        return logits

    def _cut(self) -> None:
        """What a generation announces is part of the state, so that it can be announced again word for word."""
        self.engines.refresh()
        self.state.generation += 1
        self.state.cut = time.time()
        self.state.scores = self.progressive.cut()

    def _save(self) -> None:
        self._check_held()
        self.state.after = self.reader.after
        parts = self.engines, self.progressive, self.engagements, self.reader
        tensors = {name: tensor for part in parts for name, tensor in part.state().items()}
        self.folder.save(tensors, self.state, self.settings)
        self._saved = self.state.events

    def _restore(self) -> None:
        saved = self.folder.load(self.settings)
        if saved is None:
            return
        tensors, self.state = saved
        self.reader = self._reader()
        for part in (self.engines, self.progressive, self.engagements, self.reader):
            part.restore(tensors)
        self._saved = self.state.events
        log.info("going on after %s events, generation %s", f"{self.state.events:,}", self.state.generation)

    def _reader(self) -> Reader:
        return Reader(self.store, self.shard.group, self.engines.chunk_events, self.quarantine.admit, self.state.after)

    def _publish(self) -> None:
        self._check_held()
        state = self.state
        cut = {"generation": state.generation, "events": state.events, "published": state.cut, "scores": state.scores}
        with self.metrics.publish_seconds.time():
            identity = self.store.run, state.generation, self.shard
            shard_parts = parts(self.engines, self.config, self.world, self.engagements, *identity)
            content = about(
                self.engines, self.config, self.world, cut | {"names": self.names, "settings": self._learned}
            )
            publish = partial(self.store.publish, state.generation, shard_parts, content, self.shard, joined)
            missing = self._retry(publish)
        if missing:
            self._wait_for_others(publish, missing)
        self._show()
        log.info("generation %s after %s events", state.generation, f"{state.events:,}")

    def _wait_for_others(self, publish: Callable[[], int], missing: int) -> None:
        """Until the generation is announced, by whoever hands in last."""
        looked = handed_in = time.monotonic()
        while missing:
            self.metrics.shards_missing.set(missing)
            if self.stop.is_set():
                raise Stopped
            newest = self._retry(lambda: self.store.wait_newer(self.state.generation - 1, WAIT))
            now = time.monotonic()
            self.metrics.shards_wait_seconds.inc(now - looked)
            looked = now
            if newest >= self.state.generation:
                missing = 0
            elif now >= handed_in + AGAIN:
                log.info("generation %s waits for %s of %s trainers", self.state.generation, missing, self.shard.count)
                missing, handed_in = self._retry(publish), now
        self.metrics.shards_missing.set(0)

    def _show(self) -> None:
        """The newest generation, as it was announced."""
        newest = self._retry(self.store.newest)
        try:
            announced = self._retry(lambda: self.store.about(newest))
        except StoreError as problem:  # whoever serves it says so, too
            return log.warning("%s", problem)
        self.metrics.show_generation(newest, announced["published"], announced["quality"])

    def _acknowledge(self) -> None:
        if self.state.after:
            self._retry(lambda: self.store.acknowledge(self.shard.group, self.state.after))
            self._acknowledged = entry_order(self.state.after)

    def _retry(self, action: Callable[[], Result]) -> Result:
        """Try until the store is there. Raises Stopped."""
        return retry(action, StoreAway, self.stop, self._on_error)

    def _on_error(self, problem: Exception) -> None:
        self.metrics.store_failed(problem)
        log.warning("%s", problem)


def run(trainer: Trainer, feeder: Feeder | NoFeeder) -> None:
    """The whole life of a trainer, in three verbs. Raises what ended the feeder before its time."""
    try:
        trainer.startup()
        feeder.start()
        trainer.main_loop()
    except Stopped:
        pass
    finally:
        trainer.stop.set()
        feeder.join(LAST_SECONDS)
    with suppress(Stopped):  # the store is away, and does not say whether the shard is still ours: nothing is saved
        trainer.shutdown()
    if feeder.problem:
        raise feeder.problem
