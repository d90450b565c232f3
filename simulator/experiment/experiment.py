"""The whole story in one process, numbered: learn, refresh, ask, rank, compare, click, and again.

Every duplicate of every arm learns from one log. The models here are those that are served, S of them: where a cure
makes one of several, only their joint answer counts. At each generation the same queries are ranked by all of them, a
random one answers the user, and what differs between the others is counted. Nothing here depends on the clock, on the
number of threads, or on where a run was interrupted, unless threads race (`noise.racing`).

A part of a run (see `Part`) is the same story with M of the S models, beside others: what its models say is left for
`parts.py` to join, and the slates of models that are not here come from the other parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from simulator.config import ExperimentConfig, ReplayConfig
from simulator.experiment.evaluation import WHOLE, Asked, Evaluation, Final, Outputs, Part, State, Taught
from simulator.measures.comparison import Rankings
from simulator.measures.quality import log_loss
from simulator.models.baselines import Baselines
from simulator.models.engines import Engines
from simulator.schedule import Log
from simulator.types import Batch, Doubles, Floats, Ints, Query, World
from simulator.world.population import logit
from simulator.world.stream import RECENT, SyntheticWorld

LAGS = (1, 2, 4, 8)
"""So many generations before the last the final queries are ranked too: users meet several refreshes between visits."""


class OtherParts(Protocol):
    """The other parts of a run."""

    def report(self, outputs: Outputs, before: Asked | None) -> None:
        """Hand on what this part's models predicted at a generation, and the rankings of the one `before`."""

    def shown(self, generation: int, slates: Ints) -> Ints:
        """[Q, K] the slates that users are shown; `slates` are those by this part's models, else -1."""


class NoOtherParts:
    """For a run in one part: its outputs are compared at once."""

    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation

    def report(self, outputs: Outputs, before: Asked | None) -> None:
        """See OtherParts."""
        self._evaluation.compare(outputs, before)

    def shown(self, generation: int, slates: Ints) -> Ints:
        """See OtherParts."""
        return slates


