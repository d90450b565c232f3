"""Two towers: one vector for user and context, one for the item; their dot product is the logit.

Covington et al., Deep Neural Networks for YouTube Recommendations, RecSys 2016. Each tower is an MLP with ReLU.

Shapes: B events, D `dim`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from simulator.types import Field, Schema


class Tower(nn.Module):
    """The fields of one side as one vector."""

    def __init__(self, fields: list[Field], dim: int, hidden: int) -> None:
        super().__init__()
        self.names = [field.name for field in fields]
        self.tables = nn.ModuleList([nn.Embedding(field.size, dim, padding_idx=0) for field in fields])
        self.mlp = nn.Sequential(
            nn.Linear(len(fields) * dim, hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(),
            nn.Linear(hidden, dim),
        )

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Ids of all fields, by name -> [B, D]."""
        vectors = [pool(table, features[name]) for name, table in zip(self.names, self.tables, strict=True)]
        vector: Tensor = self.mlp(torch.cat(vectors, dim=1))
        return vector


class TwoTower(nn.Module):
    """Both towers and a bias."""

    def __init__(self, schema: Schema, dim: int, hidden: int) -> None:
        super().__init__()
        self.query = Tower([field for field in schema.fields if field.side != "item"], dim, hidden)
        self.item = Tower([field for field in schema.fields if field.side == "item"], dim, hidden)
        self.bias = nn.Parameter(torch.zeros(()))
        self.scale: float = dim**-0.5
        self.apply(initialise)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Logits [B]."""
        products: Tensor = (self.query(features) * self.item(features)).sum(dim=1)
        return products * self.scale + self.bias


def initialise(layer: nn.Module) -> None:
    """Small embeddings, that of padding stays 0; layers as by He et al., arXiv 1502.01852."""
    if isinstance(layer, nn.Embedding):
        layer.weight.data *= 0.05  # of a standard deviation of 1
    elif isinstance(layer, nn.Linear):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)


def pool(table: nn.Module, ids: Tensor) -> Tensor:
    """Ids [B] or [B, slots] -> [B, D]: the mean over the values, padding left out."""
    ids = ids.reshape(len(ids), -1)
    mean: Tensor = table(ids).sum(dim=1) / (ids != 0).sum(dim=1, keepdim=True).clamp(min=1)
    return mean


def make(schema: Schema, dim: int = 16, hidden: int = 64) -> nn.Module:
    """The factory that an arm names: `torch:examples.two_tower:make,hidden=128`."""
    return TwoTower(schema, dim, hidden)
