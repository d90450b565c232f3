"""The learning step as one CUDA graph: whole mini-batches of a chunk, one launch each, on buffers that stay in place.

The chunk's inputs are put into the buffers once; a counter on the GPU tells the graph which mini-batch is due. Adagrad
and row-wise Adagrad are part of it. Who calls it keeps the plain path for what has another shape (the short mini-batch
at the end of a log) or another course (delayed gradients, weights in bfloat16).

Shapes: m models (all of the stack), K mini-batches in the buffers, B events of a mini-batch, S slots, k whole
mini-batches of a chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor

from simulator.recommender.duplicates import Duplicates
from simulator.recommender.gpu import fused
from simulator.recommender.gpu.graphs import Capture, Work
from simulator.recommender.gpu.rows import plan


class GraphedSteps:
    """Learns whole mini-batches. Captured on first use, with every mini-batch marked as lost: no weight changes."""

    def __init__(
        self, stack: Duplicates, dense_squares: Tensor, table_squares: Tensor, steps: int, capture: Capture
    ) -> None:
        """Adagrad's sums [m, P] and [m, V], which are updated in place like the weights; K = steps."""
        self.stack, self.dense_squares, self.table_squares = stack, dense_squares, table_squares
        self._capture = capture
        self._replay: Work | None = None
        self._everyone = slice(0, len(stack))
        self._segments = stack.segments(self._everyone)
        batch, models = (steps, len(stack), stack.model.batch), (steps, len(stack))
        entries, device = stack.model.batch * stack.schema.slots, stack.device
        self._entries = torch.zeros(*batch, stack.schema.slots, dtype=torch.int64, device=device)
        self._shares = None if stack.pooling.single else torch.zeros(*batch, stack.schema.slots, device=device)
        self._labels, self._logits = torch.zeros(batch, device=device), torch.zeros(batch, device=device)
        self._lost = torch.ones(models, dtype=torch.bool, device=device)
        self._plan = [torch.zeros(*models, entries, dtype=torch.int32, device=device) for _ in range(3)]
        self._due = torch.zeros(1, dtype=torch.int64, device=device)
        self._gradient = torch.zeros_like(stack.dense)
        stack.pooling.field_of_slot = stack.pooling.field_of_slot.to(device)  # no copies from the host in a capture

    def learn(self, rows: Tensor, entries: Tensor, shares: Tensor | None, labels: Tensor, lost: Tensor) -> Tensor:
        """Learn k whole mini-batches; returns the log-odds [m, k B] given to each event just before.

        rows, entries, shares: [m, k B, S] as in the learner; labels [m, k B]; lost [m, k].
        """
        if self._replay is None:
            self._replay = self._capture(self._step)
        count = lost.shape[1]
        self._due.zero_()
        self._fill(self._entries, entries, count)
        self._fill(self._labels, labels, count)
        self._lost[:count].copy_(lost.T)
        if self._shares is not None and shares is not None:
            self._fill(self._shares, shares, count)
        for buffer, part in zip(self._plan, plan(_by_step(rows, count).flatten(2)), strict=True):
            buffer[:count].copy_(part)
        for _ in range(count):
            self._replay()
        return self._logits[:count].transpose(0, 1).flatten(1).clone()

    def _fill(self, buffer: Tensor, events: Tensor, count: int) -> None:
        """Put events [m, k B, ...] into a buffer [K, m, B, ...]."""
        buffer[:count].copy_(_by_step(events, count))

    def _now(self, buffer: Tensor) -> Tensor:
        """A buffer's part for the mini-batch that is due."""
        return buffer.index_select(0, self._due).squeeze(0)

    def _step(self) -> None:
        """One mini-batch: score, differentiate, apply. Everything here is captured."""
        stack, weights = self.stack, self.stack.layout.views(self.stack.dense)
        shares = None if self._shares is None else self._now(self._shares)
        x = stack.pooling.forward(stack.vectors(self._everyone, self._now(self._entries)), shares)
        logits, tape = stack.network.forward(x, weights, self._segments)
        slope = (torch.sigmoid(logits) - self._now(self._labels)).div_(stack.model.batch)
        slope.masked_fill_(self._now(self._lost).unsqueeze(1), 0)
        self._gradient.zero_()
        back = stack.network.backward(slope, weights, tape, self._segments, stack.layout.views(self._gradient))
        self._apply(stack.pooling.backward(back, shares).flatten(1, 2))
        self._logits.index_copy_(0, self._due, logits.unsqueeze(0))
        self._due.add_(1).remainder_(len(self._logits))

    def _apply(self, by_entry: Tensor) -> None:
        """Adagrad by the dense gradient, row-wise Adagrad by that of the entries [m, B S, D]."""
        stack, rate = self.stack, self.stack.model.learning_rate
        self.dense_squares.addcmul_(self._gradient, self._gradient)
        stack.dense.addcdiv_(self._gradient, self.dense_squares.sqrt(), value=-rate)
        rows, ends, places = (self._now(part) for part in self._plan)
        fused.update_rows((rows, ends, places), by_entry.contiguous(), stack.embedding, self.table_squares, rate)


def _by_step(events: Tensor, count: int) -> Tensor:
    """Events [m, k B, ...] as mini-batches [k, m, B, ...]."""
    return events.reshape(len(events), count, -1, *events.shape[2:]).transpose(0, 1)
