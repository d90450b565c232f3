"""Experiments small enough to run many times: about a second each."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from simulator.config import ExperimentConfig, ModelConfig, NoiseConfig, ReplayConfig, SyntheticConfig
from simulator.experiment.experiment import Experiment
from simulator.experiment.outcome import measure
from simulator.randomness import generator
from simulator.result import to_json
from simulator.world.open import open_world

SMALL = ExperimentConfig(
    world=SyntheticConfig(events=6_000, users=80, items=60, interaction=0.1),
    arms=("relu", "smelu:beta=1"),
    model=ModelConfig(dim=4, hidden=(16, 8), batch=64),
    noise=NoiseConfig(window=4),
    duplicates=3,
    generations=4,
    k=5,
    candidates=30,
    queries=40,
    queries_per_generation=10,
)
CLOCK = {"seconds", "peak_memory_bytes", "train_seconds", "events_per_second", "score_seconds"}
"""What may differ between two runs of one config."""


def small_log(folder: Path, ratings: int = 1_200) -> Path:
    """A made-up folder of the MovieLens family: users who like some genres, a rating a minute."""
    draws = generator(5, "test log")
    users, items = draws.integers(0, 50, ratings), draws.integers(0, 40, ratings)
    likes = (users % 3 == items % 3) | (draws.random(ratings) < 0.3)
    rows = [(u, i) for u, i, like in zip(users, items, likes, strict=True) if like]
    folder.mkdir(parents=True)
    (folder / "ratings.dat").write_text("".join(f"{u}::{i}::7::{60 * n}\n" for n, (u, i) in enumerate(rows)))
    (folder / "movies.dat").write_text("".join(f"{i}::Film {i} ({1980 + i})::{'ABC'[i % 3]}|D\n" for i in range(40)))
    return folder


def small_replay(folder: Path, **settings: Any) -> ExperimentConfig:
    """A small experiment on a small log."""
    return replace(SMALL, world=ReplayConfig(small_log(folder), horizon=7_200.0), **settings)


def prepared(config: ExperimentConfig) -> Experiment:
    """An experiment that has not begun."""
    return Experiment(config, open_world(config.world, config.seed, config.model.hash_rows))


def outcome(experiment: Experiment, checkpoint: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """result.json of an experiment, run to its end."""
    return cast(dict[str, Any], to_json(measure(experiment, experiment.run(lambda events: None, checkpoint))))


def timeless(result: dict[str, Any]) -> Any:
    """All that must be repeatable of result.json, as JSON holds it."""
    kept = copy.deepcopy(result)
    for owner in (kept, *kept["arms"].values()):
        for name in CLOCK & owner.keys():
            del owner[name]
    return json.loads(json.dumps(kept))
