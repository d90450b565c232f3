"""A duplicate of every arm, ready to serve: the part of the first layer that only the item decides is computed once.

The first layer's product is a sum over fields: user and context give one row per query, the item another that is the
same for all queries of a snapshot. Scores are those of `Duplicates.logits`, but for sums in another order.

Shapes: A arms, V table rows, D embedding length, P dense parameters, U users, I items, Q queries, N candidates,
C context slots, H width of the first hidden layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from simulator.config import ModelConfig
from simulator.recommender.activations import activation
from simulator.recommender.network import Layout, Network, Pooling, Segments
from simulator.types import Floats, Ints, Rows, Schema, Side

ITEMS_PER_PASS = 8_192
"""Items whose part is computed at once."""


class Ranker:
    """Scores candidates with one duplicate of every arm at one generation; safe to call from several threads."""

    def __init__(
        self,
        schema: Schema,
        specs: list[str],
        model: ModelConfig,
        tensors: dict[str, Tensor],
        user_rows: Rows,
        item_rows: Rows,
    ) -> None:
        """`specs` of the A arms; tensors `embedding` [A, V, D], `dense` [A, P]; rows of users [U, Su], items [I, Si].

        Raises ValueError where a tensor has another shape than schema and model ask for.
        """
        self.layout, self.network = Layout(schema, model), Network(model)
        expected = {
            "embedding": (len(specs), schema.rows, model.dim),
            "dense": (len(specs), self.layout.length),
        }
        for name, shape in expected.items():
            if name not in tensors or tuple(tensors[name].shape) != shape:
                found = tuple(tensors[name].shape) if name in tensors else "missing"
                raise ValueError(f"{name}: {found}, expected {shape}")
        self._embedding = tensors["embedding"]
        self._weights = [self.layout.views(tensors["dense"][arm : arm + 1]) for arm in range(len(specs))]
        self._segments: list[Segments] = [[(activation(spec), slice(0, 1))] for spec in specs]
        self._sides = {side: _Side(schema, model, side) for side in ("user", "item", "context")}
        self._user_rows, self._item_rows = torch.from_numpy(user_rows).long(), torch.from_numpy(item_rows).long()
        self._items = [self._item_part(arm) for arm in range(len(specs))]

    def scores(self, arm: int, users: Ints, context: Rows, items: Ints) -> Floats:
        """Log-odds [Q, N] of candidates [Q, N] for users [Q] in contexts [Q, C] (table rows)."""
        with torch.inference_mode():
            query = self._part(arm, "user", self._user_rows[torch.from_numpy(users)])
            query = query + self._part(arm, "context", torch.from_numpy(context).long())
            product = self._items[arm][torch.from_numpy(items)] + query.unsqueeze(1)  # [Q, N, H]
            logits = self.network.forward_from(product.flatten(0, 1)[None], self._weights[arm], self._segments[arm])
            scores: Floats = logits.view(items.shape).numpy()
            return scores

    def _item_part(self, arm: int) -> Tensor:
        """[I, H] what each item adds to the first layer's product."""
        with torch.inference_mode():
            return torch.cat([self._part(arm, "item", rows) for rows in torch.split(self._item_rows, ITEMS_PER_PASS)])

    def _part(self, arm: int, side: Side, rows: Tensor) -> Tensor:
        """[n, H] what the fields of one side, with table rows [n, slots], add to the first layer's product."""
        which = self._sides[side]
        weight = self.network.weight(0, self._weights[arm])[0, which.inputs]
        table = self._embedding[arm]
        vectors = table.index_select(0, rows.flatten()).view(1, *rows.shape, table.shape[1])
        return which.pooling.forward(vectors, which.pooling.weights(rows[None]))[0] @ weight


class _Side:
    """Where the fields of the user, the item or the context stand in the first layer."""

    def __init__(self, schema: Schema, model: ModelConfig, side: Side) -> None:
        positions = [number for number, field in enumerate(schema.fields) if field.side == side]
        start = positions[0] if positions else 0
        self.inputs = slice(start * model.dim, (start + len(positions)) * model.dim)
        self.pooling = Pooling(Schema(tuple(field for field in schema.fields if field.side == side)), model.dim)
