"""The whole story in one process, numbered: learn, refresh, ask, rank, compare, click, and again.

Every duplicate of every arm learns from one log. The models here are those that are served, S of them: where a cure
makes one of several, only their joint answer counts. At each generation the same queries are ranked by all of them, a
random one answers the user, and what differs between the others is counted. Nothing here depends on the clock, on the
number of threads, or on where a run was interrupted, unless threads race (`noise.racing`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simulator.comparison import Comparison, Rankings, Shape, column_of, under
from simulator.config import ExperimentConfig, ReplayConfig
from simulator.errors import SettingError
from simulator.measures.estimates import intervals
from simulator.measures.quality import log_loss
from simulator.models.baselines import Baselines
from simulator.models.engines import Engines
from simulator.models.specs import parse_arms
from simulator.randomness import generator
from simulator.result import nested
from simulator.schedule import Log, Plan
from simulator.tuning import used_events
from simulator.types import Batch, Doubles, Floats, Query, Schema, World
from simulator.world.clicks import logit
from simulator.world.stream import RECENT, SyntheticWorld

LAGS = (1, 2, 4, 8)
"""So many generations before the last the final queries are ranked too: users meet several refreshes between visits."""
PEEK = 2_000
"""Events just ahead of a generation on which its PD is measured, before they are learned."""


@dataclass
class State:
    """What a run needs besides the learner's weights to stop after a generation and go on."""

    generation: int = 0
    position: int = 0
    """Events of the world that were learned."""
    records: list[dict[str, Any]] = field(default_factory=list)
    """One entry of `generations` in result.json per generation."""
    losses: list[float] = field(default_factory=list)
    """[S] sums of the log loss of each event, scored before it was learned."""
    scored: int = 0
    """Events that were learned, feedback included."""
    counted: int = 0
    """Events in those sums: all, or those that did not choose a learning rate."""
    clicks: dict[str, list[float]] = field(default_factory=dict)
    """Arm -> clicks on each slate that it showed."""
    compute: list[float] = field(default_factory=list)
    """[S] compute seconds of each served model's learning."""
    seconds: float = 0.0
    """Wall-clock seconds of the run so far."""


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
    """[S, n] log-odds of the held-out events."""
    progressive: Doubles
    """[S] mean log loss of the last generation's events, scored before they were learned."""
    scoring_seconds: Doubles
    """[S] compute seconds that each served model took to score the candidates of a query."""
    baselines: Floats
    """[B, n] log-odds of the held-out events, by the baselines; last of them, where the truth is known, the oracle."""
    baseline_rankings: Rankings
    """The queries, ranked by each of these B."""


