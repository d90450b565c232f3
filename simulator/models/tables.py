"""What learning does to the embedding tables of a slab, and Adagrad: PyTorch's way, on any device.

Shapes: m models of a slab, B events, S slots, F fields, D embedding length, V table rows, n entries.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from simulator.models.duplicates import Duplicates

Entries = tuple[Tensor, Tensor | None]
"""Where events stand in the tables, in the form that `Tables.prepare` gives it: [m, B, S] each."""


class Tables:
    """Reads, sums and updates rows of a stack's embedding tables; safe to call for several slabs side by side."""

    def __init__(self, stack: Duplicates) -> None:
        self.stack = stack
        self._workspace = threading.local()

    def prepare(self, slab: slice, rows: Tensor) -> Entries:
        """Table rows [m, B, S] -> the same as rows of all the slab's tables in a row, and `Pooling.weights`."""
        return self.stack.entries(slab, rows), self.stack.pooling.weights(rows)

    def inputs(self, slab: slice, where: Entries) -> Tensor:
        """Input of the first layer [m, B, F D]."""
        entries, shares = where
        return self.stack.pooling.forward(self.stack.vectors(slab, entries), shares)

    def sum_by_row(self, slab: slice, where: Entries, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of the inputs [m, B, F D] -> rows [n] of the slab's tables, for each its summed gradient [n, D].

        A row may come several times, always with the same sum. Both may be overwritten by the next call of a thread.
        A scratch table that is zero between calls saves sorting; its sums are made in a fixed order.
        """
        entries, shares = where
        rows = entries.flatten()
        grads = self.stack.pooling.backward(grad, shares).reshape(-1, self.stack.model.dim)
        scratch: Tensor | None = getattr(self._workspace, "table", None)
        if scratch is None:  # every slab of a stack is of one size
            scratch = self._workspace.table = torch.zeros_like(self.stack.embedding[slab]).flatten(0, 1)
        if rows.is_cuda:
            scratch.index_put_((rows,), grads, accumulate=True)  # sorts: atomic adds would round at random
        else:
            scratch.index_add_(0, rows, grads)
        sums = scratch.index_select(0, rows)
        scratch.index_fill_(0, rows, 0)
        return rows, sums

    def adagrad(self, values: Tensor, squares: Tensor, grad: Tensor) -> None:
        """Adagrad in place, all of one shape; squares: sums of squared gradients."""
        squares.addcmul_(grad, grad)
        values.addcdiv_(grad, squares.sqrt(), value=-self.stack.model.learning_rate)

    def adagrad_rows(self, slab: slice, squares: Tensor, rows: Tensor, sums: Tensor) -> None:
        """Row-wise Adagrad in place with what `sum_by_row` gave: one sum of squares per row, squares [m, V].

        A row that comes several times is written several times with one and the same value.
        """
        table, of_row = self.stack.embedding[slab].flatten(0, 1), squares.flatten()
        seen = of_row.index_select(0, rows).add_(sums.square().mean(1))
        of_row.index_copy_(0, rows, seen)
        rate = self.stack.model.learning_rate
        table.index_copy_(0, rows, table.index_select(0, rows).addcmul_(sums, seen.rsqrt().unsqueeze(1), value=-rate))
        self.stack.embedding[slab, 0] = 0  # padding, also where a single-valued field has no value
