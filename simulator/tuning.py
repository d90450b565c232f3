"""`lr=tuned`: the learning rate of an arm by its own log loss on an early part of the log, never by what it swaps.

One model of the arm learns the first 30 % of the log with each rate of a grid; what counts is the log loss of the
events from 10 to 30 %, each scored before it is learned. A best rate at an end of the grid extends it. All duplicates
then learn with that rate. `flicker run` counts nothing that it measures within the first 30 % (`Experiment`); `flicker
up` counts from the start. Nothing is refreshed meanwhile: `anchor` and `fresh` are tuned as the plain models that they
begin as.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from simulator.config import ExperimentConfig
from simulator.errors import SettingError
from simulator.measures.quality import log_loss
from simulator.models.engines import Engines
from simulator.models.specs import Arm, parse_arm, parse_arms
from simulator.types import World

if TYPE_CHECKING:  # the trainer's image has no rich, and tunes nothing
    from rich.progress import Progress as ProgressBar
    from rich.progress import TaskID

GRID = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08)
MIN_RATE, MAX_RATE = 1e-5, 10.0
"""Limits of the extended grid: a log that needs a rate beyond them is no basis for a choice."""
WARM_UP, USED = 0.1, 0.3
"""Shares of the log: before the first nothing counts, up to the second it does."""

MIN_STEPS = 2
"""Mini-batches that have to fit into the warm-up."""

Progress = Callable[[str, int, int], object]
"""What is being tuned, events learned so far, events in all."""


@dataclass(frozen=True)
class Tuned:
    """The tuned rate of a spec."""

    rate: float
    losses: dict[float, float]
    """Learning rate -> mean log loss, in nats; infinite where learning diverged."""

    def __str__(self) -> str:
        table = ", ".join(f"{rate:g}: {loss:.4f}" for rate, loss in sorted(self.losses.items()))
        return f"learning rate {self.rate:g} (log loss by rate: {table})"

    def as_dict(self) -> dict[str, Any]:
        """For config.json."""
        losses = {f"{rate:g}": loss if math.isfinite(loss) else None for rate, loss in sorted(self.losses.items())}
        return asdict(self) | {"losses": losses}


def used_events(world: World) -> int:
    """How many events from the start of the log are used for the choice, and count in no result."""
    return int(world.events * USED)


def tune(config: ExperimentConfig, world: World, progress: Progress = lambda *_: None) -> dict[str, Tuned]:
    """For every arm whose spec says `lr=tuned`: its rate.

    Raises SettingError where every rate diverges, or the log is too short.
    """
    specs = dict.fromkeys(spec for spec in config.arms if parse_arm(spec).tuned)
    return {spec: _tune(parse_arm(spec), config, world, progress) for spec in specs}


def _tune(arm: Arm, config: ExperimentConfig, world: World, progress: Progress) -> Tuned:
    events = math.ceil(MIN_STEPS * config.model.batch / WARM_UP)
    if world.events < events:  # each would be as good as another: all is scored before anything is learned
        hint = f"asks for {events:,} events or more, here are {world.events:,}: name a rate, or use a smaller batch"
        raise SettingError(f"{arm.spec}: lr", "tuned", hint)
    losses = _losses(arm, GRID, config, world, progress)
    while True:
        best = min(losses, key=lambda rate: losses[rate])
        if math.isinf(losses[best]):
            raise SettingError(f"{arm.spec}: lr", "tuned", f"learning diverges at every rate from {min(losses):g} on")
        next_rate = best / 2 if best == min(losses) else best * 2
        if best not in (min(losses), max(losses)) or not MIN_RATE <= next_rate <= MAX_RATE:
            return Tuned(best, losses)
        losses |= _losses(arm, [next_rate], config, world, progress)


def _losses(
    arm: Arm, rates: Sequence[float], config: ExperimentConfig, world: World, progress: Progress
) -> dict[float, float]:
    """Learning rate -> mean log loss, see `early_losses`."""
    arms = tuple(replace(arm.with_rate(rate), label=f"{arm.spec} at {rate:g}") for rate in rates)
    report = partial(progress, f"tuning {arm.spec}")
    return dict(zip(rates, early_losses(arms, config, world, report), strict=True))


def early_losses(
    arms: tuple[Arm, ...], config: ExperimentConfig, world: World, progress: Callable[[int, int], object]
) -> list[float]:
    """Mean log loss of the events from WARM_UP to USED of the log, each scored before it was learned, by one model of
    each arm: infinite where learning diverged. All learn side by side on the same events."""
    engines = Engines(world.schema, arms, config, subset=slice(1))
    stop, counted = used_events(world), int(world.events * WARM_UP)
    sums, position = [0.0] * len(arms), 0
    for chunk in world.batches(engines.chunk_events, 0, stop):
        skipped = max(0, min(len(chunk), counted - position))
        for number, logits in enumerate(engines.try_learn(chunk)):
            sums[number] += math.inf if logits is None else float(log_loss(logits, chunk.label)[:, skipped:].sum())
        position += len(chunk)
        progress(position, stop)
    return [total / (position - counted) for total in sums]


def tune_arms(config: ExperimentConfig, world: World, bar: ProgressBar) -> dict[str, Tuned]:
    """The learning rates of arms with `lr=tuned`, with a progress bar; prints a line for each."""
    if not any(arm.tuned for arm in parse_arms(config.arms)):
        return {}
    with bar:
        tasks: dict[tuple[str, int], TaskID] = {}

        def progress(name: str, done: int, total: int) -> None:
            running = tasks.get((name, total))
            if running is None or bar.tasks[running].completed >= total:  # a grid that is extended begins again
                running = tasks[name, total] = bar.add_task(name, total=total)
            bar.update(running, completed=done)

        tuned = tune(config, world, progress)
    for spec, choice in tuned.items():
        bar.console.print(f"{spec}: {choice}", soft_wrap=True)
    return tuned
