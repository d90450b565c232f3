"""Modules of a user's that the tests bring: odd in every way that is allowed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from simulator.types import Schema


class Odd(nn.Module):
    """Dropout, tied weights, two buffers (one of whole numbers, one put anew), a frozen part, an `if` on data."""

    running: Tensor
    calls: Tensor

    def __init__(self, schema: Schema, width: int, dropout: float) -> None:
        super().__init__()
        self.fields = schema.fields
        self.tables = nn.ModuleDict({f.name: nn.Embedding(f.size, width, padding_idx=0) for f in schema.fields})
        self.first = nn.Linear(width, width)
        self.again = nn.Linear(width, width)
        self.again.weight = self.first.weight
        self.frozen = nn.Linear(width, width).requires_grad_(False)
        self.dropout = nn.Dropout(dropout)
        self.act = nn.ReLU()
        self.out = nn.Linear(width, 1)
        self.register_buffer("running", torch.zeros(width))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Log-odds [B]."""
        vectors = [self.tables[f.name](features[f.name]) for f in self.fields]
        x = sum(v if v.dim() == 2 else v.sum(1) for v in vectors)
        if self.training:
            self.running = 0.9 * self.running + 0.1 * x.detach().mean(0)
            self.calls += 1
        x = self.act(self.first(x - self.running))
        x = self.dropout(x) + torch.tanh(self.frozen(x))
        if x.mean() > 1e6:  # data-dependent: torch.fx and vmap refuse it
            x = x / 2
        x = functional.relu(self.again(x))
        return self.out(x).squeeze(1)


def make(schema: Schema, width: int = 6, dropout: float = 0.2) -> tuple[nn.Module, torch.optim.Optimizer]:
    """With an optimiser of its own, which leaves out what is frozen."""
    module = Odd(schema, width, dropout)
    trained = [each for each in module.parameters() if each.requires_grad]
    return module, torch.optim.AdamW(trained, lr=0.02)


class Plain(nn.Module):
    """Embeddings, a layer, ReLU, a layer; nothing odd, no optimiser."""

    def __init__(self, schema: Schema, width: int) -> None:
        super().__init__()
        self.fields = schema.fields
        self.tables = nn.ModuleDict({f.name: nn.Embedding(f.size, width, padding_idx=0) for f in schema.fields})
        self.layers = nn.Sequential(nn.Linear(width * len(schema.fields), 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Log-odds [B]."""
        vectors = [self.tables[f.name](features[f.name]) for f in self.fields]
        x = torch.cat([v if v.dim() == 2 else v.mean(1) for v in vectors], 1)
        found: Tensor = self.layers(x).squeeze(1)
        return found


def plain(schema: Schema, width: int = 5) -> nn.Module:
    """Learns by Adagrad."""
    return Plain(schema, width)
