"""What all engines share: an arm's models, their noise, its cure, the state of learning. Models are subclasses':

    built_in.py      the built-in click model, whose weights both of its engines share
    own_engine.py    modules of your own

Shapes: M models = F fleets x R duplicates x m parts of the arm's cure in this order, S served models (M without the
parts), V table rows, D embedding length, P dense parameters, n events of a chunk, L slots; k models that are learned in
one call.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulator.config import ModelConfig, NoiseConfig
from simulator.errors import ResultError, SettingError
from simulator.models.cures import Anchor, Average, mixed
from simulator.models.engine import Costs, EngineName
from simulator.models.noise import ModelIdentity, Noise
from simulator.models.specs import Arm
from simulator.types import Batch, Doubles, Floats, Ints, Query, Rows, Schema

ALL_MODELS = slice(None)


@dataclass
class Weights:
    """Weights of k models, or of one: named tensors [k, ...] or [...], changed in place by learning."""

    tensors: dict[str, Tensor]

    def __getitem__(self, part: int | slice) -> Weights:
        return Weights({name: tensor[part] for name, tensor in self.tensors.items()})

    @property
    def dense(self) -> Tensor:
        """Of the built-in model: [k, P] or [P]."""
        return self.tensors["dense"]

    @property
    def table(self) -> Tensor:
        """Of the built-in model: [k, V, D] or [V, D]; row 0 is padding and stays zero."""
        return self.tensors["table"]

    def clone(self) -> Weights:
        """A copy with the same layout in memory, which keeps each model's part aligned."""
        return Weights({name: _like(tensor).copy_(tensor) for name, tensor in self.tensors.items()})

    def copy_(self, other: Weights) -> None:
        """Copy the other's values into these tensors."""
        for name, tensor in self.tensors.items():
            tensor.copy_(other.tensors[name])

    def lerp_(self, other: Weights, share: float) -> None:
        """Interpolate by a share towards the other's values; integers are copied."""
        for name, tensor in self.tensors.items():
            if tensor.is_floating_point():
                tensor.lerp_(other.tensors[name], share)
            else:
                tensor.copy_(other.tensors[name])

    def named(self, name: str) -> dict[str, Tensor]:
        """As entries of a state."""
        return {f"{name}.{key}": tensor for key, tensor in self.tensors.items()}

    @property
    def bytes_per_model(self) -> int:
        """Bytes of one of k models."""
        return sum(tensor[0].nbytes for tensor in self.tensors.values())


@dataclass(frozen=True)
class Chunk:
    """Events as k models learn them: the same for all, each in its own order and with its own noise."""

    number: int
    order: Tensor
    """[k, n] places of the events in the log."""
    rows: Tensor
    """[k, n, L] table rows."""
    targets: Tensor
    """[k, n] labels, or what a cure makes of them."""
    lost: NDArray[np.bool_]
    """[k, steps] whether the model never learns a mini-batch."""
    delays: Ints
    """[k, steps] how many steps later a mini-batch's gradient is applied."""
    rounding: list[np.random.Generator]
    """[k], or none where nothing is rounded."""
    step: int = 0
    """Number of the first mini-batch in its chunk."""
    event_weights: Tensor | None = None
    """[k, n] factor of an event's gradient; None: 1."""

    def __getitem__(self, models: slice) -> Chunk:
        """The same for some of the models."""
        selected = {
            name: getattr(self, name)[models] for name in ("order", "rows", "targets", "lost", "delays", "rounding")
        }
        return replace(
            self, **selected, event_weights=None if self.event_weights is None else self.event_weights[models]
        )

    def mini_batch(self, number: int, size: int) -> Chunk:
        """One mini-batch of it, for all k models."""
        part, column = slice(number * size, (number + 1) * size), slice(number, number + 1)
        events = {name: getattr(self, name)[:, part] for name in ("order", "rows", "targets")}
        events["event_weights"] = None if self.event_weights is None else self.event_weights[:, part]
        return replace(self, **events, lost=self.lost[:, column], delays=self.delays[:, column], step=number)


