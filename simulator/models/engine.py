"""The seam of this package: an Engine teaches and scores all models of one arm. It knows noise, cures and state, and
asks its subclasses only how a few models score and learn:

    NativeEngine   native_engine.py   the built-in click model by compiled kernels, on a CPU
    TorchEngine    torch_engine.py    the same by PyTorch and autograd, on any device, with every noise and norm
    CustomEngine   own_engine.py      modules of your own, by their own optimiser

engines.py is where a run and the trainer open an engine for each arm. One suite of tests runs on all of them
(tests/models/test_engines.py).

Shapes: S served models = F fleets x R duplicates in this order, M = S x m parts of the arm's cure; n events of a chunk,
L slots, Q queries, N candidates; V table rows, D embedding length, P dense parameters; k models that are learned in one
call.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulator.config import ModelConfig, NoiseConfig
from simulator.errors import ResultError, SettingError
from simulator.models.cures import Anchor, Average, Fresh, mixed
from simulator.models.noise import ModelIdentity, Noise
from simulator.models.specs import Arm
from simulator.types import Batch, Doubles, Floats, Ints, Query, Rows, Schema

EngineName = Literal["native", "torch"]
ALL_MODELS = slice(None)


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


PER_EVENT = "order", "rows", "targets", "event_weights"
"""Entries of a chunk that have a column for each event."""


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
        return replace(self, **self._parts(models, *PER_EVENT, "lost", "delays", "rounding"))

    def mini_batch(self, number: int, size: int) -> Chunk:
        """One mini-batch of it, for all k models."""
        events, step = slice(number * size, (number + 1) * size), slice(number, number + 1)
        parts = self._parts((ALL_MODELS, events), *PER_EVENT) | self._parts((ALL_MODELS, step), "lost", "delays")
        return replace(self, **parts, step=number)

    def _parts(self, index: Any, *names: str) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in names}
        return {name: value[index] for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class KeptChunk:
    """A chunk that an arm which is trained afresh keeps to learn again."""

    generation: int
    number: int
    """The chunk's number since the start, which seeds the order in which each duplicate learns it."""
    chunk: Batch


