"""The stack: every duplicate of every arm and fleet, all of one shape, side by side in a few tensors.

Shapes: M models = A arms x F fleets x R duplicates x parts of the arm's cure in this order, S served models (M without
the parts), V table rows, D embedding length, P dense parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from simulator.config import ModelConfig, NoiseConfig
from simulator.models.activations import Activation, activation
from simulator.models.cures import Cure
from simulator.models.gpu.fused import check_device
from simulator.models.gpu.layers import FusedNetwork, make_network
from simulator.models.native_learning import Weights, native_models
from simulator.models.network import Layout, Pooling, Segments
from simulator.models.specs import split
from simulator.randomness import generator
from simulator.types import Floats, Schema

Piece = TypeVar("Piece")
EMBEDDING_SPREAD = 0.05
"""Standard deviation of initial embedding vectors."""


@dataclass(frozen=True)
class Arm:
    """One design under comparison: `label` is unique (`relu#2`), `spec` is not (`relu`)."""

    label: str
    spec: str
    copy: int
    """0 for the first set of a spec, 1 for an independent second one, ..."""
    activation: Activation
    function: str
    """Spec of the activation alone."""
    cure: Cure = Cure()


def parse_arms(specs: tuple[str, ...]) -> tuple[Arm, ...]:
    """Arms of the given specs; a spec that comes again is an independent set, told apart as `spec#2`, `spec#3`...

    Raises SettingError for a spec that neither `split` nor `activation` knows.
    """
    arms: list[Arm] = []
    for spec in specs:
        copy = sum(arm.spec == spec for arm in arms)
        cure, function = split(spec)
        arms.append(Arm(f"{spec}#{copy + 1}" if copy else spec, spec, copy, activation(function), function, cure))
    return tuple(arms)


@dataclass(frozen=True)
class Member:
    """Who one model of the stack is. Models of different arms that agree in the rest share all draws."""

    arm: int
    fleet: int
    duplicate: int
    copy: int
    part: int = 0
    """Which of the models that the arm's cure makes a served one of; they differ in their initial weights alone."""


