"""What is asked of a run's models, and what their answers come to. Nothing here knows who taught them, or where.

`experiment.py` teaches models and asks them; `parts.py` joins what the parts of a run said. Either way the same numbers
come of the same answers, to the last bit: everything else here follows from the config and its world.

Shapes: A arms, F fleets, R duplicates, S = A F R served models in this order, M of them, Q queries, N candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from simulator.config import ExperimentConfig
from simulator.errors import SettingError
from simulator.measures.comparison import Comparison, Rankings, Shape, column_of, prefixed
from simulator.measures.registry import intervals
from simulator.models.engine import Costs
from simulator.models.engines import Engines
from simulator.models.specs import parse_arms
from simulator.randomness import generator
from simulator.result import nested
from simulator.schedule import Plan
from simulator.tuning import used_events
from simulator.types import Batch, Doubles, Floats, Ints, Query, Schema, World

PEEK = 2_000
"""Events just ahead of a generation on which its PD is measured, before they are learned."""


@dataclass(frozen=True)
class Part:
    """Which of a run's models: of each arm the F x R served ones in their order, cut in `of` shares, this one."""

    number: int = 0
    of: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def subset(self, models: int) -> slice:
        """Its share of so many models, as a slice."""
        return slice(models * self.number // self.of, models * (self.number + 1) // self.of)


WHOLE = Part()


@dataclass
class State:
    """What a run, or a part of it, needs besides the learner's weights to stop after a generation and go on."""

    generation: int = 0
    position: int = 0
    """Events of the world that were learned."""
    records: list[dict[str, Any]] = field(default_factory=list)
    """One entry of `generations` in result.json per generation; none in a part, which compares nothing."""
    losses: list[float] = field(default_factory=list)
    """[M] sums of the log loss of each event, scored before it was learned."""
    scored: int = 0
    """Events that were learned, feedback included."""
    counted: int = 0
    """Events in those sums: all, or those that did not choose a learning rate."""
    clicks: dict[str, list[float]] = field(default_factory=dict)
    """Arm -> clicks on each slate that it showed; none in a part."""
    compute: list[float] = field(default_factory=list)
    """[M] compute seconds of each served model's learning."""
    seconds: float = 0.0
    """Wall-clock seconds of the run so far."""


@dataclass(frozen=True)
class Asked:
    """The queries of a generation, and how M models ranked them."""

    queries: list[Query]
    ranked: Rankings


@dataclass(frozen=True)
class Outputs:
    """What M models said when a generation was cut."""

    generation: int
    begun: int
    """Events of the world before the generation."""
    position: int
    """Events of the world up to its end."""
    events: int
    """Learned so far, feedback included."""
    asked: Asked
    again: Rankings | None
    """Of the queries of the generation before, where there is one."""
    ahead: Batch
    """The events just ahead, which nobody has learned from yet."""
    logits: Floats
    """[M, n] their log-odds."""
    losses: Doubles
    """[M] mean log loss of the generation's events, scored before they were learned."""


@dataclass(frozen=True)
class Taught:
    """Who taught the arms: what a result says of their engines."""

    designs: dict[str, dict[str, Any]]
    """See Engines, as the next two."""
    replaced: dict[str, int]
    fallbacks: dict[str, str]
    costs: list[Costs]
    """Of each arm."""

    @staticmethod
    def by(engines: Engines) -> Taught:
        """What they say of themselves."""
        costs = [engines.costs(arm) for arm in range(len(engines.engines))]
        return Taught(engines.designs(), engines.replaced, engines.fallbacks, costs)


@dataclass(frozen=True)
class Final:
    """What the last measurement is made from: the last generations on new queries, the last one on held-out events."""

    queries: list[Query]
    earlier: dict[int, Rankings]
    """How the queries were ranked so many generations before the last, where the run has them: LAGS, and 1."""
    after: Rankings
    strangers: Rankings
    """Of the same candidates in the same context, for another user each."""
    held_out: Batch
    logits: Floats
    """[M, n] log-odds of the held-out events."""
    progressive: Doubles
    """[M] mean log loss of the last generation's events, scored before they were learned."""
    scoring_seconds: Doubles
    """[M] compute seconds that each served model took to score the candidates of a query."""
    baselines: Floats
    """[B, n] log-odds of the held-out events, by the baselines; last of them, where the truth is known, the oracle."""
    baseline_rankings: Rankings
    """The queries, ranked by each of these B."""
    taught: Taught


class Evaluation:
    """Of a config on its world: its queries and events, and the records of its generations."""

    def __init__(self, config: ExperimentConfig, world: World, rates: Mapping[str, float] | None = None) -> None:
        """`rates`: the learning rates that were found for specs with `lr=tuned`, see tuning.py.

        Raises SettingError for an arm that cannot be.
        """
        self.config, self.world = config, world
        arms = parse_arms(config.arms)
        self.arms = tuple(arm.with_rate((rates or {})[arm.spec]) if arm.tuned else arm for arm in arms)
        self.counted_from = used_events(world) if rates else 0
        """Events of the world before this one chose the learning rates: they count in no result."""
        self.shape = Shape(len(self.arms), config.fleets, config.duplicates, config.partners)
        self.plan = Plan.of(config, world, config.chunk_events)
        self.state = State(clicks={arm.label: [] for arm in self.arms})

    def check(self) -> None:
        """Ask the first and the last queries in vain, before anything is learned or written.

        Raises SettingError where the world has too few candidates or queries for the settings, or lacks a column.
        """
        config, plan = self.config, self.plan
        for column in config.by:
            column_of(self.world.schema, column)
        for name, at, purpose in (("queries_per_generation", plan.size, "live"), ("queries", plan.learned, "final")):
            count = getattr(config, name)
            queries = self.world.queries(count, config.candidates, at, purpose)
            if len(queries) < count:
                hint = f"at most {len(queries)}, those asked behind event {at} of the log: ask fewer"
                raise SettingError(name, count, hint)
            if not self.world.has_pages and len(queries[0].candidates) < config.candidates:
                hint = f"at most {len(queries[0].candidates)}, the items of the log: name fewer"
                raise SettingError("candidates", config.candidates, hint)

    def ask(self, position: int) -> list[Query]:
        """The queries of a generation that ends with this event of the world."""
        return self.world.queries(self.config.queries_per_generation, self.config.candidates, position, "live")

    def ahead(self, position: int) -> Batch:
        """The events just ahead of it."""
        return next(self.world.batches(PEEK, position, min(position + PEEK, self.plan.learned)))

    def routes(self, queries: list[Query]) -> Ints:
        """[Q] the number among all S of the random model that answers each query."""
        draws = (generator(self.config.seed, "route", query.id) for query in queries)
        return np.array([draw.integers(self.shape.all) for draw in draws], np.int64)

    def compare(self, outputs: Outputs, before: Asked | None) -> None:
        """Write down how much the results of all S models differ at a generation, what the refresh changed since the
        one `before`, and what users clicked on."""
        if outputs.position >= self.counted_from:
            self._count_clicks(outputs.asked)
        if outputs.begun >= self.counted_from:
            arms = self._differences(outputs, before)
            self.state.records.append({"generation": outputs.generation, "events": outputs.events, "arms": arms})

    def _count_clicks(self, asked: Asked) -> None:
        for number, (query, model) in enumerate(zip(asked.queries, self.routes(asked.queries).tolist(), strict=True)):
            clicked = self.world.click(query, asked.ranked.slate(model, number).items, "live")
            self.state.clicks[self.arms[self.shape.arm(model)].label].append(float(clicked.sum()))

    def _differences(self, outputs: Outputs, before: Asked | None) -> dict[str, Any]:
        """Of each arm, as result.json has them."""
        asked, users, arms = outputs.asked, outputs.ahead.user, dict[str, Any]()
        now, past = (
            Comparison(self.shape, queries, users, repetitions=self.config.few_resamples, seed=self.config.seed)
            for queries in (asked.queries, before.queries if before else [])
        )
        for number, arm in enumerate(self.arms):
            estimates = {"pd": now.differences(number, outputs.logits)["pd"]}
            estimates |= prefixed("swaps", now.duplicate_swaps(number, asked.ranked))
            estimates["progressive_log_loss"] = now.progressive(number, outputs.losses)
            if before and outputs.again:
                estimates |= prefixed("refresh_swaps", past.refresh_swaps(number, before.ranked, outputs.again))
                estimates |= prefixed("both_swaps", past.both_swaps(number, before.ranked, outputs.again))
            arms[arm.label] = nested(intervals(estimates))
        return arms

    @cached_property
    def final_queries(self) -> list[Query]:
        """New ones, of the time when all is learned. No model learns from them: they can be ranked before."""
        return self.world.queries(self.config.queries, self.config.candidates, self.plan.learned, "final")

    @cached_property
    def held_out(self) -> Batch:
        """The last events of the world, which nobody learns."""
        start, size = self.plan.learned, self.plan.held_out
        return Batch.concatenate(list(self.world.batches(size, start, start + size)))

    @cached_property
    def strangers(self) -> list[Query]:
        """The final queries, each by the user of another one."""
        return asked_by_others(self.final_queries, self.world.schema, self.config.seed)


def asked_by_others(queries: list[Query], schema: Schema, seed: int) -> list[Query]:
    """Each query with the user of another one, drawn at random; candidates and context stay."""
    shuffled = generator(seed, "strangers").permutation(len(queries))
    slots = sum(field.slots for field in schema.fields if field.side == "user")  # users' slots come first
    swapped = list(queries)
    for place, donor in zip(shuffled, np.roll(shuffled, 1), strict=True):
        features = queries[place].features.copy()
        features[:, :slots] = queries[donor].features[0, :slots]
        swapped[place] = replace(queries[place], user=queries[donor].user, features=features)
    return swapped
