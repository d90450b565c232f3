"""DLRM: dot products between the embeddings of every two fields, and an MLP on top of them.

Naumov et al., Deep Learning Recommendation Model for Personalization and Recommendation Systems, arXiv 1906.00091.
All fields are categories, so there is no bottom MLP for numbers; the embeddings themselves stand beside the products
in place of its output.

Shapes: B events, F fields, D `dim`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from simulator.types import Schema


class DLRM(nn.Module):
    """Embeddings, their products, top MLP."""

    pairs: Tensor
    """[2, F (F - 1) / 2] which fields are multiplied."""

    def __init__(self, schema: Schema, dim: int, hidden: int) -> None:
        super().__init__()
        fields = len(schema.fields)
        self.names = [field.name for field in schema.fields]
        self.tables = nn.ModuleList([nn.Embedding(field.size, dim, padding_idx=0) for field in schema.fields])
        self.register_buffer("pairs", torch.triu_indices(fields, fields, offset=1))
        self.top = nn.Sequential(
            nn.Linear(fields * dim + self.pairs.shape[1], hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden // 2),
            nn.LayerNorm(hidden // 2),
            nn.ReLU(),
            nn.Linear(hidden // 2, 1),
        )
        self.apply(initialise)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Logits [B]."""
        pooled = [pool(table, features[name]) for name, table in zip(self.names, self.tables, strict=True)]
        vectors = torch.stack(pooled, dim=1)  # [B, F, D]
        products = (vectors @ vectors.mT)[:, self.pairs[0], self.pairs[1]]
        logits: Tensor = self.top(torch.cat([vectors.flatten(1), products], dim=1))
        return logits.squeeze(1)


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


def make(schema: Schema, dim: int = 16, hidden: int = 128) -> nn.Module:
    """The factory that an arm names: `torch:examples.dlrm:make,hidden=256`."""
    return DLRM(schema, dim, hidden)
