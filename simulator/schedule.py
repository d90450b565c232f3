"""What is learned when: where generations are cut, and how feedback joins the world's events.

The last tenth of a log, at most 50,000 events, is held out: nothing is learned from it. Settings that nobody chose are
fitted to a small log; those that somebody did stay, and where they cannot be had they are refused: whoever gives
`--batch 512` to compare with another run would be misled by another batch.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from simulator.config import ExperimentConfig, ReplayConfig
from simulator.errors import DataError, SettingError
from simulator.types import Batch, World

HELD_OUT_SHARE, MAX_HELD_OUT = 10, 50_000
MIN_EVENTS = 200
"""Events of a log, negatives included: fewer teach nothing."""
MIN_WINDOWS, LIVE_GENERATIONS = 8, 16
"""Shuffle windows that a run should have, at most as many as generations; generations of the live system over a log."""
BATCHES, WINDOWS = (64, 8), (4, 1)
"""Down to where a batch and a window are halved: first each to one limit, then to the other."""


@dataclass(frozen=True)
class Plan:
    """Where generations are cut."""

    learned: int
    """Events of the world that are learned."""
    held_out: int
    """Events at the end of the world that are not."""
    size: int
    """Events of the log per generation, feedback included; a whole number of shuffle windows."""
    generations: int
    """The last one takes what is left."""
    total: int
    """Events of the log that are learned in all, feedback included."""

    @staticmethod
    def of(config: ExperimentConfig, world: World, chunk: int) -> Plan:
        """At most `config.generations` of them. Raises SettingError where the world is too short for two."""
        held_out = min(world.events // HELD_OUT_SHARE, MAX_HELD_OUT)
        learned = world.events - held_out
        feedback = config.queries_per_generation * config.k if world.has_truth else 0
        minimum = feedback + 2 * chunk
        if learned <= minimum:
            hint = f"more than {minimum * 10 // 9}, or a smaller batch ({config.model.batch}), window or feedback"
            raise SettingError("events", world.events, f"too few for two generations: {hint}")
        # each generation but the first begins with feedback, which must leave room for the world's own events
        whole = learned + feedback * (config.generations - 1)
        size = chunk * -(-whole // (config.generations * chunk))
        generations = max(2, 1 + round((learned - size) / (size - feedback)))
        return Plan(learned, held_out, size, generations, learned + feedback * (generations - 1))


def fitted(config: ExperimentConfig, world: World, given: Collection[str]) -> tuple[ExperimentConfig, str]:
    """The config of a run with what its log has room for, and a line that says what was changed, empty if nothing.

    Settings named in `given` stay. Raises DataError and SettingError for a log that is too small for any settings.
    """
    adapted = _fit_windows(config, world, given, min(MIN_WINDOWS, config.generations))
    if not isinstance(config.world, ReplayConfig):
        return adapted, ""
    free = {"candidates", "k", "queries", "queries_per_generation"} - set(given)
    plan = Plan.of(adapted, world, adapted.chunk_events)
    candidates = min(config.candidates, world.items)
    final = world.queries(config.queries, candidates, plan.learned, "final")
    live = world.queries(config.queries_per_generation, candidates, plan.size, "live")
    room: dict[str, Any] = {
        "candidates": candidates,
        "k": min(config.k, candidates),
        "queries": len(final),
        "queries_per_generation": len(live),
    }
    adapted = replace(adapted, **{name: value for name, value in room.items() if name in free})
    # `generations` stays: it says how many at most, and another number would be planned for in another way
    fewer = plan.learned < config.generations * adapted.chunk_events
    also = f"generations {config.generations} -> {plan.generations}" if fewer else ""
    return adapted, _changes(config, adapted, world.events, also)


def fitted_live(
    config: ExperimentConfig, world: World, given: Collection[str], size: int | None
) -> tuple[ExperimentConfig, int, str]:
    """The same of the live system, with its events per generation: `size`, or two shuffle windows, but fewer where the
    log would have less than two generations of it, or LIVE_GENERATIONS where nobody named a size."""
    adapted = _fit_windows(config, world, given, LIVE_GENERATIONS)
    chunk = adapted.chunk_events
    if not isinstance(config.world, ReplayConfig):
        return adapted, size or 2 * chunk, ""
    minimum, asked = (2, size) if size else (LIVE_GENERATIONS, 2 * chunk)
    fit = asked if world.events >= minimum * asked else chunk * max(1, world.events // (LIVE_GENERATIONS * chunk))
    also = f"events per generation {asked:,} -> {fit:,}" if fit != asked else ""
    return adapted, fit, _changes(config, adapted, world.events, also)


def _fit_windows(config: ExperimentConfig, world: World, given: Collection[str], min_windows: int) -> ExperimentConfig:
    """Batch and window halved until a log has at least so many windows, where they may be."""
    if not isinstance(config.world, ReplayConfig):
        return config
    if world.events < MIN_EVENTS:
        hint = f"at least {MIN_EVENTS} are needed: give more rows"
        raise DataError(f"{config.world.path}: a log of {world.events} events: {hint}")
    learned = world.events - min(world.events // HELD_OUT_SHARE, MAX_HELD_OUT)
    for batch, window in zip(BATCHES, WINDOWS, strict=True):
        while config.chunk_events * min_windows > learned:
            if config.model.batch > batch and "batch" not in given:
                config = replace(config, model=replace(config.model, batch=config.model.batch // 2))
            elif config.noise.window > window and "window" not in given:
                config = replace(config, noise=replace(config.noise, window=config.noise.window // 2))
            else:
                break
    return config


def _changes(asked: ExperimentConfig, adapted: ExperimentConfig, events: int, also: str = "") -> str:
    """The line that says what was fitted."""
    pairs = [("batch", asked.model.batch, adapted.model.batch), ("window", asked.noise.window, adapted.noise.window)]
    names = ("candidates", "k", "queries", "queries_per_generation")
    pairs += [(name, getattr(asked, name), getattr(adapted, name)) for name in names]
    changes = [f"{name} {before:,} -> {now:,}" for name, before, now in pairs if before != now]
    changes += [also] if also else []
    return f"Adapted to a log of {events:,} events: {', '.join(changes)}" if changes else ""


class Log:
    """Events in the order in which they are learned, a chunk at a time.

    What users did with shown slates comes before what is still ahead of the world.
    """

    def __init__(self, world: World, start: int, stop: int, chunk: int) -> None:
        """The world's events [start, stop), in chunks of `chunk`."""
        self._stream, self._chunk = world.batches(chunk, start, stop), chunk
        self._feedback: list[Batch] = []
        self._ahead: list[Batch] = []
        self.position = start
        """Events of the world that were taken, or that lie before `start`."""

    def put_first(self, feedback: list[Batch]) -> None:
        """Impressions to be taken before all else; less than a generation of them."""
        self._feedback += feedback

    def take(self) -> Batch | None:
        """The next chunk, a shorter one at the end, None after it."""
        while sum(map(len, self._feedback + self._ahead)) < self._chunk:
            more = next(self._stream, None)
            if more is None:
                break
            self._ahead.append(more)
        if not self._feedback and not self._ahead:
            return None
        joined, old = Batch.concatenate(self._feedback + self._ahead), sum(map(len, self._feedback))
        taken, fresh = joined[: self._chunk], max(self._chunk, old)
        self._feedback = [joined[self._chunk : old]] if old > self._chunk else []
        self._ahead = [joined[fresh:]] if len(joined) > fresh else []
        self.position += max(0, len(taken) - old)
        return taken