class Duplicates:
    """Weights of the stack on one device.

    `embedding` [M, V, D] (row 0 is padding and stays zero) and `dense` [M, P].
    """

    def __init__(
        self,
        schema: Schema,
        arms: tuple[Arm, ...],
        model: ModelConfig,
        noise: NoiseConfig,
        *,
        fleets: int,
        duplicates: int,
        seed: int,
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        """Initialise every model; where `noise.init` is `same`, the duplicates of a fleet are equal to the last bit.

        All arms' models have the shape `model`, whatever their cure would make of it.

        `threads`: CPU workers, each at work on other models (default: as many as PyTorch would use).
        Raises SettingError for `cuda` where there is no GPU.
        """
        check_device(device)
        self.schema, self.arms, self.model = schema, arms, model
        self.fleets, self.duplicates, self.device = fleets, duplicates, torch.device(device)
        self.members = [
            Member(a, f, r, arm.copy, part)
            for a, arm in enumerate(arms)
            for f in range(fleets)
            for r in range(duplicates)
            for part in range(arm.cure.m)
        ]
        self.layout, self.network = Layout(schema, model), make_network(model, self.device)
        self.pooling = Pooling(schema, model.dim)
        self.embedding = torch.empty(len(self.members), schema.rows, model.dim)
        self.dense = torch.empty(len(self.members), self.layout.length)
        self._init, self._seed = noise.init, seed
        self.initialise()
        self.embedding, self.dense = self.embedding.to(self.device), self.dense.to(self.device)
        on_cpu = device == "cpu"
        size = 1 if on_cpu or noise.delay else len(self)
        self.slabs = [slice(start, start + size) for start in range(0, len(self), size)]
        """Runs of models that are computed together."""
        self.native = (
            native_models(schema, model, noise, self.layout, [arm.activation for arm in arms]) if on_cpu else None
        )
        """Compiled models of the arms; None where PyTorch computes."""
        workers = (threads or torch.get_num_threads()) if on_cpu else 1
        self._pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))

    def initialise(self, anew: int = 0) -> None:
        """Initial weights for every model; other ones for each number `anew`, by the same rule."""
        first: dict[tuple[int, ...], int] = {}
        for m, who in enumerate(self.members):
            index = (who.copy, who.fleet, *([who.duplicate] if self._init == "own" else []))
            source = first.setdefault((*index, who.part), m)
            if source == m:
                other = (who.part, anew) if who.part or anew else ()
                draws = generator(self._seed, "init of another" if other else "init", *index, *other)
                self.dense[m] = self.layout.initial(draws)
                table = draws.standard_normal((self.schema.rows, self.model.dim), dtype="float32")
                self.embedding[m] = torch.from_numpy(table) * EMBEDDING_SPREAD
            else:
                self.dense[m], self.embedding[m] = self.dense[source], self.embedding[source]
        self.embedding[:, 0] = 0

    def __len__(self) -> int:
        return len(self.members)

    def models(self, arm: int) -> slice:
        """The models of an arm."""
        before = sum(other.cure.m for other in self.arms[:arm]) * self.fleets * self.duplicates
        return slice(before, before + self.arms[arm].cure.m * self.fleets * self.duplicates)

    def shares(self, slab: slice) -> list[tuple[int, slice, slice]]:
        """For each arm in a slab: its number, which models of the slab are its own, and which of its own they are."""
        found = []
        for number in range(self.members[slab.start].arm, self.members[slab.stop - 1].arm + 1):
            own = self.models(number)
            start, stop = max(slab.start, own.start), min(slab.stop, own.stop)
            found.append(
                (number, slice(start - slab.start, stop - slab.start), slice(start - own.start, stop - own.start))
            )
        return found

    def served(self, scores: Floats) -> Floats:
        """Scores [M, ...] of all models -> [S, ...] of the served ones."""
        found = []
        for number, arm in enumerate(self.arms):
            own = scores[self.models(number)]
            parts = own.reshape(self.fleets * self.duplicates, arm.cure.m, *own.shape[1:])
            found += [arm.cure.served(each) for each in parts]
        return np.stack(found)

    @property
    def compiled(self) -> bool:
        """Whether kernels of ours compute, on a CPU or a GPU; PyTorch alone agrees with them within rounding."""
        return self.native is not None or isinstance(self.network, FusedNetwork)

    @property
    def parameters(self) -> int:
        """Learned parameters of one model: table rows without padding, and the dense ones."""
        return (self.schema.rows - 1) * self.model.dim + self.layout.parameters

    def each_slab(self, work: Callable[[int], Tensor]) -> Tensor:
        """Results of `work(number of the slab)`, each [m, ...], joined to [M, ...] on the CPU; run side by side."""
        return self.each(work, range(len(self.slabs)))

    def each(self, work: Callable[[Piece], Tensor], pieces: Iterable[Piece]) -> Tensor:
        """The same for pieces of the stack of any kind, in its order."""
        return torch.cat([part.cpu() for part in self._pool.map(work, pieces)])

    def segments(self, slab: slice) -> Segments:
        """The activations of a slab, with the part of the slab that each one serves."""
        runs: Segments = []
        for position, who in enumerate(self.members[slab]):
            function = self.arms[who.arm].activation
            if runs and runs[-1][0] is function:
                runs[-1] = (function, slice(runs[-1][1].start, position + 1))
            else:
                runs.append((function, slice(position, position + 1)))
        return runs

    def weights(self, model: int) -> Weights:
        """One model's, in place."""
        return Weights(self.dense[model], self.embedding[model])

    def entries(self, slab: slice, rows: Tensor) -> Tensor:
        """Rows [m, B, S] of each model's own table (or [1, B, S], the same for all) as rows of all tables in a row."""
        models = torch.arange(slab.stop - slab.start, device=self.device)
        return rows.long() + models.view(-1, 1, 1) * self.schema.rows

    def vectors(self, slab: slice, entries: Tensor) -> Tensor:
        """Embedding vectors [m, B, S, D] of entries [m, B, S]."""
        return self.embedding[slab].flatten(0, 1).index_select(0, entries.flatten()).view(*entries.shape, -1)

    def logits(self, slab: slice, rows: Tensor, other: Weights | None = None) -> Tensor:
        """Log-odds [m, B] of events with table rows [m, B, S] (or [1, B, S], the same for all), without learning.

        `other` weights than the stack's: dense [m, P], table [m, V, D].
        """
        weights = other or Weights(self.dense[slab], self.embedding[slab])
        if self.native:
            native = self.native[self.members[slab.start].arm]
            logits: Tensor = native.score(Weights(weights.dense[0], weights.table[0]), rows[0]).unsqueeze(0)
            return logits
        entries = self.entries(slab, rows)
        vectors = weights.table.flatten(0, 1).index_select(0, entries.flatten()).view(*entries.shape, -1)
        x = self.pooling.forward(vectors, self.pooling.weights(rows))
        return self.network.forward(x, self.layout.views(weights.dense), self.segments(slab))[0]
