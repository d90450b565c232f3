"""The flags of the trainer: those of `flicker run` that decide what is learned, and the wiring of this process."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from simulator.config import require
from simulator.errors import FlickerError
from simulator.flags import Flat, Hidden, Learning, LiveFlags, Wiring, from_env
from simulator.process import from_environment
from simulator.store.protocol import Shard
from simulator.types import World
from trainer.feeder import Pace, as_logged, steady
from trainer.lease import parse_shard

DEFAULT_RATE = 2_000.0
"""Events per second that are fed where no flag says otherwise."""
MIN_LOG_SECONDS = 300.0
"""Minimum duration of a real log where no flag says otherwise: a small one would be over in seconds."""
STEADY_ENTRY, AS_LOGGED_ENTRY = 0.1, 250
"""Seconds of events per entry of the log where they come steadily; events per entry where the log sets the pace."""
MAX_ENTRY = 1_000
"""Events per entry, at most."""


@dataclass(frozen=True)
class Learned(Learning):
    """What is learned."""

    k: Annotated[int, Hidden, tyro.conf.Fixed] = 10


@dataclass(frozen=True)
class TrainerFlags(LiveFlags, Wiring):
    """Learn continuously from the events in a store, and publish a generation of all duplicates every so many.

    Beside the clicks of users, a background world feeds its own events into the store. Stopped by SIGTERM or Ctrl-C,
    after saving; started again with the same flags it goes on where it was.
    """

    out: Annotated[Path | None, Hidden, tyro.conf.Fixed] = None
    compare: Annotated[Learned, Flat] = field(default_factory=Learned)
    state: Path = field(default_factory=lambda: Path(from_environment("FLICKER_STATE", "state/trainer")))
    """Folder in which the trainer saves where it is (default: FLICKER_STATE)."""
    shard: str = from_env("FLICKER_SHARD", "0/1")
    """I/N: the one of N trainers, I from 0, that teaches the I-th share of the duplicates. any/N: whichever is free;
    its state is in --state/shard-I then. Each needs a folder of its own. The first one feeds the world (default:
    FLICKER_SHARD, or 0/1: all of them; docs/trainers.md)."""
    generation_events: int | None = None
    """Events per generation, a whole number of shuffle windows (--batch x --window events). By default two of them, or
    as few as give a log 16 generations; one with less than two generations of what is asked for has so many, too."""
    rate: float | None = None
    """Events of the world per second, more than 0; where the log is full, the world waits. By default 2,000, and so few
    that a real log takes five minutes."""
    for_: Annotated[float | None, tyro.conf.arg(name="for")] = None
    """Instead of --rate: feed the whole world steadily within so many seconds, more than 0."""
    speed: Annotated[float | None, tyro.conf.arg(name="speed")] = None
    """Instead of --rate: so many times as fast as the times of its events say, more than 0."""

    head_start: int = 0
    """Events of the world that are fed at once when the trainer starts, so that the first generation comes soon; at
    most a generation of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _, count = parse_shard(self.shard)
        hint = f"at most as many trainers as --duplicates ({self.compare.duplicates})"
        require(count <= self.compare.duplicates, "shard", self.shard, hint)
        require(self.head_start >= 0, "head_start", self.head_start, "0 events or more")
        for name, value in (("rate", self.rate), ("for", self.for_), ("speed", self.speed)):
            require(value is None or 0 < value < float("inf"), name, value, "more than 0")
        given = [value for value in (self.rate, self.for_, self.speed) if value is not None]
        if len(given) > 1:
            raise FlickerError("--rate, --for and --speed: each sets the world's pace: give one of them")

    def folder(self, shard: Shard) -> Path:
        """Where the state of this trainer is, which is that shard."""
        return self.state / f"shard-{shard.number}" if self.shard.startswith("any") else self.state

    def head(self, size: int) -> int:
        """Events that are fed at once at the start, where a generation is `size`."""
        return min(self.head_start, size)

    def pace(self, world: World, size: int) -> tuple[Pace, int]:
        """How fast the world comes, and how many of its events go into one entry of the log; a generation is `size`."""
        if self.speed is not None:
            return as_logged(self.speed), AS_LOGGED_ENTRY
        slowest = DEFAULT_RATE if world.has_truth else min(DEFAULT_RATE, world.events / MIN_LOG_SECONDS)
        paced = max(1, world.events - self.head(size))
        rate = self.rate or (paced / self.for_ if self.for_ is not None else slowest)
        return steady(rate), max(1, min(MAX_ENTRY, round(rate * STEADY_ENTRY)))
