"""Rankers of published weights: each item's part of the first layer is computed once.

The first layer's product is a sum over fields: user and context give one row per query, the item another that is the
same for all queries of a snapshot. Scores are those of the engine, but for sums in another order.

Shapes: V table rows, D embedding length, P dense parameters, U users, I items, Q queries, N candidates, C context
slots, H width of the first hidden layer, n rows.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulator.config import ModelConfig, NoiseConfig
from simulator.models.click_model import ClickModel, Layout, Pooling, check_shapes, fetch, padding
from simulator.models.engine import EngineName, check_device
from simulator.models.factories import require_allowed
from simulator.models.native_engine import NativeScorer, kernel_of, refusal
from simulator.models.own import CustomRanker, Maker
from simulator.models.specs import parse_arm
from simulator.pace import throttled
from simulator.types import Floats, Ints, Rows, Schema, Side

log = logging.getLogger("ranker")
ITEMS_PER_PORTION = {"cpu": 512, "cuda": 65_536}
"""Items whose part is computed at once: on a CPU their vectors stay in the cache."""
PAIRS = {"cpu": 2_048, "cuda": 32_768}
"""Query-candidate pairs of a pass: what it touches stays in a CPU's cache, or fills a GPU."""
Empty = Callable[[int, int], Tensor]
"""Makes an uninitialised float32 tensor of so many rows and columns."""


class Ranker(Protocol):
    """One arm's model in service; safe to ask from several threads.

    A query's scores are the same to the last bit whichever queries they are computed with, wherever a ranker of the
    same weights and engine runs on the same kind of machine: scores are batch-invariant.
    """

    name: EngineName
    pairs_at_once: int
    """Query-candidate pairs to score in one call, where more are waiting."""

    def scores(self, users: Ints, context: Rows, items: Ints) -> Floats:
        """Log-odds [Q, N] of candidates [Q, N] for users [Q] in contexts [Q, C] (table rows).

        The number behind the last user's stands for one whom the world has not. Of him the built-in model sees padding,
        a module of the user's id 1 in every field (see Field.size).
        """


class Rankers:
    """Makes the rankers of a process; a new generation recycles the memory of old ones."""

    def __init__(self, device: str = "cpu") -> None:
        """Raises SettingError for `cuda` where there is no GPU."""
        check_device(device)
        self._device, self._memory = device, Recycled()
        self._warned: set[str] = set()

    def __call__(
        self,
        schema: Schema,
        spec: str,
        engine: EngineName,
        model: ModelConfig,
        tensors: dict[str, Tensor],
        user_rows: Rows,
        item_rows: Rows,
        identity: Mapping[str, Any] | None = None,
    ) -> Ranker:
        """A ranker of what `engine` published for the arm `spec`; rows of users [U, Su] and items [I, Si].

        All replicas where the engine can be had take the same arithmetic; one where it cannot says so in a line.
        Raises ValueError where a tensor has another shape than schema and model ask for; SettingError where a module
        of the user's may not be imported here, or is not the one with the announced `identity`.
        """
        if custom := parse_arm(spec).own:
            require_allowed(custom.factory)
            return CustomRanker(Maker(schema, custom, self._device), tensors, identity or {}, user_rows, item_rows)
        check_shapes(tensors, schema, model)
        empty: Empty = self._memory if self._device == "cpu" else torch.empty
        ranker = TorchRanker(schema, spec, model, tensors, user_rows, item_rows, self._device, empty)
        if engine == "torch":
            return ranker
        reason = refusal(parse_arm(spec), model, NoiseConfig(), self._device)
        if not reason:
            return NativeRanker(ranker)
        if spec not in self._warned:
            self._warned.add(spec)
            log.warning("%s was taught by the native engine and is scored by PyTorch here: %s", spec, reason)
        return ranker

    def release(self) -> None:
        """A generation is complete: give the memory that it did not need to the system."""
        self._memory.release()


