"""The engine of stock PyTorch: autograd on an `nn.Module`, any device, every noise, every norm.

The module's parameters are views into flat rows, so that Adagrad is a few operations for a whole model. Table rows are
fetched outside of autograd and updated by row-wise Adagrad (one sum of squares per row, as in DLRM): only what a
mini-batch touches is read and written. On a CPU models learn one by one, as many at a time as the pool has threads; on
a GPU all models of the arm learn in one step (`torch.func.vmap`).

Shapes as in duplicates.py; g models of a group, that are computed in one step.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from simulator.errors import SettingError
from simulator.models.click_model import ClickModel, Pooling, padding
from simulator.models.duplicates import EVENTS_PER_PASS, Chunk, Duplicates, Weights
from simulator.models.engine import EngineName
from simulator.models.noise import round_to_bfloat16

log = logging.getLogger("engine")
PARTS = "dense", "entries", "table"
"""Of a gradient that waits, in a state."""
SCORES_PER_PASS = 1 << 20
"""Log-odds computed at once on a GPU, by all models together: enough to fill it. With the default model each one takes
2.4 kB of memory on the way."""


@dataclass
class Gradient:
    """What one mini-batch taught a group: dense [g, P], and for each of its table entries the row's sum [g B L, D]."""

    dense: Tensor
    entries: Tensor
    """[g B L] rows of the group's tables in a row."""
    table: Tensor
    due: int = 0
    """The step at which it is applied: its own, or later where updates are delayed."""


