"""A trainer small enough to learn its whole world in a second, driven from outside as a process would be."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from prometheus_client import CollectorRegistry

from simulator.config import ExperimentConfig
from simulator.flags import parse
from simulator.models.snapshot import read_snapshot
from simulator.store.protocol import WHOLE, Shard, Store
from simulator.world.open import open_world
from simulator.world.stream import SyntheticWorld
from trainer import loop
from trainer.feeder import Feeder, NoFeeder, steady
from trainer.flags import TrainerFlags
from trainer.metrics import Metrics
from trainer.resume import StateFolder

ARGUMENTS = (
    "--events 3000 --users 80 --items 60 --dim 4 --hidden 16 8 --batch 64 --window 4 --duplicates 3 --candidates 30 "
    "--delay 3 --lost 0.1 --arms relu smelu:beta=1"
).split()
CHUNK, GENERATION, EVENTS = 256, 512, 3_000
CHUNKS, GENERATIONS = EVENTS // CHUNK, EVENTS // GENERATION
CONFIG = parse(TrainerFlags, "a test", ARGUMENTS).config()
OWN_FACTORY = "tests.models.own_modules:make"
OWN_ARGUMENTS = [*ARGUMENTS[: ARGUMENTS.index("--arms")], "--arms", "relu", f"torch:{OWN_FACTORY},relu=smelu:beta=1"]
"""The same with a module of the user's as the second arm."""
OWN_CONFIG = parse(TrainerFlags, "a test", OWN_ARGUMENTS).config()
AT_ONCE = 1e9
"""Events per second: as fast as can be."""
PATIENCE = 60.0
"""Seconds after which a test that waits has failed."""


def small_world() -> SyntheticWorld:
    """The world of CONFIG."""
    world = open_world(CONFIG.world, CONFIG.seed)
    assert isinstance(world, SyntheticWorld)
    return world


class Running:
    """A trainer with its feeder, in threads of this process."""

    def __init__(
        self,
        store: Store,
        path: Path,
        *,
        entry: int = 100,
        rate: float = AT_ONCE,
        run: str = "",
        config: ExperimentConfig = CONFIG,
        shard: Shard = WHOLE,
        **settings: Any,
    ) -> None:
        """Feeds `entry` events at a time, where it is the first shard."""
        world, self.stop, self.registry = small_world(), threading.Event(), CollectorRegistry()
        self.folder, metrics = StateFolder(path, run), Metrics(self.registry)
        self.trainer = loop.Trainer(config, world, store, self.folder, metrics, self.stop, shard=shard, **settings)
        fed = Feeder(world, store, metrics, self.stop, steady(rate), entry)
        self.feeder = fed if shard.number == 0 else NoFeeder()
        self.problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            loop.run(self.trainer, self.feeder)
        except BaseException as problem:
            self.problem = problem

    def start(self) -> None:
        """Claim the folder and begin."""
        self.folder.open()
        self._thread.start()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return once the condition holds; the trainer's own error where it ends before."""
        wait_for(lambda: condition() or not self._thread.is_alive())
        if not condition():
            raise self.problem or AssertionError("the trainer ended before its time")

    def learn(self, events: int) -> None:
        """Return once so many events are learned in all."""
        self.wait_for(lambda: self.trainer.state.events >= events)

    def end(self) -> None:
        """As after a signal."""
        self.stop.set()
        if self._thread.ident is not None:
            self._thread.join(PATIENCE)
        self.folder.close()

    def metric(self, name: str, **labels: str) -> float | None:
        """The value of a sample."""
        return self.registry.get_sample_value(name, labels)


@contextmanager
def running(store: Store, path: Path, **settings: Any) -> Iterator[Running]:
    """A trainer that runs inside the block and is stopped in order behind it."""
    started = Running(store, path, **settings)
    try:
        started.start()
        yield started
    finally:
        started.end()
    if started.problem:
        raise started.problem


def finish(store: Store, path: Path, **settings: Any) -> None:
    """Learn all whole chunks of the world, from wherever the folder stands, and publish all generations."""
    with running(store, path, **settings) as one:
        one.learn(CHUNKS * CHUNK)
        one.wait_for(lambda: store.newest() == GENERATIONS)


def wait_for(condition: Callable[[], bool]) -> None:
    """Return once the condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def saved(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What a state folder holds."""
    (newest,) = [entry for entry in path.iterdir() if entry.name.isdecimal()]
    tensors, about = read_snapshot(newest)
    return tensors, about["state"]


def same_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether they are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def published(store: Store) -> dict[tuple[int, str], bytes]:
    """Every part of the generations that the store keeps, without what it says of its run."""
    names = ["catalog", *(f"duplicate/{number}" for number in range(CONFIG.duplicates))]
    newest = store.newest()
    return {(g, name): tables(store.fetch(g, name)) for g in range(newest - 2, newest + 1) for name in names}


def tables(part: bytearray) -> bytes:
    """A part without its label."""
    return safetensors.torch.save(safetensors.torch.load(bytes(part)))


def announced(store: Store) -> list[dict[str, Any]]:
    """What was said of them, but for the time."""
    newest = store.newest()
    abouts = [store.about(generation) for generation in range(newest - 2, newest + 1)]
    return [{name: value for name, value in about.items() if name != "published"} for about in abouts]
