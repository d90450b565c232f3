"""One pass over the log: every duplicate scores each event before it learns from it, all duplicates in one call.

Dense parameters learn by Adagrad; the embedding table by row-wise Adagrad (one sum of squares per row, as in DLRM),
touching only the rows of the mini-batch. Shapes as in network.py and duplicates.py; n events in a chunk.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulator.config import NoiseConfig
from simulator.errors import ResultError, SettingError
from simulator.recommender.duplicates import Duplicates
from simulator.recommender.gpu.steps import graphed_steps
from simulator.recommender.gpu.transfer import Orders, upload
from simulator.recommender.native_learning import NativeModel, Weights
from simulator.recommender.network import Segments
from simulator.recommender.noise import Noise, round_to_bfloat16
from simulator.recommender.tables import Entries, Tables
from simulator.types import Batch, Doubles, Floats, Ints


@dataclass
class Gradient:
    """What one mini-batch taught a slab: dense [m, P], and for its table entries [m B S] the summed gradient [., D]."""

    dense: Tensor
    rows: Tensor
    table: Tensor
    due: int = 0
    """The step at which it is applied: its own, or later where updates are delayed."""

    def kept(self) -> Gradient:
        """One that outlives the step, whose buffers the next one uses again."""
        return replace(self, dense=self.dense.clone(), rows=self.rows.clone(), table=self.table.clone())


@dataclass(frozen=True)
class MiniBatch:
    """What the models of a slab learn in one step."""

    where: Entries
    """Its table rows."""
    labels: Tensor
    """[m, B]"""
    lost: NDArray[np.bool_]
    """[m] whether the model never learns it."""


class Learner:
    """Teaches a stack of duplicates, chunk by chunk, and keeps all that is needed to stop and go on."""

    def __init__(self, stack: Duplicates, noise: NoiseConfig, *, seed: int) -> None:
        self.stack, self.model, self.noise = stack, stack.model, Noise(noise, seed)
        self.chunk_events = self.model.batch * (noise.window or 16)
        """Events per chunk: a shuffle window, or 16 mini-batches where nothing is shuffled."""
        start, device = self.model.initial_accumulator, stack.device
        self.dense_squares = torch.full_like(stack.dense, start)
        self.table_squares = torch.full(stack.embedding.shape[:2], start, device=device)
        self.chunks = 0
        self._seconds = np.zeros(len(stack))
        self.pending: list[list[Gradient]] = [[] for _ in stack.slabs]
        self.tables = Tables(stack)
        steps = self.chunk_events // self.model.batch
        self._graphed = graphed_steps(self.tables, self.dense_squares, self.table_squares, noise, steps)
        self._orders = [Orders(partial(self._order, slab), device) for slab in stack.slabs]
        self._workspace = threading.local()
        if noise.precision == "bfloat16":
            stack.dense.copy_(stack.dense.bfloat16())
            stack.embedding.copy_(stack.embedding.bfloat16())

    def learn(self, chunk: Batch) -> Floats:
        """Learn at most `chunk_events` events; returns the log-odds [M, n] given to each event just before.

        Columns are in the order of the log, whatever order each duplicate learned in.
        """
        assert 0 < len(chunk) <= self.chunk_events
        rows, labels = (upload(torch.from_numpy(part), self.stack.device) for part in (chunk.features, chunk.label))
        logits: Floats = self.stack.each_slab(lambda number: self._timed(number, rows, labels)).numpy()
        self.chunks += 1
        return logits

    def check_finite(self, logits: Floats, events: int) -> None:
        """Raises SettingError where a model's log-odds [M, n] are not finite any more, after `events` in all."""
        diverged = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if len(diverged):
            arm = self.stack.arms[self.stack.members[diverged[0]].arm].label
            way_out = f"{arm} diverged within {events:,} events: use a smaller one, or another norm"
            raise SettingError("learning_rate", self.model.learning_rate, way_out)

    def take_seconds(self) -> Doubles:
        """[M] compute seconds spent on each model since the last call: of one core on a CPU, of the device on a GPU."""
        seconds, self._seconds = self._seconds, np.zeros(len(self.stack))
        return seconds

    def _timed(self, number: int, rows: Tensor, labels: Tensor) -> Tensor:
        clock = time.thread_time if rows.device.type == "cpu" else time.perf_counter
        start, slab = clock(), self.stack.slabs[number]
        native = self.stack.native[self.stack.members[slab.start].arm] if self.stack.native else None
        logits = self._learn_native(native, number, rows, labels) if native else self._learn_slab(number, rows, labels)
        logits = logits.cpu()
        self._seconds[slab] += (clock() - start) / len(logits)
        return logits

    def _learn_native(self, native: NativeModel, number: int, rows: Tensor, labels: Tensor) -> Tensor:
        """Log-odds [1, n] of a chunk, by one compiled call; its events and noise are those of `_learn_slab`."""
        (who,), batch, n = self.stack.members[self.stack.slabs[number]], self.model.batch, len(labels)
        order = torch.from_numpy(self.noise.order(who, self.chunks, n, batch))
        lost = torch.from_numpy(self.noise.lost(who, self.chunks, -(-n // batch)))
        squares = Weights(self.dense_squares[number], self.table_squares[number])
        ordered, labels = rows.index_select(0, order), labels.index_select(0, order)
        logits = native.learn(self.stack.weights(number), squares, ordered, labels, lost)
        return torch.empty(1, n).scatter_(1, order[None], logits[None])

    def _learn_slab(self, number: int, rows: Tensor, labels: Tensor) -> Tensor:
        slab, batch, n = self.stack.slabs[number], self.model.batch, len(labels)
        members, device = self.stack.members[slab], self.stack.device
        steps = -(-n // batch)
        order = self._orders[number].take(self.chunks, n)
        lost = np.stack([self.noise.lost(who, self.chunks, steps) for who in members])
        delays = self.noise.delays(members[0], self.chunks, steps)
        rounding = [self.noise.rounding(who, self.chunks) for who in members]
        first_step = self.chunks * (self.chunk_events // batch)
        weights, segments = self.stack.layout.views(self.stack.dense[slab]), self.stack.segments(slab)
        ordered, labels = rows[order], labels[order]  # [m, n, S] and [m, n]: the chunk as each model sees it
        entries, shares = self.tables.prepare(slab, ordered)
        parts, done = [], 0
        if self._graphed is not None:  # whole mini-batches; the plain path is left with a short one at the end
            parts, done = [self._graphed.learn(ordered, (entries, shares), labels, lost)], n // batch
        for step in range(done, steps):
            part = slice(step * batch, (step + 1) * batch)
            where = entries[:, part], None if shares is None else shares[:, part]
            events = MiniBatch(where, labels[:, part], lost[:, step])
            predicted, gradient = self._gradient(slab, weights, segments, events)
            parts.append(predicted)
            if delays[step]:
                gradient = gradient.kept()
            gradient.due = first_step + step + int(delays[step])
            self.pending[number].append(gradient)
            for due in self._due(number, first_step + step):
                self._apply(slab, due, rounding)
        if device.type == "cuda":  # which is busy: the host has time
            self._orders[number].prepare(self.chunks + 1, self.chunk_events)
        return torch.empty(len(members), n, device=device).scatter_(1, order, torch.cat(parts, 1))

    def _order(self, slab: slice, chunk: int, events: int) -> Ints:
        """[m, n] the order in which each model of a slab learns a chunk."""
        return np.stack([self.noise.order(who, chunk, events, self.model.batch) for who in self.stack.members[slab]])

    def _gradient(
        self, slab: slice, weights: dict[str, Tensor], segments: Segments, events: MiniBatch
    ) -> tuple[Tensor, Gradient]:
        """Log-odds [m, B] of a mini-batch, and the gradient of its mean log loss. No weight changes."""
        network, (dense, dense_parts) = self.stack.network, self._dense_gradient(slab)
        logits, tape = network.forward(self.tables.inputs(slab, events.where), weights, segments)
        # each event weighs 1 / batch, also in a shorter mini-batch at the end, whose few events would shake the model
        slope = torch.sigmoid(logits).sub_(events.labels).div_(self.model.batch)
        if events.lost.any():
            slope[torch.from_numpy(events.lost).to(slope.device)] = 0  # a zero gradient leaves Adagrad where it is
        back = network.backward(slope, weights, tape, segments, dense_parts)
        return logits, Gradient(dense, *self.tables.sum_by_row(slab, events.where, back))

    def _dense_gradient(self, slab: slice) -> tuple[Tensor, dict[str, Tensor]]:
        """A thread's buffer [m, P] for the dense gradient, and its named parts; zero where no parameter stands."""
        held: tuple[Tensor, dict[str, Tensor]] | None = getattr(self._workspace, "dense", None)
        if held is None:  # every slab of a stack is of one size
            flat = torch.zeros_like(self.stack.dense[slab])
            held = self._workspace.dense = flat, self.stack.layout.views(flat)
        return held

    def _due(self, number: int, step: int) -> Iterator[Gradient]:
        waiting = self.pending[number]
        self.pending[number] = [gradient for gradient in waiting if gradient.due > step]
        yield from (gradient for gradient in waiting if gradient.due <= step)

    def _apply(self, slab: slice, gradient: Gradient, rounding: list[np.random.Generator]) -> None:
        """Adagrad on the dense parameters, row-wise Adagrad on the touched rows, both in place."""
        dense, rows = self.stack.dense[slab], gradient.rows
        self.tables.adagrad(dense, self.dense_squares[slab], gradient.dense)
        self.tables.adagrad_rows(slab, self.table_squares[slab], rows, gradient.table)
        if self.noise.config.precision == "bfloat16":
            table = self.stack.embedding[slab].flatten(0, 1)
            table.index_copy_(0, rows, round_to_bfloat16(table.index_select(0, rows), rounding[0]))
            for position, draws in enumerate(rounding):
                dense[position] = round_to_bfloat16(dense[position], draws)

    def state(self) -> dict[str, Tensor]:
        """Everything that learning needs to go on from here, copied to named tensors on the CPU."""
        state = {
            "embedding": self.stack.embedding,
            "dense": self.stack.dense,
            "dense_squares": self.dense_squares,
            "table_squares": self.table_squares,
            "chunks": torch.tensor([self.chunks]),
            "compiled": torch.tensor([self.stack.compiled]),
        }
        for number, waiting in enumerate(self.pending):
            for position, gradient in enumerate(waiting):
                name = f"pending.{number}.{position}"
                state[f"{name}.dense"], state[f"{name}.table"] = gradient.dense, gradient.table
                state[f"{name}.rows"], state[f"{name}.due"] = gradient.rows, torch.tensor([gradient.due])
        return {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in state.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned, on a learner made with the same settings.

        Raises ResultError where it was made with compiled kernels and there are none here, or the other way round.
        """
        compiled = bool(state["compiled"])
        if compiled != self.stack.compiled:
            kernels = "where there is a C++ compiler (on a GPU, Triton)"
            here, way_out = ("not used", kernels) if compiled else ("used", "with --compile off")
            way = f"saved with{'' if compiled else 'out'} compiled kernels, which are {here} here"
            raise ResultError(f"compile = {self.model.compile}: {way}: go on {way_out}")
        self.stack.embedding.copy_(state["embedding"])
        self.stack.dense.copy_(state["dense"])
        self.dense_squares.copy_(state["dense_squares"])
        self.table_squares.copy_(state["table_squares"])
        self.chunks = int(state["chunks"])
        device = self.stack.device
        for number in range(len(self.stack.slabs)):
            self.pending[number] = []
            while (name := f"pending.{number}.{len(self.pending[number])}") + ".due" in state:
                dense, rows, table = (state[f"{name}.{part}"].to(device) for part in ("dense", "rows", "table"))
                self.pending[number].append(Gradient(dense, rows, table, int(state[f"{name}.due"])))
