"""The built-in click model once more, as a module of your own: a table per field, layers, layer norm after ReLU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from simulator.types import Schema


class Model(nn.Module):
    """Single-valued fields only."""

    def __init__(self, schema: Schema, dim: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.names = [field.name for field in schema.fields]
        self.tables = nn.ModuleList([nn.Embedding(field.size, dim, padding_idx=0) for field in schema.fields])
        widths = len(self.names) * dim, *hidden
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU(), nn.LayerNorm(fan_out, bias=False)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Log-odds [B]."""
        vectors = [table(features[name]) for name, table in zip(self.names, self.tables, strict=True)]
        logits: Tensor = self.layers(torch.cat(vectors, 1)).squeeze(1)
        return logits


def make(schema: Schema, dim: int = 16, hidden: str = "128x64x32") -> nn.Module:
    """Learns by Adagrad."""
    return Model(schema, dim, tuple(map(int, hidden.split("x"))))
