"""What both engines share: an arm's models, their noise, its cure, the state of learning. Not: arithmetic.

Shapes: M models = F fleets x R duplicates x m parts of the arm's cure in this order, S served models (M without the
parts), V table rows, D embedding length, P dense parameters, n events of a chunk, L slots; k models that are learned in
one call.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulator.config import ModelConfig, NoiseConfig
from simulator.errors import ResultError, SettingError
from simulator.models.click_model import Layout
from simulator.models.cures import Anchor, Average, mixed
from simulator.models.engine import Costs, EngineName
from simulator.models.noise import Member, Noise
from simulator.models.specs import Arm
from simulator.randomness import generator
from simulator.types import Batch, Doubles, Floats, Ints, Query, Rows, Schema

EMBEDDING_SPREAD = 0.05
"""Standard deviation of initial embedding vectors."""
EVENTS_PER_PASS = 2_048
"""Events scored at once on a CPU: what a pass touches stays in the cache."""


@dataclass
class Weights:
    """Of k models, or of one: float32, contiguous, changed in place by learning."""

    dense: Tensor
    """[k, P] or [P]"""
    table: Tensor
    """[k, V, D] or [V, D]; row 0 is padding and stays zero."""

    def __getitem__(self, part: int | slice) -> Weights:
        return Weights(self.dense[part], self.table[part])

    def clone(self) -> Weights:
        """A copy."""
        return Weights(self.dense.clone(), self.table.clone())

    def copy_(self, other: Weights) -> None:
        """Take the other's values."""
        self.dense.copy_(other.dense)
        self.table.copy_(other.table)

    def to(self, device: torch.device) -> Weights:
        """On a device."""
        return Weights(self.dense.to(device), self.table.to(device))

    def named(self, name: str) -> dict[str, Tensor]:
        """As entries of a state."""
        return {f"{name}.dense": self.dense, f"{name}.table": self.table}

    @property
    def bytes_per_model(self) -> int:
        """Of k models, what one takes."""
        return self.dense[0].nbytes + self.table[0].nbytes


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

    def __getitem__(self, part: slice) -> Chunk:
        """The same for some of the models."""
        own = {name: getattr(self, name)[part] for name in ("order", "rows", "targets", "lost", "delays", "rounding")}
        return replace(self, **own)

    def mini_batch(self, number: int, size: int) -> Chunk:
        """One mini-batch of it, for all k models."""
        part, one = slice(number * size, (number + 1) * size), slice(number, number + 1)
        cut = {name: getattr(self, name)[:, part] for name in ("order", "rows", "targets")}
        return replace(self, **cut, lost=self.lost[:, one], delays=self.delays[:, one], step=number)


