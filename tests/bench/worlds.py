"""Events per second of the worlds."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from figures import Figure, speed
from interleave import interleave
from sizes import Size

from simulator.config import ReplayConfig, SyntheticConfig
from simulator.randomness import generator
from simulator.types import World
from simulator.world.replay import ReplayWorld
from simulator.world.stream import SyntheticWorld


def measure(size: Size) -> list[Figure]:
    """The synthetic world, and a made-up log replayed."""
    events = size.world_events
    synthetic = SyntheticWorld(SyntheticConfig(events=events * (size.warm_up + size.rounds)), seed=0)
    with TemporaryDirectory() as folder:
        write_log(Path(folder), size.ratings)
        replayed = ReplayWorld(ReplayConfig(path=Path(folder)), seed=0)
        variants = {
            # every round draws other events: the world keeps its latest blocks
            "synthetic world": lambda number: draw(synthetic, size, number * events, (number + 1) * events),
            "replayed log": lambda number: draw(replayed, size, 0, replayed.events),
        }
        passes = interleave("worlds", variants, size.rounds, size.warm_up)
    return [
        speed("synthetic world", "events/s", passes["synthetic world"], events),
        speed("replayed log with negatives", "events/s", passes["replayed log"], replayed.events),
    ]


def draw(world: World, size: Size, start: int, stop: int) -> None:
    """Go through the events [start, stop), as many at a time as a learner takes."""
    assert sum(len(batch) for batch in world.batches(size.events, start, stop)) == stop - start


def write_log(folder: Path, ratings: int) -> None:
    """A log of the MovieLens family: `ratings` engagements of up to 3,000 users with up to 1,000 films."""
    draws = generator(0, "made-up log")
    users, films = draws.integers(1, 3_001, ratings), draws.integers(1, 1_001, ratings)
    lines = [f"{user}::{film}::7::{second}" for second, (user, film) in enumerate(zip(users, films, strict=True))]
    (folder / "ratings.dat").write_text("\n".join(lines))
    genres = "Comedy|Drama", "Thriller", ""
    lines = [f"{film}::Film {film} ({1950 + film % 70})::{genres[film % 3]}" for film in range(1, 1_001)]
    (folder / "movies.dat").write_text("\n".join(lines))