class Experiment:
    """One run of a config on its world."""

    def __init__(self, config: ExperimentConfig, world: World, rates: Mapping[str, float] | None = None) -> None:
        """`rates`: the learning rates that were found for specs with `lr=tuned`, see tuning.py.

        Raises SettingError for an arm that cannot be.
        """
        self.config, self.world = config, world
        arms = parse_arms(config.arms)
        self.arms = tuple(arm.with_rate((rates or {})[arm.spec]) if arm.tuned else arm for arm in arms)
        self.counted_from = used_events(world) if rates else 0
        """Events of the world before this one chose the learning rates: they count in no result."""
        self.shape = Shape(len(self.arms), config.fleets, config.duplicates)
        self.engines = Engines(world.schema, self.arms, config)
        recent = config.world.recent if isinstance(config.world, ReplayConfig) else RECENT
        self.baselines = Baselines(world.schema, world.items, config.model.batch, recent)
        self.earlier: dict[int, Floats] = {}
        """Lag -> log-odds [S, Q, N] of the final queries, so many generations before the last."""
        self.plan = Plan.of(config, world, self.engines.chunk_events)
        models = len(self.arms) * config.fleets * config.duplicates
        self.state = State(losses=[0.0] * models, compute=[0.0] * models, clicks={arm.label: [] for arm in self.arms})

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

    def run(self, progress: Callable[[int], None], checkpoint: Callable[[], None]) -> Final:
        """Run from wherever `state` stands to the end; returns what the final measurement is made from.

        `progress` is told how many events were learned after each step; `checkpoint` is called after each generation.
        Raises SettingError where learning diverges or the world has too few candidates or queries.
        """
        log = Log(self.world, self.state.position, self.plan.learned, self.engines.chunk_events)
        queries, rankings = self._resumed(log)
        while self.state.generation < self.plan.generations - 1:
            begun = self.state.position
            losses = self._learn(log, self.plan.size, progress)  # 1. learn, each event scored first
            self._refresh()  # 2. refresh: all duplicates at once
            again = self._rank(queries) if queries else None  # the same queries, one generation later
            asked = self._ask()  # 3. ask
            ranked = self._rank(asked)  # 4. rank
            if begun >= self.counted_from:
                self._compare(asked, ranked, queries, rankings, again, losses)  # 5. compare: duplicate, refresh, both
            log.put_first(self._click(asked, ranked, self.state.clicks))  # 6. click what a random duplicate shows
            queries, rankings = asked, ranked
            self._look_ahead()
            checkpoint()
        return self._finish(log, progress)

    def _resumed(self, log: Log) -> tuple[list[Query], Rankings | None]:
        """The queries of the generation that an interrupted run ended with, asked and clicked once more."""
        if not self.state.generation:
            return [], None
        queries = self._ask()
        rankings = self._rank(queries)
        log.put_first(self._click(queries, rankings, {arm.label: [] for arm in self.arms}))
        return queries, rankings

    def _learn(self, log: Log, events: int | None, progress: Callable[[int], None]) -> Doubles:
        """Learn `events` of the log (all that is left: None); returns the mean log loss [S] before learning."""
        sums, count, counted = np.zeros(len(self.state.losses)), 0, 0
        while events is None or count < events:
            start = log.position
            chunk = log.take()
            if chunk is None:
                break
            logits = self.engines.learn(chunk)
            self.baselines.learn(chunk)
            count += len(chunk)
            if start >= self.counted_from:
                counted += len(chunk)
                sums += log_loss(logits, chunk.label).sum(axis=1)
            progress(self.state.scored + count)
        self.state.position = log.position
        self.state.losses = list(np.add(self.state.losses, sums))
        self.state.scored += count
        self.state.counted += counted
        return sums / counted if counted else sums

    def _refresh(self) -> None:
        self.engines.refresh()
        self.state.generation += 1
        self.state.compute = list(np.add(self.state.compute, self.engines.take_seconds()))

    def _ask(self) -> list[Query]:
        config = self.config
        return self.world.queries(config.queries_per_generation, config.candidates, self.state.position, "live")

    def _rank(self, queries: list[Query]) -> Rankings:
        return Rankings(self.engines.score_queries(queries), queries, self.config.k)

    def _compare(
        self,
        asked: list[Query],
        ranked: Rankings,
        queries: list[Query],
        before: Rankings | None,
        after: Rankings | None,
        losses: Doubles,
    ) -> None:
        """Write down how much results differ at this generation, and what the refresh changed."""
        ahead = self._peek()
        logits = self.engines.score_events(ahead.features)
        now = Comparison(self.shape, asked, ahead.user, repetitions=self.config.few_resamples, seed=self.config.seed)
        past = Comparison(self.shape, queries, ahead.user, repetitions=self.config.few_resamples, seed=self.config.seed)
        arms: dict[str, Any] = {}
        for number, arm in enumerate(self.arms):
            found = {"pd": now.differences(number, logits)["pd"]} | under("swaps", now.duplicate_swaps(number, ranked))
            found["progressive_log_loss"] = now.progressive(number, losses)
            if before and after:
                found |= under("refresh_swaps", past.refresh_swaps(number, before, after))
                found |= under("both_swaps", past.both_swaps(number, before, after))
            arms[arm.label] = nested(intervals(found))
        self.state.records.append({"generation": self.state.generation, "events": self.state.scored, "arms": arms})

    def _peek(self) -> Batch:
        """The events just ahead, which nobody has learned from yet."""
        start = self.state.position
        return next(self.world.batches(PEEK, start, min(start + PEEK, self.plan.learned)))

    def _click(self, queries: list[Query], rankings: Rankings, clicks: dict[str, list[float]]) -> list[Batch]:
        """A random model answers each query and its user clicks; returns what is learned from it."""
        feedback: list[Batch] = []
        for number, query in enumerate(queries):
            model = int(generator(self.config.seed, "route", query.id).integers(len(self.state.losses)))
            items = rankings.slate(model, number).items
            clicked = self.world.click(query, items, "live")
            if self.state.position >= self.counted_from:
                clicks[self.arms[self.shape.arm(model)].label].append(float(clicked.sum()))
            shown = self.world.feedback(query, items, clicked)
            feedback += [shown] if shown is not None else []
        return feedback

    @cached_property
    def _final_queries(self) -> list[Query]:
        """New ones, of the time when all is learned. No model learns from them: they can be ranked before."""
        return self.world.queries(self.config.queries, self.config.candidates, self.plan.learned, "final")

    def _look_ahead(self) -> None:
        """Rank the final queries where the last generation is one of LAGS ahead."""
        lag = self.plan.generations - self.state.generation
        if lag in LAGS:
            self.earlier[lag] = self.engines.score_queries(self._final_queries)

    def _finish(self, log: Log, progress: Callable[[int], None]) -> Final:
        """Learn what is left, and let everybody rank the final queries and score the held-out events."""
        queries, k = self._final_queries, self.config.k
        losses = self._learn(log, None, progress)
        self._refresh()
        after = self._rank(queries)
        seconds, start, stop = self.engines.scoring_seconds, self.plan.learned, self.plan.learned + self.plan.held_out
        strangers = self._rank(asked_by_others(queries, self.world.schema, self.config.seed))
        held_out = Batch.concatenate(list(self.world.batches(self.plan.held_out, start, stop)))
        baselines, ranked = self._baselines(held_out, queries)
        return Final(
            queries,
            {lag: Rankings(scores, queries, k) for lag, scores in self.earlier.items()},
            after,
            strangers,
            held_out,
            self.engines.score_events(held_out.features),
            losses,
            seconds,
            baselines,
            Rankings(ranked, queries, k),
        )

    def _baselines(self, held_out: Batch, queries: list[Query]) -> tuple[Floats, Floats]:
        """What baselines, and the oracle where there is one, say of the events [B, n] and candidates [B, Q, N]."""
        events, ranked = self.baselines.score(held_out.features, held_out.item), self.baselines.score_queries(queries)
        if not isinstance(self.world, SyntheticWorld):
            return events, ranked
        truth = np.stack([logit(query.relevance) for query in queries])
        return np.concatenate([events, self.world.truth(held_out)[None]]), np.concatenate([ranked, truth[None]])

    def tensors(self) -> dict[str, Tensor]:
        """Everything besides `state` that the run needs to go on from here, as named tensors on the CPU."""
        own: dict[str, Any] = {f"baselines.{name}": value for name, value in self.baselines.state().items()}
        own |= {f"earlier.{lag}": scores for lag, scores in self.earlier.items()}
        return self.engines.state() | {name: torch.from_numpy(value) for name, value in own.items()}

    def restore(self, tensors: dict[str, Tensor], state: State) -> None:
        """Go on from what `tensors` returned and its state. Raises ResultError, see Engine."""
        self.engines.restore(tensors)
        own = {tuple(name.split(".", 1)): value.numpy() for name, value in tensors.items()}
        self.baselines.restore({name: value for (kind, name), value in own.items() if kind == "baselines"})
        self.earlier = {int(name): value for (kind, name), value in own.items() if kind == "earlier"}
        self.state = state


def asked_by_others(queries: list[Query], schema: Schema, seed: int) -> list[Query]:
    """Each query with the user of another one, drawn at random; candidates and context stay."""
    shuffled = generator(seed, "strangers").permutation(len(queries))
    slots = sum(field.slots for field in schema.fields if field.side == "user")  # users' slots come first
    found = list(queries)
    for here, there in zip(shuffled, np.roll(shuffled, 1), strict=True):
        features = queries[here].features.copy()
        features[:, :slots] = queries[there].features[0, :slots]
        found[here] = replace(queries[here], user=queries[there].user, features=features)
    return found
