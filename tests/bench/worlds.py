"""Events per second of the worlds, beside random numbers and table look-ups alone, and beside one event at a time."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
from figures import Figure, ratio, speed
from interleave import interleave
from sizes import Size

from simulator.config import ReplayConfig, SyntheticConfig
from simulator.randomness import generator
from simulator.types import World
from simulator.world import stream
from simulator.world.open import open_world
from simulator.world.stream import BLOCK, SyntheticWorld

NUMBERS = 5
"""Random numbers that an event takes: user, device, position, item and click."""
ONE_BY_ONE = 200
"""Events of a pass that are drawn one at a time, at most."""


def measure(size: Size) -> list[Figure]:
    """The synthetic world, and a made-up log replayed."""
    events, few = size.world_events, min(ONE_BY_ONE, size.ratings)
    synthetic = SyntheticWorld(SyntheticConfig(events=events * (size.warm_up + size.rounds)), seed=0)
    naive = SyntheticWorld(SyntheticConfig(), seed=0)
    with TemporaryDirectory() as folder:
        write_log(Path(folder), size.ratings)
        replayed = open_world(ReplayConfig(path=Path(folder)), seed=0)
        variants = {
            # every round draws other events: the world keeps its latest blocks
            "synthetic world": lambda number: draw(synthetic, size, number * events, (number + 1) * events),
            "its numbers and rows alone": lambda number: numbers_and_rows(synthetic, events),
            "one at a time": lambda number: one_at_a_time(naive, few),
            "replayed log": lambda number: draw(replayed, size, 0, replayed.events),
        }
        passes = interleave("worlds", variants, size.rounds, size.warm_up)
    return [
        speed("synthetic world", "events/s", passes["synthetic world"], events),
        ratio("synthetic world / its numbers and rows alone", passes, "synthetic world", "its numbers and rows alone"),
        speed("synthetic world, one event at a time", "events/s", passes["one at a time"], few),
        speed("replayed log with negatives", "events/s", passes["replayed log"], replayed.events),
    ]


def draw(world: World, size: Size, start: int, stop: int) -> None:
    """Go through the events [start, stop), as many at a time as a learner takes."""
    assert sum(len(batch) for batch in world.batches(size.events, start, stop)) == stop - start


def numbers_and_rows(world: SyntheticWorld, events: int) -> None:
    """The floor: random numbers, and the table rows of events that are known beforehand."""
    draws = generator(0, "floor")
    user, item = np.arange(BLOCK) % world.users, np.arange(BLOCK) % world.items
    context = np.zeros((BLOCK, world.encoder.context_slots), np.int32)
    for _ in range(0, events, BLOCK):
        draws.random((NUMBERS, BLOCK))
        world.encoder.encode(user, item, context)


def one_at_a_time(world: SyntheticWorld, events: int) -> None:
    """The naive way: the same code, a call of NumPy for each event."""
    with patch.object(stream, "BLOCK", 1):
        for number in range(events):
            world._draw_block(number)


def write_log(folder: Path, ratings: int) -> None:
    """A log of the MovieLens family: `ratings` engagements of up to 3,000 users with up to 1,000 films."""
    draws = generator(0, "made-up log")
    users, films = draws.integers(1, 3_001, ratings), draws.integers(1, 1_001, ratings)
    lines = [f"{user}::{film}::7::{second}" for second, (user, film) in enumerate(zip(users, films, strict=True))]
    (folder / "ratings.dat").write_text("\n".join(lines))
    genres = "Comedy|Drama", "Thriller", ""
    lines = [f"{film}::Film {film} ({1950 + film % 70})::{genres[film % 3]}" for film in range(1, 1_001)]
    (folder / "movies.dat").write_text("\n".join(lines))
