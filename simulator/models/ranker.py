"""A duplicate of every arm, ready to serve: the part of the first layer that only the item decides is computed once.

The first layer's product is a sum over fields: user and context give one row per query, the item another that is the
same for all queries of a snapshot. Scores are those of `Duplicates.logits`, but for sums in another order.

A query's scores are the same to the last bit whichever queries they are computed with (held by a test), here and
wherever else a Ranker of the same snapshot runs on the same machine: so the company of a query swaps nothing.

Shapes: A arms, V table rows, D embedding length, P dense parameters, U users, I items, Q queries, N candidates,
C context slots, H width of the first hidden layer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulator.config import ModelConfig
from simulator.models.activations import Activation, activation
from simulator.models.memory import Recycled
from simulator.models.native import formula_of
from simulator.models.native_scoring import NativeScorer, is_wanted
from simulator.models.network import Layout, Network
from simulator.models.sides import Sides, check_tensors
from simulator.pace import gently
from simulator.types import Floats, Ints, Rows, Schema, Side

FEW_ITEMS = 512
"""Items whose part is computed at once: their vectors stay in the cache."""
ALIGNED, LEAST = 32, 64
"""How a matrix product of PyTorch rounds depends on its number of rows, on each processor in its own way. Where it is a
multiple of the first number, and at least the second, no row depends on others: on all processors that were tried."""


class Scorer(Protocol):
    """One arm's model."""

    items: Tensor
    """[I, H] what each item adds to the first layer's product."""

    def scores(self, users: Ints, context: Rows, items: Ints) -> Floats:
        """Log-odds [Q, N] of candidates [Q, N] for users [Q] in contexts [Q, C] (table rows)."""


class Ranker:
    """Scores candidates with one duplicate of every arm at one generation; safe to call from several threads."""

    pairs_at_once = 2_048
    """Query-candidate pairs to ask for in one call, where more are waiting: what it touches stays in the cache."""

    def __init__(
        self,
        schema: Schema,
        specs: list[str],
        model: ModelConfig,
        tensors: dict[str, Tensor],
        user_rows: Rows,
        item_rows: Rows,
        empty: Callable[[int, int], Tensor] = torch.empty,
    ) -> None:
        """`specs` of the A arms; tensors `embedding` [A, V, D], `dense` [A, P]; rows of users [U, Su], items [I, Si].
        `empty` makes the large tensors.

        Raises ValueError where a tensor has another shape than schema and model ask for, SettingError where
        `model.compile` is `on` and there is no compiler.
        """
        check_tensors(tensors, schema, model, len(specs))
        catalog = Catalog(schema, model, torch.from_numpy(user_rows), torch.from_numpy(item_rows))
        dense = [Layout(schema, model).views(tensors["dense"][arm : arm + 1]) for arm in range(len(specs))]
        with torch.inference_mode():
            parts = [Weights(catalog, tensors["embedding"][arm], weights, empty) for arm, weights in enumerate(dense)]
            self._scorers = [make_scorer(part, activation(spec)) for part, spec in zip(parts, specs, strict=True)]

    @property
    def compiled(self) -> bool:
        """Whether compiled kernels score: they round otherwise than PyTorch does."""
        return all(isinstance(scorer, NativeScorer) for scorer in self._scorers)

    def scores(self, arm: int, users: Ints, context: Rows, items: Ints) -> Floats:
        """Log-odds [Q, N] of candidates [Q, N] for users [Q] in contexts [Q, C] (table rows)."""
        return self._scorers[arm].scores(users, context, items)


def rankers() -> Callable[..., Ranker]:
    """What makes rankers, with the arguments of `Ranker`, one after the other in the memory of those that are gone."""
    memory = Recycled()
    build: Callable[..., Ranker] = partial(Ranker, empty=memory)

    def make(*arguments: object) -> Ranker:
        ranker = build(*arguments)
        memory.let_go()
        return ranker

    return make