class Engine(ABC):
    """All models of one arm, which learn one log chunk by chunk; subclasses add how models learn and score."""

    name: EngineName
    identity: Mapping[str, Any] | None = None
    """Of a module of the user's: by which source and version, and with which state; announced with what it learned."""
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
        `model`: the settings of one model, the run's with those of the arm, and what its cure makes of them. `pool`:
        threads with one thread per operation, each at work on other models; by default a single one. Raises
        SettingError for `cuda` where there is no GPU.
        """
        check_device(device)
        self.schema, self.arm, self.model, self.device = schema, arm, model, torch.device(device)
        self.noise, self._seed = Noise(noise, seed), seed
        served = [(fleet, duplicate) for fleet in range(fleets) for duplicate in range(duplicates)][subset]
        m = arm.cure.m
        self.members = [ModelIdentity(f, r, arm.copy, part) for f, r in served for part in range(m)]
        self.served_models = len(served)
        self.chunk_events = model.batch * (noise.window or 16)
        """Events per chunk: a shuffle window, or 16 mini-batches where nothing is shuffled."""
        self.dtype = dtype
        self.weights = self._allocate()
        """The weights that learn."""
        self.initialise()
        self.served = self.weights.clone() if isinstance(arm.cure, Average) else self.weights
        """The weights that are served: of `average` the running average."""
        self.teacher: Weights | None = None
        """The weights of the previous generation, where the cure learns from them."""
        self.chunks = self.events = 0
        self._kept: list[KeptChunk] = []
        """Of `fresh`: what the next refresh learns."""
        self._generation = self._chunks_kept = 0
        self.scoring_seconds: Doubles = np.zeros(self.served_models)
        """[S] compute seconds that each served model took for a query when queries were last scored."""
        self._seconds = np.zeros(len(self))
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
        """Log-odds [S, n] given to each event of a chunk just before it is learned, in the order of the log; the
        gradient of an event is scaled by its weight, if it has one. Models that are trained afresh only keep it for the
        next refresh, but for those of the first generation.

        Raises SettingError where a model diverges.
        """
        if isinstance(self.arm.cure, Fresh):
            self._kept.append(KeptChunk(self._generation, self._chunks_kept, chunk))
            self._chunks_kept += 1
            if self._generation:
                return self.score_events(chunk.features)
        return self._learn_chunk(chunk)

    def _learn_chunk(self, chunk: Batch) -> Floats:
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
        """Log-odds [S, n] of events with table rows [n, L]; nothing is learned."""
        return self._answers(self._scored(features, np.zeros(len(self))))

    def score_queries(self, queries: list[Query]) -> Floats:
        """Log-odds [S, Q, N] of the candidates of queries; NaN behind the last of a query with fewer than others."""
        sizes, seconds = np.array([len(query.candidates) for query in queries]), np.zeros(len(self))
        padded_sizes = sizes + -sizes % self.query_block
        extras = zip(queries, padded_sizes - sizes, strict=True)
        padded = [np.pad(query.features, ((0, extra), (0, 0)), mode="edge") for query, extra in extras]
        flat = self._answers(self._scored(np.concatenate(padded), seconds))
        self.scoring_seconds = self._by_served(seconds)[:, : self.arm.cure.served_parts].sum(1) / len(queries)
        scores = np.empty((len(flat), len(queries), padded_sizes.max()), flat.dtype)
        place = np.arange(padded_sizes.max())
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
        """End a generation: cures that learn from the previous one have it from now on; `fresh` trains new models on
        the last ones, but at the end of the first, whose models have learned it already."""
        if isinstance(self.arm.cure, Anchor):
            self.teacher = self.weights.clone()
        if isinstance(self.arm.cure, Fresh):
            self._generation += 1
            oldest = self._generation - self.arm.cure.last
            self._kept = [kept for kept in self._kept if kept.generation >= oldest]
            if self._generation > 1:
                self.initialise(self._generation)
                for kept in self._kept:
                    self.chunks = kept.number
                    self._learn_chunk(kept.chunk)

    def published(self, duplicate: int) -> dict[str, Tensor]:
        """A duplicate of the first fleet for replicas: named tensors on the CPU, copied."""
        assert self.arm.cure.m == 1
        number = next(
            number for number, member in enumerate(self.members) if (member.fleet, member.duplicate) == (0, duplicate)
        )
        return {name: _on_cpu(tensor) for name, tensor in self.served[number].tensors.items()}

    def costs(self, candidates: int) -> Costs:
        """Of one served model; queries have so many candidates. Events that `fresh` keeps do not count."""
        parts = self.arm.cure.served_parts
        return Costs(
            self.parameters * parts,
            candidates * self.schema.slots * parts,
            self.weights.bytes_per_model * parts,
            sum(tensor.nbytes for tensor in self._tensors().values()) // self.served_models,
        )

    def take_seconds(self) -> Doubles:
        """[S] compute seconds of learning since the last call: of one core on a CPU, of the device on a GPU."""
        seconds, self._seconds = self._seconds, np.zeros(len(self))
        by_model: Doubles = self._by_served(seconds).sum(1)
        return by_model

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors that learning holds, not copied."""
        tensors = self.weights.named("weights") | self._optimiser()
        tensors |= self.served.named("served") if self.served is not self.weights else {}
        return tensors | (self.teacher.named("teacher") if self.teacher else {})

    def state(self) -> dict[str, Tensor]:
        """Everything that learning needs to go on from here, copied to named tensors on the CPU."""
        progress = torch.tensor([self.chunks, self.events, self.name == "native"])
        state = {name: _on_cpu(tensor) for name, tensor in self._tensors().items()} | {"progress": progress}
        if isinstance(self.arm.cure, Fresh):
            state["fresh.progress"] = torch.tensor([self._generation, self._chunks_kept])
        for position, kept in enumerate(self._kept):
            columns = {"features": kept.chunk.features, "label": kept.chunk.label, "weight": kept.chunk.weight}
            state[f"fresh.{position}.number"] = torch.tensor([kept.generation, kept.number])
            for name, column in columns.items():
                if column is not None:
                    state[f"fresh.{position}.{name}"] = torch.from_numpy(column.copy())
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned, made with the same settings.

        Raises ResultError where another engine made it: the two round differently.
        """
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
        if isinstance(self.arm.cure, Fresh):
            self._generation, self._chunks_kept = (int(value) for value in state["fresh.progress"])
            self._kept = []
            while kept := tensors_of(state, f"fresh.{len(self._kept)}"):
                self._kept.append(_kept_chunk(kept))


def tensors_of(tensors: Mapping[str, Tensor], owner: object) -> dict[str, Tensor]:
    """Those whose names begin with an owner's, such as the number of an arm, and a dot; without the two."""
    prefix = f"{owner}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def part_of(state: Mapping[str, Tensor], name: str) -> Weights:
    """The inverse of `Weights.named`; no tensors where there were none."""
    return Weights(tensors_of(state, name))


def _kept_chunk(tensors: Mapping[str, Tensor]) -> KeptChunk:
    """From a state: the events have only the columns that learning needs."""
    columns = {name: tensor.numpy() for name, tensor in tensors.items()}
    generation, number = columns.pop("number").tolist()
    zeros = np.zeros(len(columns["label"]), np.int64)
    return KeptChunk(generation, number, Batch(zeros, zeros, zeros.astype(np.float64), **columns))


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)


def _on_cpu(tensor: Tensor) -> Tensor:
    """A copy."""
    return tensor.to("cpu", copy=True).contiguous()


def check_device(device: str) -> None:
    """Raises SettingError for `cuda` where there is no GPU; from here on float32 is float32 there."""
    if device != "cuda":
        return
    if not torch.cuda.is_available():
        raise SettingError("device", device, "no GPU is visible to PyTorch here; use --device cpu")
    # PyTorch's default, unless TORCH_ALLOW_TF32_CUBLAS_OVERRIDE is set, as NVIDIA's images do: TF32 rounds products to
    # 10 bits, which is noise of another size than a CPU's, and swaps candidates with close scores
    torch.set_float32_matmul_precision("highest")
