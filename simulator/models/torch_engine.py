"""The engine of stock PyTorch: autograd on an `nn.Module`, any device, every noise, every norm.

The module's parameters are views into flat rows, so that Adagrad is a few operations for a whole model. Table rows are
fetched outside of autograd and updated by row-wise Adagrad (one sum of squares per row, as in DLRM): only what a
mini-batch touches is read and written. On a CPU models learn one by one, as many at a time as the pool has threads; on
a GPU all models of the arm learn in one step (`torch.func.vmap`).

Shapes as in engine.py; g models of a group, that are computed in one step; u distinct table rows of a mini-batch.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from simulator.models.click_model import BuiltInEngine, ClickModel, Pooling, fetch, padding
from simulator.models.engine import Chunk, EngineName, Weights
from simulator.models.noise import round_to_bfloat16

log = logging.getLogger("engine")
EVENTS_PER_PASS = 2_048
"""Events scored at once on a CPU: what a pass touches stays in the cache."""
GRADIENT_PARTS = "dense", "rows", "table"
"""Entries in a state of a gradient that waits."""
SCORES_PER_PASS = 1 << 20
"""Log-odds computed at once on a GPU, by all models together: enough to fill it. With the default model each one takes
2.4 kB of memory on the way."""


@dataclass(frozen=True)
class Lookup:
    """Which rows of a group's tables, one behind the other, a mini-batch looks up. Nothing here depends on chance:
    sums in the order of the mini-batch round alike on every run, which adding as threads come would not."""

    entries: Tensor
    """[g, B, L] all of them."""
    rows: Tensor
    """[u] the distinct ones, ascending."""
    order: Tensor
    """[g B L] places in `entries`, those of the first row in `rows` first."""
    starts: Tensor
    """[u] where in `order` the places of a row begin."""

    @staticmethod
    def of(entries: Tensor) -> Lookup:
        """For entries [g, B, L]."""
        ascending, order = torch.sort(entries.flatten(), stable=True)
        rows, counts = torch.unique_consecutive(ascending, return_counts=True)
        return Lookup(entries, rows, order, counts.cumsum(0) - counts)

    def sums(self, gradients: Tensor) -> Tensor:
        """Gradients of the vectors [g, B, L, D] -> of the distinct rows [u, D]."""
        return functional.embedding_bag(self.order, gradients.flatten(0, 2), self.starts, mode="sum")


@dataclass
class Gradient:
    """A mini-batch's gradient for a group: dense [g, P], and [u, D] for the distinct rows [u] of its tables."""

    dense: Tensor
    rows: Tensor
    table: Tensor
    due: int
    """The step at which it is applied: its own, or later where updates are delayed."""


@dataclass
class ModelGroup:
    """Models that are computed in one step. All tensors are views of what the engine holds, changed in place."""

    models: slice
    module: nn.Module
    """Of its own."""
    parameters: list[nn.Parameter]
    """The module's: views of `dense`, with a first axis [g] where there are several models."""
    dense: Tensor
    """[g, P]"""
    table: Tensor
    """[g V, D]"""
    dense_accumulator: Tensor
    """[g, P]"""
    row_accumulator: Tensor
    """[g V]"""
    pending: list[Gradient] = field(default_factory=list)
    """In the order of their steps."""


