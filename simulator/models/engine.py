"""The interface of this package: an Engine teaches and scores all models of one arm; a Ranker serves a published one.

    NativeEngine   native/engine.py   the built-in click model by compiled kernels, on a CPU
    TorchEngine    torch_engine.py    the same by PyTorch and autograd, on any device, with every noise and norm
    CustomEngine   own_engine.py      modules of your own, by their own optimiser

`engines.py` is where a run and the trainer open an engine for each arm. All build on `duplicates.py`,
which knows cures, noise and state, and asks of them only how a few models score and learn; one suite of tests runs on
all (tests/models/test_engines.py).

Shapes: S served models = F fleets x R duplicates in this order, n events, Q queries, N candidates, C context slots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from simulator.config import ModelConfig
from simulator.models.specs import Arm
from simulator.types import Batch, Doubles, Floats, Ints, Query, Rows

EngineName = Literal["native", "torch"]


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


class Engine(Protocol):
    """All models of one arm, which learn one log chunk by chunk."""

    name: EngineName
    arm: Arm
    model: ModelConfig
    """Settings of one model: the run's with those of the arm, and what its cure makes of them."""
    identity: Mapping[str, Any] | None
    """Of a module of the user's: by which source and version, and with which state; announced with what it learned."""
    chunk_events: int
    """Events per chunk: a shuffle window, or 16 mini-batches where nothing is shuffled."""

    def learn(self, chunk: Batch) -> Floats:
        """Log-odds [S, n] given to each event of a chunk just before it is learned, in the order of the log; the
        gradient of an event is scaled by its weight, if it has one.

        Raises SettingError where a model diverges.
        """

    def score_events(self, features: Rows) -> Floats:
        """Log-odds [S, n] of events with table rows [n, slots]; nothing is learned."""

    @property
    def scoring_seconds(self) -> Doubles:
        """[S] compute seconds that each served model took for a query when queries were last scored."""

    def score_queries(self, queries: list[Query]) -> Floats:
        """Log-odds [S, Q, N] of the candidates of queries; NaN behind the last of a query with fewer than others."""

    def refresh(self) -> None:
        """End a generation: cures that learn from the previous one have it from now on."""

    def published(self, duplicate: int) -> dict[str, Tensor]:
        """A duplicate of the first fleet for replicas: named tensors on the CPU, copied."""

    def costs(self, candidates: int) -> Costs:
        """Of one served model; queries have so many candidates."""

    def take_seconds(self) -> Doubles:
        """[S] compute seconds of learning since the last call: of one core on a CPU, of the device on a GPU."""

    def state(self) -> dict[str, Tensor]:
        """Everything that learning needs to go on from here, copied to named tensors on the CPU."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned, made with the same settings.

        Raises ResultError where another engine made it: the two round differently.
        """


class Ranker(Protocol):
    """One arm's model in service; safe to ask from several threads.

    A query's scores are the same to the last bit whichever queries they are computed with, wherever a ranker of the
    same weights and engine runs on the same kind of machine: scores are batch-invariant.
    """

    name: EngineName
    pairs_at_once: int
    """Query-candidate pairs to score in one call, where more are waiting."""

    def scores(self, users: Ints, context: Rows, items: Ints) -> Floats:
        """Log-odds [Q, N] of candidates [Q, N] for users [Q] in contexts [Q, C] (table rows).

        The number behind the last user's stands for one whom the world has not. Of him the built-in model sees padding,
        a module of the user's id 1 in every field (see Field.size).
        """
