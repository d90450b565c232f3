"""All arms of a run behind one door: a stack and a learner for each shape of model, results by served model.

Shapes: S served models = A arms x F fleets x R duplicates in this order, n events, Q queries, N candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from simulator.config import ExperimentConfig, ModelConfig
from simulator.models.cures import Fresh
from simulator.models.duplicates import Arm, Duplicates
from simulator.models.fresh import FreshLearner
from simulator.models.learner import Learner
from simulator.models.ranking import score_events, score_queries
from simulator.types import Batch, Doubles, Floats, Query, Rows, Schema


@dataclass(frozen=True)
class Costs:
    """What one served model of an arm costs, time aside."""

    parameters: int
    """Learned ones, of all its parts that are served."""
    lookups: int
    """Rows of embedding tables that are looked up to rank one query: candidates x slots x served parts."""
    model_bytes: int
    """Of the weights that are served."""
    train_bytes: int
    """Of all that learning them takes: weights of all parts, the optimiser's state, second weights of some cures."""


class Learners:
    """Teaches and asks all models of a run."""

    def __init__(self, schema: Schema, arms: tuple[Arm, ...], config: ExperimentConfig) -> None:
        """Raises SettingError for a device that is not there, and for a cure that the model is too small for."""
        self.arms, self._config, self._schema = arms, config, schema
        self._sets = config.fleets * config.duplicates
        groups: dict[tuple[ModelConfig, int | None], list[int]] = {}
        for number, arm in enumerate(arms):
            last = arm.cure.last if isinstance(arm.cure, Fresh) else None
            groups.setdefault((arm.cure.model(schema, config.model), last), []).append(number)
        self.learners: list[Learner | FreshLearner] = []
        for (model, last), members in groups.items():
            stack = self._stack(tuple(arms[arm] for arm in members), model)
            kind = Learner if last is None else FreshLearner
            self.learners.append(kind(stack, config.noise, seed=config.seed))
        places = {arm: (n, at) for n, members in enumerate(groups.values()) for at, arm in enumerate(members)}
        self._places = [places[arm] for arm in range(len(arms))]
        """[A] numbers of each arm's learner, and of the arm there."""
        self.chunk_events = self.learners[0].chunk_events
        self.scoring_seconds = np.zeros(len(self))
        """[S] compute seconds that each served model took for a query when queries were last scored."""

    def _stack(self, arms: tuple[Arm, ...], model: ModelConfig) -> Duplicates:
        config = self._config
        return Duplicates(
            self._schema,
            arms,
            model,
            config.noise,
            fleets=config.fleets,
            duplicates=config.duplicates,
            seed=config.seed,
            device=config.device,
        )

    def __len__(self) -> int:
        return len(self.arms) * self._sets

    @property
    def compiled(self) -> bool:
        """See Duplicates; it is the same for all arms."""
        return self.learners[0].stack.compiled

    def learn(self, chunk: Batch, before: int = 0) -> Floats:
        """Log-odds [S, n] given to each event of a chunk just before it is learned, after `before` events in all.

        Raises SettingError where a model diverges.
        """
        scores = [learner.learn(chunk) for learner in self.learners]
        for learner, own in zip(self.learners, scores, strict=True):
            learner.check_finite(own, before + len(chunk))
        return self._served(scores)

    def refresh(self) -> None:
        """What is learned up to here is a generation."""
        for learner in self.learners:
            learner.refresh()

    def score_events(self, features: Rows) -> Floats:
        """Log-odds [S, n] of events with table rows [n, slots]; nothing is learned."""
        return self._served([score_events(learner.stack, features) for learner in self.learners])

    def score_queries(self, queries: list[Query]) -> Floats:
        """Log-odds [S, Q, N] of the candidates of queries with equally many candidates."""
        seconds = [np.zeros(len(learner.stack)) for learner in self.learners]
        scores = [score_queries(each.stack, queries, own) for each, own in zip(self.learners, seconds, strict=True)]
        self.scoring_seconds = self._summed(seconds, of_served=True) / len(queries)
        return self._served(scores)

    def take_seconds(self) -> Doubles:
        """[S] compute seconds of learning since the last call, of all parts of a served model."""
        return self._summed([learner.take_seconds() for learner in self.learners])

    def costs(self, arm: int) -> Costs:
        """Of an arm."""
        number, at = self._places[arm]
        learner, cure = self.learners[number], self.arms[arm].cure
        stack, parts = learner.stack, cure.served_parts
        octets = stack.dense[0].nbytes + stack.embedding[0].nbytes
        lookups = self._config.candidates * self._schema.slots
        return Costs(stack.parameters * parts, lookups * parts, octets * parts, learner.octets(at) * cure.m)

    def _served(self, scores: list[Floats]) -> Floats:
        """From scores [M, ...] of each learner's models to [S, ...]."""
        by_learner = [learner.stack.served(own) for learner, own in zip(self.learners, scores, strict=True)]
        if len(by_learner) == 1:
            return by_learner[0]
        size = self._sets
        return np.concatenate([by_learner[n][at * size : (at + 1) * size] for n, at in self._places])

    def _summed(self, seconds: list[Doubles], of_served: bool = False) -> Doubles:
        """From seconds [M] of each learner's models to [S]: of all parts, or of the served ones."""
        found = []
        for arm, (number, position) in zip(self.arms, self._places, strict=True):
            own = seconds[number][self.learners[number].stack.models(position)].reshape(self._sets, arm.cure.m)
            found.append(own[:, : arm.cure.served_parts if of_served else None].sum(1))
        return np.concatenate(found)

    def state(self) -> dict[str, Tensor]:
        """Everything that learning needs to go on from here, as named tensors on the CPU."""
        parts = [
            {_name(number, name): tensor for name, tensor in learner.state().items()}
            for number, learner in enumerate(self.learners)
        ]
        return {name: tensor for part in parts for name, tensor in part.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned, made with the same settings."""
        for number, learner in enumerate(self.learners):
            mark = _name(number, "")
            own = {name.removeprefix(mark): tensor for name, tensor in state.items() if name.startswith(mark)}
            learner.restore(own)


def _name(learner: int, name: str) -> str:
    """The first learner's tensors bear their own names."""
    return f"learner{learner}.{name}" if learner else name