class TorchEngine(Duplicates):
    """The duplicates of one arm by PyTorch."""

    name: EngineName = "torch"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """See Duplicates. Raises SettingError for `cuda` where there is no GPU."""
        check_device(options.get("device", "cpu"))
        super().__init__(*arguments, **options)
        module = ClickModel(self.schema, self.model, self.arm.activation)
        self.pooling = Pooling(self.schema, self.model.dim)
        self._scratch = threading.local()
        whole = self.device.type != "cpu" and not self.noise.config.delay and self._stacks(module)
        size = len(self) if whole else 1
        self._groups = [slice(start, start + size) for start in range(0, len(self), size)]
        if whole:
            self.teams = self._groups
        # one for each group: while it is called its parameters are others, which threads must not see
        self._modules = [copy.deepcopy(module).to(self.device) for _ in self._groups]
        # .data: what one model learns must not look to autograd like a change of another
        self._parameters = [
            {name: values.data.requires_grad_() for name, values in self._views(self.weights.dense[group]).items()}
            for group in self._groups
        ]
        self._pending: list[list[Gradient]] = [[] for _ in self._groups]

    def _stacks(self, module: nn.Module) -> bool:
        """Whether vmap takes the module; what it refuses runs one model after another."""
        slots, dim = self.schema.slots, self.model.dim
        vectors = torch.zeros(len(self), 2, slots, dim, dtype=self.weights.table.dtype, device=self.device)
        shares = self.pooling.shares(torch.zeros(len(self), 2, slots, device=self.device), vectors.dtype)
        try:
            _forward(module, self._views(self.weights.dense), vectors, shares)
        except RuntimeError as problem:
            reason = str(problem).splitlines()[0]
            log.warning("%s: models learn one after another, vmap refuses them (%s)", self.arm.label, reason)
            return False
        return True

    def _views(self, dense: Tensor) -> dict[str, Tensor]:
        """Flat rows [g, P] as parameters of the module by name, [g, ...]; of one model without the first axis."""
        return self.layout.views(dense[0] if len(dense) == 1 else dense)

    def _score(self, models: slice, rows: Tensor, weights: Weights) -> Tensor:
        """See Duplicates: padded, so that a score does not depend on how many others are asked for."""
        rows = rows.expand(len(weights.dense), *rows.shape[-2:])
        together, first = self._groups[0].stop, self._group_of(models.start)
        size = EVENTS_PER_PASS
        if self.device.type != "cpu":
            size = max(size, SCORES_PER_PASS // together // EVENTS_PER_PASS * EVENTS_PER_PASS)
        with torch.inference_mode():
            groups = [slice(start, start + together) for start in range(0, len(rows), together)]
            found = [self._score_group(first + n, rows[g], weights[g], size) for n, g in enumerate(groups)]
            return torch.cat(found)

    def _group_of(self, model: int) -> int:
        return model // self._groups[0].stop

    def _score_group(self, number: int, rows: Tensor, weights: Weights, size: int) -> Tensor:
        """Log-odds [g, n] of events with table rows [g, n, L], so many at once."""
        parts, parameters, tables = [], self._views(weights.dense), weights.table.flatten(0, 1)
        for part in torch.split(rows, size, 1):
            padded = functional.pad(part, (0, 0, 0, padding(part.shape[1])))
            entries = self._entries(padded)
            vectors = tables.index_select(0, entries.flatten()).view(*entries.shape, -1)
            shares = self.pooling.shares(padded, vectors.dtype)
            parts.append(_forward(self._modules[number], parameters, vectors, shares)[:, : part.shape[1]])
        return torch.cat(parts, 1)

    def _entries(self, rows: Tensor) -> Tensor:
        """Rows [g, B, L] of each model's own table as rows of all tables of the group in a row."""
        models = torch.arange(len(rows), device=rows.device)
        return rows.long() + models.view(-1, 1, 1) * self.schema.rows

    def _learn(self, models: slice, chunk: Chunk) -> Tensor:
        """See Duplicates."""
        learned = []
        for number in range(self._group_of(models.start), self._group_of(models.stop - 1) + 1):
            group = self._groups[number]
            learned.append(self._learn_group(number, chunk[group.start - models.start : group.stop - models.start]))
        return torch.cat(learned)

    def _learn_group(self, number: int, chunk: Chunk) -> Tensor:
        """Log-odds [g, n] of a group's models, mini-batch by mini-batch."""
        group, batch, logits = self._groups[number], self.model.batch, []
        entries, shares = self._entries(chunk.rows), self.pooling.shares(chunk.rows, self.weights.table.dtype)
        first = chunk.number * (self.chunk_events // batch) + chunk.step
        for step, delay in enumerate(chunk.delays[0]):  # where delays are drawn, a group is one model
            part = slice(step * batch, (step + 1) * batch)
            own = None if shares is None else shares[:, part]
            found, gradient = self._gradient(number, entries[:, part], own, chunk.targets[:, part], chunk.lost[:, step])
            logits.append(found)
            gradient.due = first + step + int(delay)
            self._pending[number].append(gradient)
            for due in self._due(number, first + step):
                self._apply(group, due, chunk.rounding)
        return torch.cat(logits, 1)

    def _gradient(
        self, number: int, entries: Tensor, shares: Tensor | None, targets: Tensor, lost: np.ndarray
    ) -> tuple[Tensor, Gradient]:
        """Log-odds [g, B] of a mini-batch, and the gradient of its mean log loss. No weight changes."""
        group, parameters = self._groups[number], self._parameters[number]
        rows = entries.flatten()
        vectors = self.weights.table[group].flatten(0, 1).index_select(0, rows).view(*entries.shape, -1)
        logits = _forward(self._modules[number], parameters, vectors.requires_grad_(), shares)
        # each event weighs 1 / batch, also in a shorter mini-batch at the end, whose few events would shake the model
        slope = torch.sigmoid(logits.detach()).sub_(targets).div_(self.model.batch)
        if lost.any():
            slope[torch.from_numpy(lost).to(slope.device)] = 0  # a zero gradient leaves Adagrad where it is
        *dense, of_vectors = torch.autograd.grad(logits, [*parameters.values(), vectors], slope)
        flat = torch.zeros_like(self.weights.dense[group])
        for view, found in zip(self._views(flat).values(), dense, strict=True):
            view.copy_(found)
        return logits.detach(), Gradient(flat, rows, self._sum_by_row(rows, of_vectors.flatten(0, 2)))

    def _sum_by_row(self, rows: Tensor, gradients: Tensor) -> Tensor:
        """Gradients [n, D] of table rows [n] -> for each of them its row's sum [n, D].

        A scratch table that is zero between calls saves sorting; its sums are made in a fixed order.
        """
        scratch: Tensor | None = getattr(self._scratch, "table", None)
        if scratch is None:  # all groups are of one size
            scratch = self._scratch.table = torch.zeros_like(self.weights.table[self._groups[0]]).flatten(0, 1)
        if rows.is_cuda:
            scratch.index_put_((rows,), gradients, accumulate=True)  # sorts: atomic adds would round at random
        else:
            scratch.index_add_(0, rows, gradients)
        sums = scratch.index_select(0, rows)
        scratch.index_fill_(0, rows, 0)
        return sums

    def _due(self, number: int, step: int) -> Iterator[Gradient]:
        waiting = self._pending[number]
        self._pending[number] = [gradient for gradient in waiting if gradient.due > step]
        yield from (gradient for gradient in waiting if gradient.due <= step)

    def _apply(self, group: slice, gradient: Gradient, rounding: list[np.random.Generator]) -> None:
        """Adagrad on the dense parameters, row-wise Adagrad on the touched rows, both in place."""
        rate, weights, squares = self.model.learning_rate, self.weights[group], self.squares[group]
        squares.dense.addcmul_(gradient.dense, gradient.dense)
        weights.dense.addcdiv_(gradient.dense, squares.dense.sqrt(), value=-rate)
        # a row that comes several times is written several times with one and the same value
        table, of_row, rows, sums = (
            weights.table.flatten(0, 1),
            squares.table.flatten(),
            gradient.entries,
            gradient.table,
        )
        seen = of_row.index_select(0, rows).add_(sums.square().mean(1))
        of_row.index_copy_(0, rows, seen)
        table.index_copy_(0, rows, table.index_select(0, rows).addcmul_(sums, seen.rsqrt().unsqueeze(1), value=-rate))
        weights.table[:, 0] = 0  # padding, also where a single-valued field has no value
        if self.noise.config.precision == "bfloat16":
            for position, (own, draws) in enumerate(zip(rows.view(len(weights.dense), -1), rounding, strict=True)):
                if own.is_cuda:  # where a row comes twice, a GPU keeps one of its roundings, and not always the same
                    own = own.unique()
                table.index_copy_(0, own, round_to_bfloat16(table.index_select(0, own), draws))
                weights.dense[position] = round_to_bfloat16(weights.dense[position], draws)

    def initialise(self, anew: int = 0) -> None:
        """See Duplicates."""
        super().initialise(anew)
        self._pending = [[] for _ in getattr(self, "_groups", ())]

    def state(self) -> dict[str, Tensor]:
        """See Engine; gradients that wait included."""
        state = super().state()
        for number, waiting in enumerate(self._pending):
            for position, gradient in enumerate(waiting):
                name = f"pending.{number}.{position}"
                state |= {f"{name}.{part}": getattr(gradient, part).to("cpu", copy=True) for part in PARTS}
                state[f"{name}.due"] = torch.tensor([gradient.due])
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """See Engine."""
        super().restore(state)
        for number in range(len(self._groups)):
            self._pending[number] = []
            while (name := f"pending.{number}.{len(self._pending[number])}") + ".due" in state:
                dense, entries, table = (state[f"{name}.{part}"].to(self.device) for part in PARTS)
                self._pending[number].append(Gradient(dense, entries, table, int(state[f"{name}.due"])))


def _forward(module: nn.Module, parameters: dict[str, Tensor], vectors: Tensor, shares: Tensor | None) -> Tensor:
    """Log-odds [g, B] from embedding vectors [g, B, L, D] and the slots' shares [g, B, L]."""

    def one(own: dict[str, Tensor], vectors: Tensor, shares: Tensor | None) -> Tensor:
        logits: Tensor = functional_call(module, own, (vectors, shares))
        return logits

    if len(vectors) == 1:
        return one(parameters, vectors[0], None if shares is None else shares[0]).unsqueeze(0)
    found: Tensor = vmap(one, (0, 0, None if shares is None else 0))(parameters, vectors, shares)
    return found


def check_device(device: str) -> None:
    """Raises SettingError for `cuda` where there is no GPU; from here on float32 is float32 there."""
    if device != "cuda":
        return
    if not torch.cuda.is_available():
        raise SettingError("device", device, "no GPU is visible to PyTorch here; use --device cpu")
    # PyTorch's default, unless TORCH_ALLOW_TF32_CUBLAS_OVERRIDE is set, as NVIDIA's images do: TF32 rounds products to
    # 10 bits, which is noise of another size than a CPU's, and swaps candidates with close scores
    torch.set_float32_matmul_precision("highest")
