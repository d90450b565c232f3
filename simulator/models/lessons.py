"""What each model learns of a chunk: the same events for all, in its own order and with its own noise.

Shapes: m models of a slab, n events, B of a mini-batch, S slots, D embedding length, P dense parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from simulator.models.duplicates import Duplicates, Member
from simulator.models.noise import Noise
from simulator.models.tables import Entries
from simulator.types import Ints


@dataclass(frozen=True)
class Lesson:
    """A chunk, or a mini-batch of it, as the models of a slab learn it."""

    order: Tensor
    """[m, n] places of the events in the log."""
    rows: Tensor
    """[m, n, S]"""
    targets: Tensor
    """[m, n] labels, or what a cure makes of them."""
    lost: NDArray[np.bool_]
    """[m, steps] whether the model never learns a mini-batch."""
    delays: Ints
    """[steps] how many steps later a mini-batch's gradient is applied."""
    rounding: list[np.random.Generator]
    """[m], or none where nothing is rounded: a generator takes 0.1 ms, which a GPU with 64 models would wait for."""
    chunk: int
    step: int = 0
    """Number of the first mini-batch in its chunk."""

    def mini_batch(self, number: int, size: int) -> Lesson:
        """One mini-batch of a chunk."""
        part, one = slice(number * size, (number + 1) * size), slice(number, number + 1)
        return replace(
            self,
            order=self.order[:, part],
            rows=self.rows[:, part],
            targets=self.targets[:, part],
            lost=self.lost[:, one],
            delays=self.delays[one],
            step=number,
        )


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
    targets: Tensor
    """[m, B]"""
    lost: NDArray[np.bool_]
    """[m] whether the model never learns it."""


def orders(noise: Noise, members: list[Member], batch: int, chunk: int, events: int) -> Ints:
    """[m, n] the order in which each model learns chunk number `chunk` of n events."""
    return np.stack([noise.order(who, chunk, events, batch) for who in members])


def make_lesson(
    noise: Noise, members: list[Member], chunk: int, rows: Tensor, labels: Tensor, order: Tensor, batch: int
) -> Lesson:
    """Chunk number `chunk`, table rows [n, S] and labels [n], in orders [m, n] and mini-batches of `batch` events."""
    steps = -(-len(labels) // batch)
    return Lesson(
        order,
        rows.index_select(0, order.flatten()).view(*order.shape, -1),  # faster than rows[order]
        labels.index_select(0, order.flatten()).view_as(order),
        np.stack([noise.lost(who, chunk, steps) for who in members]),
        noise.delays(members[0], chunk, steps),
        [noise.rounding(who, chunk) for who in members] if noise.config.precision == "bfloat16" else [],
        chunk,
    )


def teams(stack: Duplicates) -> list[range]:
    """Numbers of the slabs that learn in step: those of one duplicate whose parts a cure couples; any other alone."""
    starts = []
    for number, slab in enumerate(stack.slabs):
        who = stack.members[slab.start]
        if not (who.part and stack.arms[who.arm].cure.coupled):
            starts.append(number)
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], len(stack.slabs)], strict=True)]