class Experiment(Evaluation):
    """One run of a config on its world, or a part of it."""

    def __init__(
        self, config: ExperimentConfig, world: World, rates: Mapping[str, float] | None = None, part: Part = WHOLE
    ) -> None:
        """`rates`: see Evaluation. Raises SettingError for an arm that cannot be."""
        super().__init__(config, world, rates)
        subset = part.subset(config.fleets * config.duplicates)
        self.engines = Engines(world.schema, self.arms, config, subset=subset)
        models = [self.shape.models(arm).ravel()[subset] for arm in range(len(self.arms))]
        self.models: Ints = np.concatenate(models)
        """[M] the numbers of those here among all S."""
        recent = config.world.recent if isinstance(config.world, ReplayConfig) else RECENT
        self.baselines = Baselines(world.schema, world.items, config.model.batch, recent)
        self.earlier: dict[int, Floats] = {}
        """Lag -> log-odds [M, Q, N] of the final queries, so many generations before the last."""
        self.state.losses = [0.0] * len(self.models)
        self.state.compute = [0.0] * len(self.models)

    def run(
        self, progress: Callable[[int], None], checkpoint: Callable[[], None], others: OtherParts | None = None
    ) -> Final:
        """Run from wherever `state` stands to the end; returns what the final measurement is made from.

        `progress` is called with the events learned after each step; `checkpoint` is called after each generation.
        Raises SettingError where learning diverges or the world has too few candidates or queries.
        """
        others = others or NoOtherParts(self)
        log = Log(self.world, self.state.position, self.plan.learned, self.engines.chunk_events)
        before = self._resumed(log, others)
        while self.state.generation < self.plan.generations - 1:
            begun = self.state.position
            losses = self._learn(log, self.plan.size, progress)  # 1. learn, each event scored first
            self._refresh()  # 2. refresh: all duplicates at once
            again = self._rank(before.queries) if before else None  # the same queries, one generation later
            asked = self._asked()  # 3. ask, 4. rank
            ahead = self.ahead(self.state.position)
            logits, events = self.engines.score_events(ahead.features), self.state.scored
            place = self.state.generation, begun, self.state.position, events
            others.report(
                Outputs(*place, asked, again, ahead, logits, losses), before
            )  # 5. compare: duplicate, refresh, both
            log.put_first(self._feedback(asked, others))  # 6. click what a random duplicate shows
            before = asked
            self._look_ahead()
            checkpoint()
        return self._finish(log, progress)

    def _resumed(self, log: Log, others: OtherParts) -> Asked | None:
        """What was asked at the generation that an interrupted run ended with, once more."""
        if not self.state.generation:
            return None
        asked = self._asked()
        log.put_first(self._feedback(asked, others))
        return asked

    def _learn(self, log: Log, events: int | None, progress: Callable[[int], None]) -> Doubles:
        """Learn `events` of the log (all that is left: None); returns the mean log loss [M] before learning."""
        sums, count, counted = np.zeros(len(self.models)), 0, 0
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

    def _asked(self) -> Asked:
        queries = self.ask(self.state.position)
        return Asked(queries, self._rank(queries))

    def _rank(self, queries: list[Query]) -> Rankings:
        return Rankings(self.engines.score_queries(queries), queries, self.config.k)

    def _feedback(self, asked: Asked, others: OtherParts) -> list[Batch]:
        """A random model answers each query and its user clicks; returns what is learned from it."""
        if not self.world.has_truth:
            return []  # a log supplies all events
        slates = np.full((len(asked.queries), self.config.k), -1)
        for number, model in enumerate(self.routes(asked.queries)):
            for row in np.flatnonzero(self.models == model):
                slates[number] = asked.ranked.slate(int(row), number).items
        feedback: list[Batch] = []
        for query, items in zip(asked.queries, others.shown(self.state.generation, slates), strict=True):
            shown = self.world.feedback(query, items, self.world.click(query, items, "live"))
            feedback += [shown] if shown is not None else []
        return feedback

    def _look_ahead(self) -> None:
        """Rank the final queries where the last generation is one of LAGS ahead."""
        lag = self.plan.generations - self.state.generation
        if lag in LAGS:
            self.earlier[lag] = self.engines.score_queries(self.final_queries)

    def _finish(self, log: Log, progress: Callable[[int], None]) -> Final:
        """Learn what is left, and let everybody rank the final queries and score the held-out events."""
        queries, held_out, k = self.final_queries, self.held_out, self.config.k
        losses = self._learn(log, None, progress)
        self._refresh()
        after, seconds = self._rank(queries), self.engines.scoring_seconds
        baselines, ranked = self._baselines(held_out, queries)
        return Final(
            queries,
            {lag: Rankings(scores, queries, k) for lag, scores in self.earlier.items()},
            after,
            self._rank(self.strangers),
            held_out,
            self.engines.score_events(held_out.features),
            losses,
            seconds,
            baselines,
            Rankings(ranked, queries, k),
            Taught.by(self.engines),
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
        arrays: dict[str, Any] = {f"baselines.{name}": value for name, value in self.baselines.state().items()}
        arrays |= {f"earlier.{lag}": scores for lag, scores in self.earlier.items()}
        return self.engines.state() | {name: torch.from_numpy(value) for name, value in arrays.items()}

    def restore(self, tensors: dict[str, Tensor], state: State) -> None:
        """Go on from what `tensors` returned and its state. Raises ResultError, see Engine."""
        self.engines.restore(tensors)
        arrays = {tuple(name.split(".", 1)): value.numpy() for name, value in tensors.items()}
        self.baselines.restore({name: value for (kind, name), value in arrays.items() if kind == "baselines"})
        self.earlier = {int(name): value for (kind, name), value in arrays.items() if kind == "earlier"}
        self.state = state