class TorchRanker:
    """Scores with one model by PyTorch, on any device."""

    name: EngineName = "torch"

    def __init__(
        self,
        schema: Schema,
        spec: str,
        model: ModelConfig,
        tensors: dict[str, Tensor],
        user_rows: Rows,
        item_rows: Rows,
        device: str = "cpu",
        empty: Empty = torch.empty,
    ) -> None:
        """`tensors`: `table` [V, D] and `dense` [P]; rows of users [U, Su] and items [I, Si]."""
        self.schema, self.model, self.device = schema, model, torch.device(device)
        self.pairs_at_once = PAIRS[device]
        activation = parse_arm(spec).activation
        assert activation
        self.activation = activation
        self.module = ClickModel(schema, model, self.activation).requires_grad_(False)
        with torch.inference_mode():
            for name, values in Layout(schema, model).views(tensors["dense"]).items():
                getattr(self.module, name).copy_(values)
            self.module.to(self.device)
            self.table = tensors["table"].to(self.device)
            unknown_user = torch.zeros(1, user_rows.shape[1], dtype=torch.long)
            self.user_rows = torch.cat([torch.from_numpy(user_rows).long(), unknown_user])
            """[U + 1, Su]"""
            self.first = self.module.weight(0)
            """[all fields x D, H] of the first layer."""
            self._sides = {side: self._side(side) for side in get_args(Side)}
            self.items = empty(len(item_rows), self.first.shape[1])
            """[I, H] each item's summand of the first layer's product."""
            self.items = self.items if self.items.device == self.device else self.items.to(self.device)
            size = ITEMS_PER_PORTION[device]
            rows = torch.from_numpy(item_rows).long()
            for portion, out in throttled(zip(torch.split(rows, size), torch.split(self.items, size), strict=True)):
                self._part("item", portion, out)

    def _side(self, side: Side) -> tuple[Tensor, Pooling]:
        """The rows [fields of a side x D, H] of the first layer, and how its slots become fields."""
        fields = self.schema.fields
        of_side = torch.tensor([field.side == side for field in fields]).repeat_interleave(self.model.dim)
        pooling = Pooling(Schema(tuple(field for field in fields if field.side == side)), self.model.dim)
        return self.first[of_side.to(self.device)], pooling

    def _part(self, side: Side, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """[n, H] summand of the first layer's product from the fields of one side, with table rows [n, slots]."""
        weight, pooling = self._sides[side]
        rows = rows.to(self.device)
        return torch.mm(pooling.forward(fetch(self.table, rows), pooling.shares(rows)), weight, out=out)

    def scores(self, users: Ints, context: Rows, items: Ints) -> Floats:
        """See Ranker; padded in users and candidates, which makes scores batch-invariant."""
        users, context, candidates = _padded(users), _padded(context), _padded(items.T).T
        with torch.inference_mode():
            query = self._part("user", self.user_rows[torch.from_numpy(users)])
            query = query + self._part("context", torch.from_numpy(context).long())
            chosen = torch.from_numpy(np.ascontiguousarray(candidates)).to(self.device)
            product = fetch(self.items, chosen)
            product.add_(query[: len(items)].unsqueeze(1))  # [Q, N, H]
            logits = self.module.from_product(product.flatten(0, 1))
            scores: Floats = logits.view(chosen.shape)[:, : items.shape[1]].cpu().numpy()
            return scores


class NativeRanker(NativeScorer):
    """Scores with the same model by the compiled kernels."""

    name: EngineName = "native"

    def __init__(self, ranker: TorchRanker) -> None:
        """Takes its weights and its items' part."""
        module, model, fields = ranker.module, ranker.model, ranker.schema.fields
        kernel = kernel_of(ranker.activation)
        assert kernel
        self.pairs_at_once = ranker.pairs_at_once
        gains = [None if model.norm == "none" else module.tensor("gain", n) for n in module.layers]
        layers = [(module.weight(n), module.tensor("bias", n), gains[n]) for n in module.layers]
        of_query = Schema(tuple(field for field in fields if field.side != "item"))
        inputs = torch.tensor([field.side != "item" for field in fields]).repeat_interleave(model.dim).nonzero()[:, 0]
        query = ranker.table, ranker.user_rows, Pooling(of_query, model.dim).field_of_slot, ranker.first[inputs]
        context_slots = sum(field.slots for field in fields if field.side == "context")
        output = module.tensor("weight", "_out"), module.tensor("bias", "_out")
        super().__init__(kernel, model.norm, layers, output, ranker.items, query, context_slots)


def _padded(rows: NDArray[Any]) -> NDArray[Any]:
    """Rows [n, ...], padded with copies of the first one."""
    return np.concatenate([rows, np.repeat(rows[:1], padding(len(rows)), 0)])


class Recycled:
    """Makes tensors, in the memory of earlier ones that are no longer used. One thread calls it; any may release.

    The system takes longer to find fresh pages for a large tensor than we take to fill it.
    """

    def __init__(self) -> None:
        self._free: list[Floats] = []

    def __call__(self, rows: int, columns: int) -> Tensor:
        """An uninitialised float32 tensor [rows, columns] on the CPU.

        Its memory is free again when neither it nor a view of it is referred to any more.
        """
        size = rows * columns
        # only this thread takes, others append behind; what has another size waits for an arm that asks for it
        match = next((place for place, block in enumerate(self._free) if block.size == size), None)
        memory = np.empty(size, np.float32) if match is None else self._free.pop(match)
        view = memory[:]  # PyTorch refers to this view as long as anything refers to the tensor's storage
        weakref.finalize(view, self._free.append, memory).atexit = False
        return torch.from_numpy(view).view(rows, columns)

    def release(self) -> None:
        """Give free memory to the system: a tensor that was once held for longer must not cost memory for good."""
        self._free.clear()
