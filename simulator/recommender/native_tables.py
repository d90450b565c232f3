"""What learning does to the embedding tables, and Adagrad, by compiled kernels: for slabs of one model on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from simulator.recommender.duplicates import Duplicates
from simulator.recommender.native import Native
from simulator.recommender.native_network import NativeNetwork
from simulator.recommender.tables import Entries, Tables


def make_tables(stack: Duplicates) -> Tables:
    """The tables as the stack's network computes: with kernels or without."""
    return NativeTables(stack, stack.network.native) if isinstance(stack.network, NativeNetwork) else Tables(stack)


class NativeTables(Tables):
    """Each in one pass over memory, every touched row once."""

    def __init__(self, stack: Duplicates, native: Native) -> None:
        super().__init__(stack)
        self.native = native
        self._field_of_slot = stack.pooling.field_of_slot.int()

    def prepare(self, slab: slice, rows: Tensor) -> Entries:
        assert len(rows) == 1
        return rows, None

    def inputs(self, slab: slice, where: Entries) -> Tensor:
        rows, fields = where[0][0], len(self.stack.schema.fields)
        return self.native.gather(self.stack.embedding[slab.start], rows, self._field_of_slot, fields)[None]

    def sum_by_row(self, slab: slice, where: Entries, grad: Tensor) -> tuple[Tensor, Tensor]:
        rows = where[0][0]
        held: tuple[Tensor, Tensor, Tensor] | None = getattr(self._workspace, "rows", None)
        if held is None:
            most, stack = self.stack.model.batch * self.stack.schema.slots, self.stack
            place = torch.full((stack.schema.rows,), -1, dtype=torch.int32)
            held = place, torch.empty(most, dtype=torch.int64), torch.empty(most, stack.model.dim)
            self._workspace.rows = held
        count = self.native.sum_by_row(grad[0], rows, self._field_of_slot, *held)
        return held[1][:count], held[2][:count]

    def adagrad(self, values: Tensor, squares: Tensor, grad: Tensor) -> None:
        self.native.adagrad(values, squares, grad, self.stack.model.learning_rate)

    def adagrad_rows(self, slab: slice, squares: Tensor, rows: Tensor, sums: Tensor) -> None:
        table, rate = self.stack.embedding[slab.start], self.stack.model.learning_rate
        self.native.adagrad_rows(table, squares, rows, sums, rate)
