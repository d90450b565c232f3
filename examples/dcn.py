"""DCN-v2: layers that multiply their input with that of the first (cross), beside an MLP (deep).

Wang et al., DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to Rank Systems,
arXiv 2008.13535; the two in parallel, with full matrices: x_(l+1) = x_0 * (W_l x_l + b_l) + x_l.

Shapes: B events, F fields, D `dim`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simulator.types import Schema


class DCN(nn.Module):
    """Embeddings, cross network, deep network, and a layer over both."""

    def __init__(self, schema: Schema, dim: int, crosses: int, hidden: int) -> None:
        super().__init__()
        width = len(schema.fields) * dim
        self.names = [field.name for field in schema.fields]
        tables = [nn.Embedding(field.size, dim, padding_idx=0) for field in schema.fields]
        deep = [nn.Linear(width, hidden), nn.Linear(hidden, hidden)]
        self.tables, self.deep = nn.ModuleList(tables), nn.ModuleList(deep)
        self.norms = nn.ModuleList([nn.LayerNorm(hidden) for _ in deep])
        self.crosses = nn.ModuleList([nn.Linear(width, width) for _ in range(crosses)])
        self.last = nn.Linear(width + hidden, 1)
        for table in tables:
            table.weight.data *= 0.05  # of a standard deviation of 1; that of padding stays 0
        for layer in deep:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # He et al., arXiv 1502.01852

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Logits [B]."""
        pooled = [pool(table, features[name]) for name, table in zip(self.names, self.tables, strict=True)]
        first = crossed = deep = torch.cat(pooled, dim=1)  # [B, F D]
        for cross in self.crosses:
            crossed = first * cross(crossed) + crossed
        for layer, norm in zip(self.deep, self.norms, strict=True):
            deep = F.relu(norm(layer(deep)))
        logits: Tensor = self.last(torch.cat([crossed, deep], dim=1))
        return logits.squeeze(1)


def pool(table: nn.Module, ids: Tensor) -> Tensor:
    """Ids [B] or [B, slots] -> [B, D]: the mean over the values, padding left out."""
    ids = ids.reshape(len(ids), -1)
    mean: Tensor = table(ids).sum(dim=1) / (ids != 0).sum(dim=1, keepdim=True).clamp(min=1)
    return mean


def make(schema: Schema, dim: int = 16, crosses: int = 2, hidden: int = 128) -> nn.Module:
    """The factory that an arm names: `torch:examples.dcn:make,crosses=3`."""
    return DCN(schema, dim, crosses, hidden)
