"""The first layer's product as a sum over user, item and context: the part of it that each side decides.

Shapes: A arms, V table rows, D embedding length, P dense parameters, H width of the first hidden layer, n rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from simulator.config import ModelConfig
from simulator.models.network import Layout, Pooling
from simulator.types import Schema, Side


class Sides:
    """Where the fields of the user, the item and the context stand in the first layer."""

    def __init__(self, schema: Schema, model: ModelConfig) -> None:
        self._of: dict[Side, tuple[slice, Pooling]] = {}
        for side in ("user", "item", "context"):
            positions = [number for number, field in enumerate(schema.fields) if field.side == side]
            start = positions[0] if positions else 0
            inputs = slice(start * model.dim, (start + len(positions)) * model.dim)
            fields = tuple(field for field in schema.fields if field.side == side)
            self._of[side] = inputs, Pooling(Schema(fields), model.dim)

    def part(self, side: Side, rows: Tensor, table: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
        """[n, H] what the fields of one side, with table rows [n, slots], add to the first layer's product.

        table [V, D]; weight [all fields x D, H] of the first layer; `out` [n, H] takes the result.
        """
        inputs, pooling = self._of[side]
        vectors = table.index_select(0, rows.flatten()).view(1, *rows.shape, table.shape[1])
        return torch.mm(pooling.forward(vectors, pooling.weights(rows[None]))[0], weight[inputs], out=out)


def check_tensors(tensors: dict[str, Tensor], schema: Schema, model: ModelConfig, arms: int) -> None:
    """Raises ValueError where `embedding` or `dense` has another shape than schema and model ask for."""
    expected = {"embedding": (arms, schema.rows, model.dim), "dense": (arms, Layout(schema, model).length)}
    for name, shape in expected.items():
        if name not in tensors or tuple(tensors[name].shape) != shape:
            found = tuple(tensors[name].shape) if name in tensors else "missing"
            raise ValueError(f"{name}: {found}, expected {shape}")
