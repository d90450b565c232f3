"""The learning step as one CUDA graph: whole mini-batches of a chunk, one launch each, on buffers that stay in place.

The chunk's inputs are put into the buffers once; a counter on the GPU tells the graph which mini-batch is due. Adagrad
and row-wise Adagrad are part of it. The learner keeps its plain path for what has another shape (the short mini-batch
at the end of a log) or another course (delayed gradients, weights in bfloat16).

Shapes: m models (all of the stack), K mini-batches in the buffers, B events of a mini-batch, S slots, n events of a
chunk, k whole mini-batches of it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulator.config import NoiseConfig
from simulator.models.gpu import fused
from simulator.models.gpu.graphs import Capture, CudaGraphs, Work
from simulator.models.gpu.rows import plan
from simulator.models.tables import Entries, Tables


def graphed_steps(
    tables: Tables, dense_squares: Tensor, table_squares: Tensor, noise: NoiseConfig, steps: int
) -> GraphedSteps | None:
    """The steps as graphs for chunks of at most so many mini-batches; None where the plain path is to be taken."""
    stack = tables.stack
    if noise.delay or noise.precision != "float32" or not fused.wanted(stack.model.compile, stack.device):
        return None
    return GraphedSteps(tables, dense_squares, table_squares, steps, CudaGraphs())


class GraphedSteps:
    """Learns whole mini-batches. Captured on first use, with every mini-batch marked as lost: no weight changes."""

    def __init__(
        self, tables: Tables, dense_squares: Tensor, table_squares: Tensor, steps: int, capture: Capture
    ) -> None:
        """Adagrad's sums [m, P] and [m, V], which are updated in place like the stack's weights; K = steps."""
        self.stack, self.tables = tables.stack, tables
        self.dense_squares, self.table_squares = dense_squares, table_squares
        self._capture = capture
        self._replay: Work | None = None
        stack, device = self.stack, self.stack.device
        self._everyone = slice(0, len(stack))
        self._segments = stack.segments(self._everyone)
        models, batch, slots = (steps, len(stack)), stack.model.batch, stack.schema.slots
        self._entries = torch.zeros(*models, batch, slots, dtype=torch.int64, device=device)
        self._shares = None if stack.pooling.single else torch.zeros(*models, batch, slots, device=device)
        self._labels = torch.zeros(*models, batch, device=device)
        self._logits = torch.zeros_like(self._labels)
        self._lost = torch.ones(models, dtype=torch.bool, device=device)
        self._plan = [torch.zeros(*models, batch * slots, dtype=torch.int32, device=device) for _ in range(3)]
        self._due = torch.zeros(1, dtype=torch.int64, device=device)
        self._gradient = torch.zeros_like(stack.dense)
        stack.pooling.field_of_slot = stack.pooling.field_of_slot.to(device)  # no copies from the host in a capture

    def learn(self, rows: Tensor, where: Entries, labels: Tensor, lost: NDArray[np.bool_]) -> Tensor:
        """Learn a chunk's whole mini-batches; returns the log-odds [m, k B] given to each event just before.

        rows [m, n, S], `where` as the tables prepare it, labels [m, n], lost [m, k] or with a short mini-batch more.
        """
        count = labels.shape[1] // self._labels.shape[2]
        if not count:
            return labels[:, :0]
        if self._replay is None:
            self._replay = self._capture(self._step)
        self._due.zero_()
        self._lost[:count].copy_(torch.from_numpy(lost[:, :count].T.copy()))
        self._labels[:count].copy_(self._by_step(labels, count))
        self._entries[:count].copy_(self._by_step(where[0], count))
        if self._shares is not None and where[1] is not None:
            self._shares[:count].copy_(self._by_step(where[1], count))
        for buffer, part in zip(self._plan, plan(self._by_step(rows, count).flatten(2)), strict=True):
            buffer[:count].copy_(part)
        for _ in range(count):
            self._replay()
        return self._logits[:count].transpose(0, 1).flatten(1).clone()

    def _by_step(self, events: Tensor, count: int) -> Tensor:
        """The first events of [m, n, ...] as mini-batches [k, m, B, ...]."""
        batch = self._labels.shape[2]
        return events[:, : count * batch].reshape(len(events), count, batch, *events.shape[2:]).transpose(0, 1)

    def _now(self, buffer: Tensor) -> Tensor:
        """A buffer's part for the mini-batch that is due."""
        return buffer.index_select(0, self._due).squeeze(0)

    def _step(self) -> None:
        """One mini-batch: score, differentiate, apply. Everything here is captured."""
        stack, weights = self.stack, self.stack.layout.views(self.stack.dense)
        shares = None if self._shares is None else self._now(self._shares)
        x = self.tables.inputs(self._everyone, (self._now(self._entries), shares))
        logits, tape = stack.network.forward(x, weights, self._segments)
        slope = torch.sigmoid(logits).sub_(self._now(self._labels)).div_(stack.model.batch)
        slope.masked_fill_(self._now(self._lost).unsqueeze(1), 0)
        back = stack.network.backward(slope, weights, tape, self._segments, stack.layout.views(self._gradient))
        self.tables.adagrad(stack.dense, self.dense_squares, self._gradient)
        rows, ends, places = (self._now(part) for part in self._plan)
        by_entry = stack.pooling.backward(back, shares).flatten(1, 2).contiguous()  # [m, B S, D]
        rate = stack.model.learning_rate
        fused.update_rows((rows, ends, places), by_entry, stack.embedding, self.table_squares, rate)
        self._logits.index_copy_(0, self._due, logits.unsqueeze(0))
        self._due.add_(1).remainder_(len(self._logits))
