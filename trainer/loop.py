"""The trainer's loop, numbered: read, learn, validate, cut a generation, save, acknowledge, publish, and again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from simulator.config import ExperimentConfig, ReplayConfig, require
from simulator.errors import ResultError
from simulator.folder import as_json
from simulator.models.engines import Engines, say_remarks
from simulator.models.factories import require_allowed
from simulator.models.specs import parse_arms, require_live
from simulator.process import Stopped, retry
from simulator.store.names import pack
from simulator.store.protocol import Store, StoreAway, entry_order
from simulator.types import Batch, Floats
from simulator.world.replay import ReplayWorld
from simulator.world.stream import RECENT, SyntheticWorld
from trainer.feeder import Feeder
from trainer.metrics import Metrics
from trainer.progressive import Progressive
from trainer.publish import Engagements, about, parts
from trainer.quarantine import Quarantine
from trainer.reader import Reader
from trainer.resume import State, StateFolder

log = logging.getLogger("trainer")

GROUP = "trainer"
WAIT = 0.5
"""Seconds to wait for events at a time, between looks at the stop flag."""
LAST_SECONDS = 2.0
"""The feeder has so long to end after the stop flag is raised."""
Result = TypeVar("Result")


class Trainer:
    """Teaches all duplicates of all arms what is in the log, and publishes them generation by generation."""

    def __init__(
        self,
        config: ExperimentConfig,
        world: SyntheticWorld | ReplayWorld,
        store: Store,
        folder: StateFolder,
        metrics: Metrics,
        stop: threading.Event,
        generation_events: int | None = None,
    ) -> None:
        """`generation_events`: a whole number of shuffle windows (default: two). Raises SettingError."""
        self.config, self.world, self.store, self.folder = config, world, store, folder
        self.metrics, self.stop = metrics, stop
        self.state, self._saved, self._acknowledged = State(), 0, 0
        arms = parse_arms(config.arms)
        require_live(arms)
        for own in (arm.own for arm in arms if arm.own):
            require_allowed(own.factory)
        self.arms = arms
        self.engines = Engines(world.schema, arms, config)
        say_remarks(self.engines, log.warning)
        chunk = self.engines.chunk_events
        self.generation_events = 2 * chunk if generation_events is None else generation_events
        whole = self.generation_events > 0 and self.generation_events % chunk == 0
        hint = f"a multiple of {chunk}, the events of a shuffle window"
        require(whole, "generation_events", self.generation_events, hint)
        most = store.capacity() // 2  # or the log would be full before a generation is complete, and stay so
        require(self.generation_events <= most, "generation_events", self.generation_events, f"at most {most}")
        users, items = len(world.encoder.user_rows), len(world.encoder.item_rows)
        self.quarantine = Quarantine(store, world.schema, users, items, metrics.set_aside)
        self.reader = self._reader()
        self.progressive = Progressive([arm.label for arm in arms], config.duplicates)
        recent = config.world.recent if isinstance(config.world, ReplayConfig) else RECENT
        self.engagements = Engagements(recent, np.full((users, world.encoder.history), -1, np.int32))
        self.settings = {"config": as_json(config), "generation_events": self.generation_events}
        self.names = ""
        """Digest of what the log calls users and items; empty on a made-up world."""

    def startup(self) -> None:
        """Take up what is saved, and bring the store to where that is. Raises ResultError, StoreError, Stopped."""
        self._restore()
        self._insist(lambda: self.store.join(GROUP))
        self._acknowledge()
        if self.world.names.users:
            names = pack(self.world.names)
            self.names = self._insist(lambda: self.store.share(names))
        newest, generation = self._insist(self.store.newest), self.state.generation
        if newest > generation:
            hint = f"holds generation {generation}, but {newest} is published"
            raise ResultError(f"state = {self.folder.path}: {hint}: name its own folder, or another --run")
        if generation and newest < generation and self.state.events == generation * self.generation_events:
            self._publish()  # killed after saving, before all was announced
        elif generation:
            self.metrics.show_generation(generation, self.state.cut, self.state.quality)

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
        chunk = self._insist(lambda: self.reader.take(WAIT))
        unread = self._insist(self.store.waiting) - self._unacknowledged()
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
        self.state.quality = self.progressive.cut()

    def _save(self) -> None:
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
        return Reader(self.store, GROUP, self.engines.chunk_events, self.quarantine.admit, self.state.after)

    def _publish(self) -> None:
        state = self.state
        cut = {"generation": state.generation, "events": state.events, "published": state.cut, "quality": state.quality}
        with self.metrics.publish_seconds.time():
            whose = self.store.run, state.generation
            made = parts(self.engines, self.config, self.world, self.engagements, *whose)
            announced = about(self.engines, self.config, self.world, cut | {"names": self.names})
            self._insist(lambda: self.store.publish(state.generation, made, announced))
        self.metrics.show_generation(state.generation, state.cut, state.quality)
        log.info("generation %s after %s events", state.generation, f"{state.events:,}")

    def _acknowledge(self) -> None:
        if self.state.after:
            self._insist(lambda: self.store.acknowledge(GROUP, self.state.after))
            self._acknowledged = entry_order(self.state.after)

    def _insist(self, action: Callable[[], Result]) -> Result:
        """Try until the store is there. Raises Stopped."""
        return retry(action, StoreAway, self.stop, self._told)

    def _told(self, problem: Exception) -> None:
        self.metrics.store_failed(problem)
        log.warning("%s", problem)


def run(trainer: Trainer, feeder: Feeder) -> None:
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
    trainer.shutdown()
    if feeder.problem:
        raise feeder.problem