class TorchEngine(BuiltInEngine):
    """The duplicates of one arm by PyTorch."""

    name: EngineName = "torch"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        module = ClickModel(self.schema, self.model, self.activation).to(self.device)
        self.pooling = Pooling(self.schema, self.model.dim)
        self._size = 1
        """Models in a group."""
        if self._one_step_for_all and not self.noise.config.delay and self._stacks(module):
            self._size = len(self)
            self.units = [slice(0, len(self))]
        starts = range(0, len(self), self._size)
        self._groups = [self._group(slice(start, start + self._size), module) for start in starts]

    def _group(self, models: slice, module: nn.Module) -> ModelGroup:
        weights, squares, module = self.weights[models], self.squares[models], copy.deepcopy(module)
        for name, values in self._views(weights.dense).items():
            # .data: what one model learns must not look to autograd like a change of another
            setattr(module, name, nn.Parameter(values.data))
        tables = weights.table.flatten(0, 1), squares.table.flatten()
        return ModelGroup(models, module, list(module.parameters()), weights.dense, tables[0], squares.dense, tables[1])

    @property
    def _one_step_for_all(self) -> bool:
        """Whether all models learn in one step, where that can be."""
        return self.device.type != "cpu"

    def _stacks(self, module: nn.Module) -> bool:
        """Whether vmap takes the module; what it refuses runs one model after another."""
        slots, dim = self.schema.slots, self.model.dim
        vectors = torch.zeros(len(self), 2, slots, dim, dtype=self.weights.table.dtype, device=self.device)
        shares = self.pooling.shares(torch.zeros(len(self), 2, slots, device=self.device), vectors.dtype)
        try:
            _forward(module, vectors, shares, self._views(self.weights.dense))
        except RuntimeError as problem:
            reason = str(problem).splitlines()[0]
            log.warning("%s: models learn one after another, vmap refuses them (%s)", self.arm.label, reason)
            return False
        return True

    def _views(self, dense: Tensor) -> dict[str, Tensor]:
        """Flat rows [g, P] as parameters of the module by name, [g, ...]; of one model without the first axis."""
        return self.layout.views(dense[0] if len(dense) == 1 else dense)

    def _score(self, models: slice, rows: Tensor, weights: Weights) -> Tensor:
        """See Engine: padded, which makes scores batch-invariant."""
        rows = rows.expand(len(weights.dense), *rows.shape[-2:])
        size = EVENTS_PER_PASS
        if self.device.type != "cpu":
            size = max(size, SCORES_PER_PASS // self._size // EVENTS_PER_PASS * EVENTS_PER_PASS)
        logits = []
        with torch.inference_mode():
            for group in self._groups_of(models):
                members = slice(group.models.start - models.start, group.models.stop - models.start)
                logits.append(self._score_group(group, rows[members], weights[members], size))
        return torch.cat(logits)

    def _groups_of(self, models: slice) -> list[ModelGroup]:
        """The groups of some models; a unit is made of whole groups."""
        return self._groups[models.start // self._size : -(-models.stop // self._size)]

    def _score_group(self, group: ModelGroup, rows: Tensor, weights: Weights, size: int) -> Tensor:
        """Log-odds [g, n] of events with table rows [g, n, L], so many at once."""
        parts, parameters, tables = [], self._views(weights.dense), weights.table.flatten(0, 1)
        for part in torch.split(rows, size, 1):
            padded = functional.pad(part, (0, 0, 0, padding(part.shape[1])))
            entries = self._entries(padded)
            vectors = fetch(tables, entries)
            shares = self.pooling.shares(padded, vectors.dtype)
            parts.append(_forward(group.module, vectors, shares, parameters)[:, : part.shape[1]])
        return torch.cat(parts, 1)

    def _entries(self, rows: Tensor) -> Tensor:
        """Rows [g, B, L] of each model's own table as rows of all tables of the group in a row."""
        models = torch.arange(len(rows), device=rows.device)
        return rows.long() + models.view(-1, 1, 1) * self.schema.rows

    def _learn(self, models: slice, chunk: Chunk) -> Tensor:
        learned = []
        for group in self._groups_of(models):
            members = slice(group.models.start - models.start, group.models.stop - models.start)
            learned.append(self._learn_group(group, chunk[members]))
        return torch.cat(learned)

    def _learn_group(self, group: ModelGroup, chunk: Chunk) -> Tensor:
        """Log-odds [g, n] of a group's models, mini-batch by mini-batch."""
        batch, logits = self.model.batch, []
        shares = self.pooling.shares(chunk.rows, self.weights.table.dtype)
        # all before the first step: a GPU has to be waited for to know how many rows are distinct
        lookups = [Lookup.of(entries) for entries in torch.split(self._entries(chunk.rows), batch, 1)]
        first = chunk.number * (self.chunk_events // batch) + chunk.step
        for step, lookup in enumerate(lookups):
            part = chunk.mini_batch(step, batch)
            slot_shares = None if shares is None else shares[:, step * batch : (step + 1) * batch]
            batch_logits, dense, table = self._gradients(group, lookup, slot_shares, part)
            logits.append(batch_logits)
            # where delays are drawn, a group is one model
            group.pending.append(Gradient(dense, lookup.rows, table, first + step + int(part.delays[0, 0])))
            due = [gradient for gradient in group.pending if gradient.due <= first + step]
            group.pending = [gradient for gradient in group.pending if gradient.due > first + step]
            for gradient in due:
                self._apply(group, gradient, chunk.rounding)
        return torch.cat(logits, 1)

    def _gradients(
        self, group: ModelGroup, lookup: Lookup, shares: Tensor | None, part: Chunk
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log-odds [g, B] of a mini-batch, and the gradients [g, P] and [u, D] of its mean log loss, where events have
        weights of the mean of the weighted ones."""
        vectors = fetch(group.table, lookup.entries).requires_grad_()
        logits = _forward(group.module, vectors, shares)
        # each event weighs 1 / batch, also in a shorter mini-batch at the end, whose few events would shake the model
        grad_logits = torch.sigmoid(logits.detach()).sub_(part.targets).div_(self.model.batch)
        if part.event_weights is not None:
            grad_logits.mul_(part.event_weights)
        lost = part.lost[:, 0]
        if lost.any():
            grad_logits[torch.from_numpy(lost).to(grad_logits.device)] = 0  # a zero gradient leaves Adagrad where it is
        *dense, of_vectors = torch.autograd.grad(logits, [*group.parameters, vectors], grad_logits)
        return logits.detach(), self.layout.flat(dense).view_as(group.dense), lookup.sums(of_vectors)

    def _apply(self, group: ModelGroup, gradient: Gradient, rounding: list[np.random.Generator]) -> None:
        """Adagrad on the dense parameters, row-wise Adagrad on the touched rows, both in place."""
        rate, rows, table = self.model.learning_rate, gradient.rows, group.table
        group.dense_accumulator.addcmul_(gradient.dense, gradient.dense)
        group.dense.addcdiv_(gradient.dense, group.dense_accumulator.sqrt(), value=-rate)
        squares = group.row_accumulator.index_select(0, rows).add_(gradient.table.square().mean(1))
        group.row_accumulator.index_copy_(0, rows, squares)
        scale = squares.rsqrt_().unsqueeze(1)
        table.index_copy_(0, rows, table.index_select(0, rows).addcmul_(gradient.table, scale, value=-rate))
        table[:: self.schema.rows] = 0  # padding, also where a single-valued field has no value
        if self.noise.config.precision == "bfloat16":
            for model, draws in enumerate(rounding):
                rows_of_model = rows[rows // self.schema.rows == model]
                table.index_copy_(0, rows_of_model, round_to_bfloat16(table.index_select(0, rows_of_model), draws))
                group.dense[model] = round_to_bfloat16(group.dense[model], draws)

    def initialise(self, anew: int = 0) -> None:
        """See Engine."""
        super().initialise(anew)
        for group in getattr(self, "_groups", ()):
            group.pending = []

    def state(self) -> dict[str, Tensor]:
        """See Engine; gradients that wait included."""
        state = super().state()
        for number, group in enumerate(self._groups):
            for position, gradient in enumerate(group.pending):
                name = f"pending.{number}.{position}"
                state |= {f"{name}.{part}": getattr(gradient, part).to("cpu", copy=True) for part in GRADIENT_PARTS}
                state[f"{name}.due"] = torch.tensor([gradient.due])
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """See Engine."""
        super().restore(state)
        for number, group in enumerate(self._groups):
            group.pending = []
            while (name := f"pending.{number}.{len(group.pending)}") + ".due" in state:
                dense, rows, table = (state[f"{name}.{part}"].to(self.device) for part in GRADIENT_PARTS)
                group.pending.append(Gradient(dense, rows, table, int(state[f"{name}.due"])))


def _forward(
    module: nn.Module, vectors: Tensor, shares: Tensor | None, parameters: dict[str, Tensor] | None = None
) -> Tensor:
    """Log-odds [g, B] from embedding vectors [g, B, L, D] and the slots' shares [g, B, L], by other parameters than the
    module's own where they are given."""
    if len(vectors) == 1:
        inputs = vectors.squeeze(0), None if shares is None else shares.squeeze(0)
        logits: Tensor = module(*inputs) if parameters is None else functional_call(module, parameters, inputs)
        return logits.unsqueeze(0)

    def forward_one(weights: dict[str, Tensor], vectors: Tensor, shares: Tensor | None) -> Tensor:
        logits: Tensor = functional_call(module, weights, (vectors, shares))
        return logits

    stacked = parameters or dict(module.named_parameters())
    batched: Tensor = vmap(forward_one, (0, 0, None if shares is None else 0))(stacked, vectors, shares)
    return batched