class Duplicates(ABC):
    """All models of one arm, an `Engine` but for the model: subclasses add how it learns and scores."""

    name: EngineName
    identity: Mapping[str, Any] | None = None
    """See Engine."""
    query_block = 1
    """A query's candidates are scored in whole blocks of so many, where scores depend on a block's size."""

    def __init__(
        self,
        schema: Schema,
        arm: Arm,
        model: ModelConfig,
        noise: NoiseConfig,
        *,
        fleets: int,
        duplicates: int,
        seed: int,
        device: str = "cpu",
        pool: ThreadPoolExecutor | None = None,
        dtype: torch.dtype = torch.float32,
        subset: slice = ALL_MODELS,
    ) -> None:
        """Initialise every model; where `noise.init` is `same`, the duplicates of a fleet are equal to the last bit.

        `subset`: of the F x R served models only these, each the same as beside all the others.
        `model`: the settings of one model, see `Engine.model`. `pool`: threads with one thread per operation, each at
        work on other models; by default a single one.
        """
        self.schema, self.arm, self.model, self.device = schema, arm, model, torch.device(device)
        self.noise, self._seed = Noise(noise, seed), seed
        served = [(fleet, duplicate) for fleet in range(fleets) for duplicate in range(duplicates)][subset]
        m = arm.cure.m
        self.members = [ModelIdentity(f, r, arm.copy, part) for f, r in served for part in range(m)]
        self.served_models = len(served)
        self.chunk_events = model.batch * (noise.window or 16)
        self.dtype = dtype
        self.weights = self._allocate()
        """The weights that learn."""
        self.initialise()
        self.served = self.weights.clone() if isinstance(arm.cure, Average) else self.weights
        """The weights that are served: of `average` the running average."""
        self.teacher: Weights | None = None
        """The weights of the previous generation, where the cure learns from them."""
        self.chunks = self.events = 0
        self.scoring_seconds, self._seconds = np.zeros(self.served_models), np.zeros(len(self))
        self._pool = pool or ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
        size = m if arm.cure.coupled else 1
        self.units = [slice(start, start + size) for start in range(0, len(self), size)]
        """Models that learn in one call: on a CPU one, and the parts that a cure couples."""

    @abstractmethod
    def _allocate(self) -> Weights:
        """Room for the weights of all models [M, ...]."""

    @abstractmethod
    def initialise(self, anew: int = 0) -> None:
        """Put every model at its start, with other initial weights for each number `anew`, by the same rule."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """Learned parameters of one model."""

    @abstractmethod
    def _optimiser(self) -> dict[str, Tensor]:
        """The optimiser's state, and all else that is needed to go on learning, not copied."""

    @abstractmethod
    def _restore_optimiser(self, state: dict[str, Tensor]) -> None:
        """Go on from what `_optimiser` gave."""

    @abstractmethod
    def _score(self, models: slice, rows: Tensor, weights: Weights) -> Tensor:
        """Log-odds [k, n] of events with table rows [n, L] (the same for all) or [k, n, L] by `weights` of k models."""

    @abstractmethod
    def _learn(self, models: slice, chunk: Chunk) -> Tensor:
        """Learn a chunk, or a mini-batch of it, in the order given; log-odds [k, n] given to each event just before."""

    def __len__(self) -> int:
        return len(self.members)

    def learn(self, chunk: Batch) -> Floats:
        """See Engine."""
        assert 0 < len(chunk) <= self.chunk_events
        rows, labels = (torch.from_numpy(part).to(self.device) for part in (chunk.features, chunk.label))
        weights = None if chunk.weight is None else torch.from_numpy(chunk.weight).to(self.device)
        logits = self._for_each_unit(lambda models: self._learn_unit(models, rows, labels, weights), self._seconds)
        self.chunks += 1
        self.events += len(chunk)
        if not np.isfinite(logits).all():
            remedy = "look at its forward" if self.arm.own else "another norm"
            hint = f"{self.arm.label} diverged within {self.events:,} events: use a smaller one, or {remedy}"
            raise SettingError("learning_rate", self.model.learning_rate, hint)
        return self._answers(logits)

    def score_events(self, features: Rows) -> Floats:
        """See Engine."""
        return self._answers(self._scored(features, np.zeros(len(self))))

    def score_queries(self, queries: list[Query]) -> Floats:
        """See Engine."""
        sizes, seconds = np.array([len(query.candidates) for query in queries]), np.zeros(len(self))
        padded_sizes = sizes + -sizes % self.query_block
        extras = zip(queries, padded_sizes - sizes, strict=True)
        padded = [np.pad(query.features, ((0, extra), (0, 0)), mode="edge") for query, extra in extras]
        flat = self._answers(self._scored(np.concatenate(padded), seconds))
        self.scoring_seconds = self._by_served(seconds)[:, : self.arm.cure.served_parts].sum(1) / len(queries)
        scores, place = (
            np.empty((len(flat), len(queries), padded_sizes.max()), flat.dtype),
            np.arange(padded_sizes.max()),
        )
        scores[:, place < padded_sizes[:, None]] = flat
        scores[:, place >= sizes[:, None]] = np.nan
        return scores[:, :, : sizes.max()]

    def _scored(self, features: Rows, seconds: Doubles) -> Floats:
        rows = torch.from_numpy(features).to(self.device)
        return self._for_each_unit(lambda models: self._score(models, rows, self.served[models]), seconds)

    def _for_each_unit(self, compute: Callable[[slice], Tensor], seconds: Doubles) -> Floats:
        """Results [k, n] of all units as [M, n]; adds each model's time to `seconds` [M]."""
        clock = time.thread_time if self.device.type == "cpu" else time.perf_counter

        def timed(models: slice) -> Tensor:
            start = clock()
            result = compute(models).cpu()
            seconds[models] += (clock() - start) / len(result)
            return result

        joined: Floats = torch.cat(list(self._pool.map(timed, self.units))).numpy()
        return joined

    def _answers(self, logits: Floats) -> Floats:
        """Log-odds of all models [M, n] -> those of the served ones [S, n]."""
        parts = self._by_served(logits)
        return np.stack([self.arm.cure.served(scores) for scores in parts])

    def _by_served(self, values: NDArray[Any]) -> NDArray[Any]:
        """[M, ...] -> [S, m, ...]"""
        return values.reshape(self.served_models, self.arm.cure.m, *values.shape[1:])

    def _learn_unit(self, models: slice, rows: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """Log-odds [k, n] of what is served, in the order of the log; table rows [n, L], labels [n], weights [n]."""
        cure = self.arm.cure
        before = self._score(models, rows, self.served[models]) if isinstance(cure, Average) else None
        chunk = self._chunk(models, rows, labels, weights)
        logits = self._learn_coupled(models, chunk) if cure.coupled else self._learn(models, chunk)
        if before is not None:
            assert isinstance(cure, Average)
            share = cure.share(self.chunks + 1)
            self.served[models].lerp_(self.weights[models], share)
            return before
        return torch.empty_like(logits).scatter_(1, chunk.order, logits)

    def _chunk(self, models: slice, rows: Tensor, labels: Tensor, weights: Tensor | None) -> Chunk:
        """Events with table rows [n, L], labels [n] and weights [n] as the models learn them."""
        members, events, batch = self.members[models], len(labels), self.model.batch
        steps = -(-events // batch)
        order = torch.from_numpy(np.stack([self.noise.order(member, self.chunks, events, batch) for member in members]))
        order = order.to(self.device)
        targets = labels.index_select(0, order.flatten()).view_as(order)
        if self.teacher is not None and isinstance(self.arm.cure, Anchor):
            predicted = torch.sigmoid(self._score(models, rows, self.teacher[models])).gather(1, order)
            targets = mixed(targets, predicted, self.arm.cure.weight)
        rounded = self.noise.config.precision == "bfloat16"
        return Chunk(
            self.chunks,
            order,
            rows.index_select(0, order.flatten()).view(*order.shape, -1),  # faster than rows[order]
            targets,
            np.stack([self.noise.lost(member, self.chunks, steps) for member in members]),
            np.stack([self.noise.delays(member, self.chunks, steps) for member in members]),
            [self.noise.rounding(member, self.chunks) for member in members] if rounded else [],
            event_weights=self._event_weights(members, order, labels, weights),
        )

    def _event_weights(
        self, members: list[ModelIdentity], order: Tensor, labels: Tensor, weights: Tensor | None
    ) -> Tensor | None:
        """[k, n] in the order given, of events with weights [n]: 0 for those that a model leaves out; None: all 1."""
        selected = None if weights is None else weights.index_select(0, order.flatten()).view_as(order)
        if not self.noise.config.changed:
            return selected
        left_out = [self.noise.left_out(member, self.chunks, labels.cpu().numpy()) for member in members]
        selected = torch.ones(order.shape, device=self.device) if selected is None else selected
        for event_weights, places, excluded in zip(selected, order, left_out, strict=True):
            event_weights[torch.isin(places, torch.from_numpy(excluded).to(self.device))] = 0
        return selected

    def _learn_coupled(self, models: slice, chunk: Chunk) -> Tensor:
        """In each mini-batch all parts predict, and then learn from each other."""
        learned = []
        for step in range(chunk.lost.shape[1]):
            part = chunk.mini_batch(step, self.model.batch)
            logits = self._score(models, part.rows, self.weights[models])
            targets = self.arm.cure.targets(logits, part.targets)
            learned.append(self._learn(models, replace(part, targets=targets)))
        return torch.cat(learned, 1)

    def refresh(self) -> None:
        """See Engine."""
        if isinstance(self.arm.cure, Anchor):
            self.teacher = self.weights.clone()

    def published(self, duplicate: int) -> dict[str, Tensor]:
        """See Engine: the weights by their names."""
        assert self.arm.cure.m == 1
        number = next(
            number for number, member in enumerate(self.members) if (member.fleet, member.duplicate) == (0, duplicate)
        )
        return {name: _on_cpu(tensor) for name, tensor in self.served[number].tensors.items()}

    def costs(self, candidates: int) -> Costs:
        """See Engine."""
        parts = self.arm.cure.served_parts
        return Costs(
            self.parameters * parts,
            candidates * self.schema.slots * parts,
            self.weights.bytes_per_model * parts,
            sum(tensor.nbytes for tensor in self._tensors().values()) // self.served_models,
        )

    def take_seconds(self) -> Doubles:
        """See Engine."""
        seconds, self._seconds = self._seconds, np.zeros(len(self))
        by_model: Doubles = self._by_served(seconds).sum(1)
        return by_model

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors that learning holds, not copied."""
        tensors = self.weights.named("weights") | self._optimiser()
        tensors |= self.served.named("served") if self.served is not self.weights else {}
        return tensors | (self.teacher.named("teacher") if self.teacher else {})

    def state(self) -> dict[str, Tensor]:
        """See Engine."""
        progress = torch.tensor([self.chunks, self.events, self.name == "native"])
        return {name: _on_cpu(tensor) for name, tensor in self._tensors().items()} | {"progress": progress}

    def restore(self, state: dict[str, Tensor]) -> None:
        """See Engine."""
        self.chunks, self.events, native = (int(value) for value in state["progress"])
        if native != (self.name == "native"):
            by_native = "saved by the native engine, which is not here: run `make setup` where a C++ compiler is"
            by_torch = "saved by the torch engine, where the native one was not to be had: go on there, or start anew"
            raise ResultError(f"{self.arm.label}: {by_native if native else by_torch}")
        self.weights.copy_(part_of(state, "weights"))
        self._restore_optimiser(state)
        if self.served is not self.weights:
            self.served.copy_(part_of(state, "served"))
        teacher = part_of(state, "teacher")
        self.teacher = self.weights.clone() if teacher.tensors else None
        if self.teacher:
            self.teacher.copy_(teacher)


def part_of(state: dict[str, Tensor], name: str) -> Weights:
    """The inverse of `Weights.named`; no tensors where there were none."""
    prefix = f"{name}."
    return Weights({key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)})


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)


def _on_cpu(tensor: Tensor) -> Tensor:
    """A copy."""
    return tensor.to("cpu", copy=True).contiguous()