class Catalog:
    """What all arms of a generation share."""

    def __init__(self, schema: Schema, model: ModelConfig, user_rows: Tensor, item_rows: Tensor) -> None:
        self.model, self.network, self.sides = model, Network(model), Sides(schema, model)
        self.user_rows, self.item_rows = user_rows.long(), item_rows.long()
        fields = [field for field in schema.fields if field.side != "item"]
        slots = torch.tensor([field.slots for field in fields], dtype=torch.int64)
        self.field_of_slot = torch.repeat_interleave(torch.arange(len(fields)), slots)
        """[S] of the slots of user and context."""
        self.context_slots = sum(field.slots for field in fields if field.side == "context")
        inputs = torch.tensor([field.side != "item" for field in schema.fields]).repeat_interleave(model.dim)
        self.query_inputs = inputs.nonzero().squeeze(1)
        """Inputs of the first layer that belong to user and context."""


class Weights:
    """One arm's."""

    def __init__(
        self, catalog: Catalog, table: Tensor, weights: dict[str, Tensor], empty: Callable[[int, int], Tensor]
    ) -> None:
        self.catalog, self.table, self.weights = catalog, table, weights
        self.first = catalog.network.weight(0, weights)[0]
        """[all fields x D, H] of the first layer."""
        self.items = empty(len(catalog.item_rows), self.first.shape[1])
        """[I, H] what each item adds to the first layer's product."""
        parts = (torch.split(each, FEW_ITEMS) for each in (catalog.item_rows, self.items))
        for rows, items in gently(zip(*parts, strict=True)):
            self.part("item", rows, items)

    def part(self, side: Side, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """[n, H] what the fields of one side, with table rows [n, slots], add to the first layer's product."""
        return self.catalog.sides.part(side, rows, self.table, self.first, out)


def make_scorer(weights: Weights, function: Activation) -> Scorer:
    """Compiled where `model.compile` and the machine allow it: the same for all duplicates of an arm."""
    catalog, w = weights.catalog, weights.weights
    formula = formula_of(function) if is_wanted(catalog.model.compile) else None
    if formula is None:
        return PlainScorer(weights, function)
    norm, network = catalog.model.norm, catalog.network
    gains = [w[f"gain{n}"][0] if norm in ("before", "after") else None for n in network.layers]
    layers = [(network.weight(n, w)[0], w[f"bias{n}"][0], gains[n]) for n in network.layers]
    query = weights.table, catalog.user_rows, catalog.field_of_slot, weights.first[catalog.query_inputs]
    output = w["weight_out"][0], w["bias_out"][0]
    return NativeScorer(formula, norm, layers, output, weights.items, query, catalog.context_slots)


class PlainScorer:
    """PyTorch alone."""

    def __init__(self, weights: Weights, function: Activation) -> None:
        self._weights, self._segments, self.items = weights, [(function, slice(0, 1))], weights.items

    def scores(self, users: Ints, context: Rows, items: Ints) -> Floats:
        """See Scorer."""
        weights, network = self._weights, self._weights.catalog.network
        # with more users, and more candidates, than anybody asked for
        users, context, candidates = _padded(users), _padded(context), _padded(items.T).T
        with torch.inference_mode():
            query = weights.part("user", weights.catalog.user_rows[torch.from_numpy(users)])
            query = query + weights.part("context", torch.from_numpy(context).long())
            chosen = torch.from_numpy(np.ascontiguousarray(candidates))
            product = weights.items.index_select(0, chosen.flatten()).view(*chosen.shape, -1)
            product.add_(query[: len(items)].unsqueeze(1))  # [Q, N, H]
            logits = network.forward_from(product.flatten(0, 1)[None], weights.weights, self._segments)
            scores: Floats = logits.view(chosen.shape)[:, : items.shape[1]].numpy()
            return scores


def _padded(rows: NDArray[Any]) -> NDArray[Any]:
    """Rows [n, ...] with others behind them, as many as ALIGNED and LEAST ask for."""
    more = max(LEAST, -(-len(rows) // ALIGNED) * ALIGNED) - len(rows)
    return np.concatenate([rows, np.repeat(rows[:1], more, 0)])
