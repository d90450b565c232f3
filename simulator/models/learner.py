"""One pass over the log: every duplicate scores each event before it learns from it, all duplicates in one call.

Dense parameters learn by Adagrad; the embedding table by row-wise Adagrad (one sum of squares per row, as in DLRM),
touching only the rows of the mini-batch. What an arm's cure asks for beside its own labels is in cures.py and kept.py.
Shapes as in network.py and duplicates.py; n events in a chunk.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from simulator.config import NoiseConfig
from simulator.errors import ResultError, SettingError
from simulator.models.duplicates import Duplicates
from simulator.models.gpu.steps import graphed_steps
from simulator.models.gpu.transfer import Orders, upload
from simulator.models.kept import Anchors, Averages
from simulator.models.lessons import Gradient, Lesson, MiniBatch, make_lesson, orders, teams
from simulator.models.native_learning import NativeModel, Weights
from simulator.models.network import Segments
from simulator.models.noise import Noise, round_to_bfloat16
from simulator.models.tables import Tables
from simulator.types import Batch, Doubles, Floats


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
        # not a method of ours: a learner, and its memory on a GPU, would stay until the next garbage collection
        draws = [partial(orders, self.noise, stack.members[slab], self.model.batch) for slab in stack.slabs]
        self._orders = [Orders(draw, device) for draw in draws]
        self._workspace = threading.local()
        if noise.precision == "bfloat16":
            stack.dense.copy_(stack.dense.bfloat16())
            stack.embedding.copy_(stack.embedding.bfloat16())
        self._teams, self._anchors, self._averages = teams(stack), Anchors(stack), Averages(stack)

    def learn(self, chunk: Batch) -> Floats:
        """Learn at most `chunk_events` events; returns the log-odds [M, n] given to each event just before.

        Columns are in the order of the log, whatever order each duplicate learned in. Where what is served is not what
        learns, they are those of what is served.
        """
        assert 0 < len(chunk) <= self.chunk_events
        rows, labels = (upload(torch.from_numpy(part), self.stack.device) for part in (chunk.features, chunk.label))
        logits: Floats = self.stack.each(lambda team: self._timed(team, rows, labels), self._teams).numpy()
        self.chunks += 1
        return logits

    def refresh(self) -> None:
        """What is learned up to here is a generation: arms that learn from the previous one have it from now on."""
        self._anchors.copy()

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

    def octets(self, arm: int) -> int:
        """Bytes that each model of an arm takes to learn: weights, Adagrad's sums, and what its cure keeps."""
        parts = (self.stack.dense, self.stack.embedding, self.dense_squares, self.table_squares)
        return sum(part[0].nbytes for part in parts) + self._anchors.octets(arm) + self._averages.octets(arm)

    def _timed(self, team: range, rows: Tensor, labels: Tensor) -> Tensor:
        clock = time.thread_time if rows.device.type == "cpu" else time.perf_counter
        start = clock()
        logits = self._learn_team(team, rows, labels).cpu()
        models = slice(self.stack.slabs[team[0]].start, self.stack.slabs[team[-1]].stop)
        self._seconds[models] += (clock() - start) / len(logits)
        return logits

    def _learn_team(self, team: range, rows: Tensor, labels: Tensor) -> Tensor:
        """Log-odds [m, n] of all models of some slabs, in the order of the log."""
        slabs = [self.stack.slabs[number] for number in team]
        served = [self._averages.begin(slab, rows) for slab in slabs]
        lessons = [self._lesson(number, rows, labels) for number in team]
        first, last = self.stack.members[slabs[0].start], self.stack.members[slabs[-1].stop - 1]
        if any(arm.cure.coupled for arm in self.stack.arms[first.arm : last.arm + 1]):
            learned = self._learn_coupled(team, lessons)
        else:
            learned = [self._learn_slab(number, lesson) for number, lesson in zip(team, lessons, strict=True)]
        if rows.is_cuda:  # which is busy: the host has time
            for number in team:
                self._orders[number].prepare(self.chunks + 1, self.chunk_events)
        found = []
        for slab, lesson, logits, before in zip(slabs, lessons, learned, served, strict=True):
            in_log = torch.empty_like(logits).scatter_(1, lesson.order, logits)
            found.append(self._averages.end(slab, in_log, before, lesson))
        return torch.cat(found)

    def _lesson(self, number: int, rows: Tensor, labels: Tensor) -> Lesson:
        slab, order = self.stack.slabs[number], self._orders[number].take(self.chunks, len(labels))
        lesson = make_lesson(self.noise, self.stack.members[slab], self.chunks, rows, labels, order, self.model.batch)
        return replace(lesson, targets=self._anchors.targets(slab, rows, lesson))

    def _learn_coupled(self, team: range, lessons: list[Lesson]) -> list[Tensor]:
        """Log-odds [m, n] of each slab: in each mini-batch all models predict, and then learn from each other."""
        slabs, steps = [self.stack.slabs[number] for number in team], len(lessons[0].delays)
        models, learned = slice(slabs[0].start, slabs[-1].stop), [list[Tensor]() for _ in team]
        for step in range(steps):
            parts = [lesson.mini_batch(step, self.model.batch) for lesson in lessons]
            logits = torch.cat([self.stack.logits(slab, part.rows) for slab, part in zip(slabs, parts, strict=True)])
            targets = torch.cat([part.targets for part in parts])
            for arm, mine, _ in self.stack.shares(models):
                targets[mine] = self.stack.arms[arm].cure.targets(logits[mine], targets[mine])
            split = torch.split(targets, [len(part.targets) for part in parts])
            for own, number, part, towards in zip(learned, team, parts, split, strict=True):
                own.append(self._learn_slab(number, replace(part, targets=towards)))
        return [torch.cat(own, 1) for own in learned]

    def _learn_slab(self, number: int, lesson: Lesson) -> Tensor:
        """Log-odds [m, n] of the events in the order in which they are learned."""
        if self.stack.native is None:
            return self._learn_steps(number, lesson)
        who = self.stack.members[self.stack.slabs[number].start]
        return self._learn_native(self.stack.native[who.arm], number, lesson)

    def _learn_native(self, native: NativeModel, number: int, lesson: Lesson) -> Tensor:
        """By one compiled call."""
        squares = Weights(self.dense_squares[number], self.table_squares[number])
        lost = torch.from_numpy(lesson.lost[0])
        return native.learn(self.stack.weights(number), squares, lesson.rows[0], lesson.targets[0], lost)[None]

    def _learn_steps(self, number: int, lesson: Lesson) -> Tensor:
        """Step by step, by PyTorch."""
        slab, batch = self.stack.slabs[number], self.model.batch
        weights, segments = self.stack.layout.views(self.stack.dense[slab]), self.stack.segments(slab)
        entries, shares = self.tables.prepare(slab, lesson.rows)  # [m, n, S]
        first, parts, done = lesson.chunk * (self.chunk_events // batch) + lesson.step, [], 0
        if self._graphed is not None:  # whole mini-batches; the plain path is left with a short one at the end
            parts = [self._graphed.learn(lesson.rows, (entries, shares), lesson.targets, lesson.lost)]
            done = lesson.targets.shape[1] // batch
        for step, delay in enumerate(lesson.delays[done:], done):
            part = slice(step * batch, (step + 1) * batch)
            where = entries[:, part], None if shares is None else shares[:, part]
            events = MiniBatch(where, lesson.targets[:, part], lesson.lost[:, step])
            predicted, gradient = self._gradient(slab, weights, segments, events)
            parts.append(predicted)
            if delay:
                gradient = gradient.kept()
            gradient.due = first + step + int(delay)
            self.pending[number].append(gradient)
            for due in self._due(number, first + step):
                self._apply(slab, due, lesson.rounding)
        return torch.cat(parts, 1)

    def _gradient(
        self, slab: slice, weights: dict[str, Tensor], segments: Segments, events: MiniBatch
    ) -> tuple[Tensor, Gradient]:
        """Log-odds [m, B] of a mini-batch, and the gradient of its mean log loss. No weight changes."""
        network, (dense, dense_parts) = self.stack.network, self._dense_gradient(slab)
        logits, tape = network.forward(self.tables.inputs(slab, events.where), weights, segments)
        # each event weighs 1 / batch, also in a shorter mini-batch at the end, whose few events would shake the model
        slope = torch.sigmoid(logits).sub_(events.targets).div_(self.model.batch)
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
            for position, (own, draws) in enumerate(zip(rows.view(len(dense), -1), rounding, strict=True)):
                if own.is_cuda:  # where a row comes twice, a GPU keeps one of its roundings, and not always the same
                    own = own.unique()
                table.index_copy_(0, own, round_to_bfloat16(table.index_select(0, own), draws))
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
        state |= self._anchors.state() | self._averages.state()
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
        self._anchors.restore(state)
        self._averages.restore(state)
        device = self.stack.device
        for number in range(len(self.stack.slabs)):
            self.pending[number] = []
            while (name := f"pending.{number}.{len(self.pending[number])}") + ".due" in state:
                dense, rows, table = (state[f"{name}.{part}"].to(device) for part in ("dense", "rows", "table"))
                self.pending[number].append(Gradient(dense, rows, table, int(state[f"{name}.due"])))