class Duplicates(ABC):
    """All models of one arm, as `Engine` asks; an engine adds `_score` and `_learn`."""

    name: EngineName

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
    ) -> None:
        """Initialise every model; where `noise.init` is `same`, the duplicates of a fleet are equal to the last bit.

        `model`: the settings of one model, see `Engine.model`. `pool`: threads with one thread per operation, each at
        work on other models; by default a single one.
        """
        self.schema, self.arm, self.model, self.device = schema, arm, model, torch.device(device)
        self.noise, self._seed, self._duplicates = Noise(noise, seed), seed, duplicates
        m = arm.cure.m
        self.members = [Member(f, r, arm.copy, p) for f in range(fleets) for r in range(duplicates) for p in range(m)]
        self.served_models = fleets * duplicates
        self.chunk_events = model.batch * (noise.window or 16)
        self.layout = Layout(schema, model)
        self.weights = Weights(
            torch.zeros(len(self), self.layout.length, dtype=dtype),
            torch.zeros(len(self), schema.rows, model.dim, dtype=dtype),
        ).to(self.device)
        """Those that learn."""
        rows = torch.zeros(self.weights.table.shape[:2], dtype=dtype, device=device)
        self.squares = Weights(torch.zeros_like(self.weights.dense), rows)
        """Adagrad's sums of squares, dense [M, P] and one for each table row [M, V]."""
        self.initialise()
        self.served = self.weights.clone() if isinstance(arm.cure, Average) else self.weights
        """Those that answer: of `average` the running average."""
        self.teacher: Weights | None = None
        """Those of the previous generation, where the cure learns from them."""
        self.chunks = self.events = 0
        self.scoring_seconds, self._seconds = np.zeros(self.served_models), np.zeros(len(self))
        self._pool = pool or ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
        size = m if arm.cure.coupled else 1
        self.units = [slice(start, start + size) for start in range(0, len(self), size)]
        """Models that learn in one call: on a CPU one, and the parts that a cure couples."""

    @abstractmethod
    def _score(self, models: slice, rows: Tensor, weights: Weights) -> Tensor:
        """Log-odds [k, n] of events with table rows [n, L] (the same for all) or [k, n, L] by `weights` of k models."""

    @abstractmethod
    def _learn(self, models: slice, chunk: Chunk) -> Tensor:
        """Learn a chunk, or a mini-batch of it, in the order given; log-odds [k, n] given to each event just before."""

    def __len__(self) -> int:
        return len(self.members)

    def initialise(self, anew: int = 0) -> None:
        """Put every model at its start, with other initial weights for each number `anew`, by the same rule."""
        first: dict[tuple[int, ...], int] = {}
        for number, who in enumerate(self.members):
            index = (who.copy, who.fleet, *([who.duplicate] if self.noise.config.init == "own" else []))
            source = first.setdefault((*index, who.part), number)
            if source != number:
                self.weights[number].copy_(self.weights[source])
                continue
            other = (who.part, anew) if who.part or anew else ()
            # every tensor has draws of its own: arms of different shape or norm start alike where their shapes agree
            draws = partial(_draws, self._seed, (*index, *other))
            self.weights.dense[number] = self.layout.initial(draws)
            table = draws("table").standard_normal(self.weights.table.shape[1:], dtype="float32")
            self.weights.table[number] = torch.from_numpy(table) * EMBEDDING_SPREAD
        self.weights.table[:, 0] = 0
        self.squares.dense.fill_(self.model.initial_accumulator)
        self.squares.table.fill_(self.model.initial_accumulator)
        if self.noise.config.precision == "bfloat16":
            self.weights.copy_(Weights(self.weights.dense.bfloat16(), self.weights.table.bfloat16()))

    def learn(self, chunk: Batch) -> Floats:
        """See Engine."""
        assert 0 < len(chunk) <= self.chunk_events
        rows, labels = (torch.from_numpy(part).to(self.device) for part in (chunk.features, chunk.label))
        logits = self._each(lambda models: self._learn_unit(models, rows, labels), self._seconds)
        self.chunks += 1
        self.events += len(chunk)
        if not np.isfinite(logits).all():
            hint = f"{self.arm.label} diverged within {self.events:,} events: use a smaller one, or another norm"
            raise SettingError("learning_rate", self.model.learning_rate, hint)
        return self._answers(logits)

    def score_events(self, features: Rows) -> Floats:
        """See Engine."""
        return self._answers(self._scored(features, np.zeros(len(self))))

    def score_queries(self, queries: list[Query]) -> Floats:
        """See Engine."""
        seconds = np.zeros(len(self))
        scores = self._answers(self._scored(np.concatenate([query.features for query in queries]), seconds))
        self.scoring_seconds = self._by_served(seconds)[:, : self.arm.cure.served_parts].sum(1) / len(queries)
        return scores.reshape(len(scores), len(queries), -1)

    def _scored(self, features: Rows, seconds: Doubles) -> Floats:
        rows = torch.from_numpy(features).to(self.device)
        return self._each(lambda models: self._score(models, rows, self.served[models]), seconds)

    def _each(self, work: Callable[[slice], Tensor], seconds: Doubles) -> Floats:
        """Results [k, n] of all units as [M, n]; adds to `seconds` [M] what each model took."""
        clock = time.thread_time if self.device.type == "cpu" else time.perf_counter

        def timed(models: slice) -> Tensor:
            start = clock()
            found = work(models).cpu()
            seconds[models] += (clock() - start) / len(found)
            return found

        joined: Floats = torch.cat(list(self._pool.map(timed, self.units))).numpy()
        return joined

    def _answers(self, logits: Floats) -> Floats:
        """Of all models [M, n] -> of the served ones [S, n]."""
        parts = self._by_served(logits)
        return np.stack([self.arm.cure.served(own) for own in parts])

    def _by_served(self, values: NDArray[Any]) -> NDArray[Any]:
        """[M, ...] -> [S, m, ...]"""
        return values.reshape(self.served_models, self.arm.cure.m, *values.shape[1:])

    def _learn_unit(self, models: slice, rows: Tensor, labels: Tensor) -> Tensor:
        """Log-odds [k, n] of what is served, in the order of the log; table rows [n, L], labels [n]."""
        cure = self.arm.cure
        before = self._score(models, rows, self.served[models]) if isinstance(cure, Average) else None
        chunk = self._chunk(models, rows, labels)
        logits = self._learn_coupled(models, chunk) if cure.coupled else self._learn(models, chunk)
        if before is not None:
            assert isinstance(cure, Average)
            share = cure.share(self.chunks + 1)
            self.served[models].dense.lerp_(self.weights[models].dense, share)
            self.served[models].table.lerp_(self.weights[models].table, share)
            return before
        return torch.empty_like(logits).scatter_(1, chunk.order, logits)

    def _chunk(self, models: slice, rows: Tensor, labels: Tensor) -> Chunk:
        """Of events with table rows [n, L] and labels [n], what the models make of them."""
        who, events, batch = self.members[models], len(labels), self.model.batch
        steps = -(-events // batch)
        order = torch.from_numpy(np.stack([self.noise.order(one, self.chunks, events, batch) for one in who]))
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
            np.stack([self.noise.lost(one, self.chunks, steps) for one in who]),
            np.stack([self.noise.delays(one, self.chunks, steps) for one in who]),
            [self.noise.rounding(one, self.chunks) for one in who] if rounded else [],
        )

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
        """See Engine: `dense` [P] and `embedding` [V, D]."""
        assert self.arm.cure.m == 1
        own = self.served[duplicate]
        return {
            name: t.to("cpu", copy=True).contiguous() for name, t in (("dense", own.dense), ("embedding", own.table))
        }

    def costs(self, candidates: int) -> Costs:
        """See Engine."""
        kept = [self.teacher] if self.teacher else []
        kept += [self.served] if self.served is not self.weights else []
        training = [self.weights, *kept]
        squares = self.squares.dense[0].nbytes + self.squares.table[0].nbytes
        parts, m = self.arm.cure.served_parts, self.arm.cure.m
        return Costs(
            ((self.schema.rows - 1) * self.model.dim + self.layout.parameters) * parts,
            candidates * self.schema.slots * parts,
            self.weights.bytes_per_model * parts,
            (sum(each.bytes_per_model for each in training) + squares) * m,
        )

    def take_seconds(self) -> Doubles:
        """See Engine."""
        seconds, self._seconds = self._seconds, np.zeros(len(self))
        found: Doubles = self._by_served(seconds).sum(1)
        return found

    def state(self) -> dict[str, Tensor]:
        """See Engine."""
        state = self.weights.named("weights") | self.squares.named("squares")
        state |= self.served.named("served") if self.served is not self.weights else {}
        state |= self.teacher.named("teacher") if self.teacher else {}
        state["progress"] = torch.tensor([self.chunks, self.events, self.name == "native"])
        return {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in state.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """See Engine."""
        self.chunks, self.events, native = (int(value) for value in state["progress"])
        if native != (self.name == "native"):
            by_native = "saved by the native engine, which is not here: run `make setup` where a C++ compiler is"
            by_torch = "saved by the torch engine, where the native one was not to be had: go on there, or start anew"
            raise ResultError(f"{self.arm.label}: {by_native if native else by_torch}")
        self.weights.copy_(_named(state, "weights"))
        self.squares.copy_(_named(state, "squares"))
        if self.served is not self.weights:
            self.served.copy_(_named(state, "served"))
        self.teacher = _named(state, "teacher").clone().to(self.device) if "teacher.dense" in state else None


def _draws(seed: int, index: tuple[int, ...], name: str) -> np.random.Generator:
    """Those of the initial values of a tensor."""
    return generator(seed, f"init {name}", *index)


def _named(state: dict[str, Tensor], name: str) -> Weights:
    return Weights(state[f"{name}.dense"], state[f"{name}.table"])
