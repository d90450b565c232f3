"""The flags of `flicker up`: those of `flicker run` that decide what is learned, and how much of everything runs."""

from __future__ import annotations

from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import tyro

from simulator.config import require
from simulator.flags import LiveFlags, from_env, values
from simulator.store.access import require_weights
from simulator.types import PolicyName


@dataclass(frozen=True)
class UpFlags(LiveFlags):
    """Run the live system on this machine: store, trainer, replicas, router and traffic, until --for or Ctrl-C.

    Shows live how often two duplicates would have given a user different results, and leaves result.json in --out.
    Trainer and replicas import the models of your own that --arms names, from the working directory too, and no others:
    FLICKER_MODELS of the environment is not asked.
    """

    out: Path | None = None
    """Folder for result.json, logs, the store's data and the trainer's state (default: results/DATE-TIME-up)."""
    for_: Annotated[float | None, tyro.conf.arg(name="for")] = None
    """Seconds to run, at least 10; until Ctrl-C where it is left out."""
    replicas: int = 3
    """Serving processes, at least 1. With more than --duplicates some share one."""
    routers: int = 1
    """Routers, 1 to 8, asked in turn: any of them gives the same answer, and one that dies costs its users a retry."""
    trainers: int = 1
    """Trainers, at least 1 and at most as many as --duplicates: each teaches a share of them (docs/trainers.md)."""
    weights: str = from_env("FLICKER_WEIGHTS", "")
    """URL under which published weights lie: file:///folder, or s3://bucket/prefix of an object store (default:
    FLICKER_WEIGHTS, or nothing: in the store's server)."""
    rate: float = 50.0
    """Queries per second that simulated users offer, more than 0."""
    no_load: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Start no traffic; ask by yourself with `flicker query`."""
    shadow: float = 0.1
    """Share of queries that the router compares off the user's path, 0 to 1."""
    policy: PolicyName = "random"
    """Who answers a query. random: by hash(seed, query id). round_robin: in turn. sticky: the same replica for a user,
    who then sees the swaps of a refresh alone; what two users would see differ is counted as ever. least_loaded:
    whoever has the least to do."""
    refresh_events: int | None = None
    """Events per generation, a whole number of shuffle windows: by default two, or as few as give a log 16
    generations."""
    port: int = 0
    """Port of the router on this machine, 0 for a free one, which is shown; further routers take those behind it."""
    page_port: int = 0
    """Port of the live page on this machine, 0 for a free one. Its address is printed first, with the token in it
    that the page asks for: whoever has it can change the load, kill replicas, start experiments."""
    no_page: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Serve no page."""
    load_page: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Serve Locust's own page too, on this machine, without any password; its address is printed."""

    def __post_init__(self) -> None:
        require(self.for_ is None or 10 <= self.for_ < float("inf"), "for", self.for_, "at least 10 seconds")
        require(1 <= self.replicas <= 64, "replicas", self.replicas, "from 1 to 64")
        if self.weights:
            require_weights(self.weights)
        hint = f"from 1 to --duplicates ({self.compare.duplicates})"
        require(1 <= self.trainers <= self.compare.duplicates, "trainers", self.trainers, hint)
        require(0 < self.rate < float("inf"), "rate", self.rate, "more than 0 queries per second")
        require(0 <= self.shadow <= 1, "shadow", self.shadow, "from 0 to 1")
        require(1 <= self.routers <= 8, "routers", self.routers, "from 1 to 8")
        highest = 65_536 - self.routers
        require(0 <= self.port <= highest, "port", self.port, f"from 0 to {highest}")
        require(0 <= self.page_port < 65_536, "page_port", self.page_port, "from 0 to 65535")
        both = self.load_page and self.no_load
        require(not both, "load_page", "yes", "there is no traffic with --no-load: leave one of the two away")

    @classmethod
    def of(cls, preset: str, **fixed: int) -> Self:
        """The flags as a preset sets them, with one fleet of as many duplicates as there are replicas."""
        return super().of(preset, duplicates=cls.replicas, **fixed)

    def learning_arguments(self) -> list[str]:
        """The flags that the trainer needs to learn the same, as on its command line."""
        default = UpFlags.of(self.preset)
        arguments = ["--preset", self.preset]
        if self.data is not None:
            arguments += ["--data", str(self.data.resolve())]
        for section in ("compare", "synthetic", "replay"):
            arguments += as_arguments(getattr(self, section), getattr(default, section))
        return [*arguments, "--duplicates", str(self.compare.duplicates)]


HIDDEN = {"world", "path", "duplicates", "k"}
"""What the trainer has no flag for, or what is said apart."""


def as_arguments(settings: Any, default: Any) -> list[str]:
    """The settings that differ from a default, as flags."""
    arguments: list[str] = []
    for name, value in values(settings).items():
        if is_dataclass(value):
            arguments += [] if name in HIDDEN else as_arguments(value, getattr(default, name))
        elif name not in HIDDEN and value != getattr(default, name):
            flag = "--" + name.replace("_", "-")
            if isinstance(value, bool):
                arguments.append(flag if value else "--no-" + flag[2:])
            else:
                arguments += [flag, *map(str, value if isinstance(value, tuple) else [value])]
    return arguments
