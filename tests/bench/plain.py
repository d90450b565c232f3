"""What engines are compared with: the same click models the usual way, PyTorch modules learning one after another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from simulator.config import ModelConfig
from simulator.models.click_model import EPSILON
from simulator.models.engine import Engine
from simulator.types import Schema


class PlainModel(nn.Module):
    """A click model of single-valued fields with ReLU, and layer norm after it."""

    def __init__(self, schema: Schema, config: ModelConfig) -> None:
        super().__init__()
        assert config.norm == "after" and schema.slots == len(schema.fields)
        self.embedding = nn.Embedding(schema.rows, config.dim, padding_idx=0, sparse=True)
        widths = schema.slots * config.dim, *config.hidden
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU(), nn.LayerNorm(fan_out, EPSILON, bias=False)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, rows: Tensor) -> Tensor:
        """Log-odds [B] of events with table rows [B, S]."""
        logits: Tensor = self.layers(self.embedding(rows).flatten(1)).squeeze(1)
        return logits


class PlainLearner:
    """Teaches one model by Adagrad, sparse for the embedding."""

    def __init__(self, model: PlainModel, config: ModelConfig, fused: bool = False) -> None:
        """`fused`: PyTorch's faster Adagrad for the dense parameters; it knows no sparse gradients."""
        torch.sparse.check_sparse_tensor_invariants.disable()  # type: ignore[no-untyped-call] # or sparse Adagrad warns
        rate, start = config.learning_rate, config.initial_accumulator
        self.model, self.batch, self.loss = model, config.batch, nn.BCEWithLogitsLoss()
        self.optimizers = [
            torch.optim.Adagrad(model.embedding.parameters(), lr=rate, initial_accumulator_value=start),
            torch.optim.Adagrad(model.layers.parameters(), lr=rate, initial_accumulator_value=start, fused=fused),
        ]

    def learn(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Learn events with rows [n, S] and labels [n] in their order; the log-odds [n] given to each just before."""
        parts = []
        for start in range(0, len(labels), self.batch):
            logits = self.model(rows[start : start + self.batch])
            loss = self.loss(logits, labels[start : start + self.batch])
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in self.optimizers:
                optimizer.step()
            parts.append(logits.detach())
        return torch.cat(parts)


@torch.no_grad()
def plain_copies(engine: Engine) -> list[PlainModel]:
    """Each model of an engine again, with its weights."""
    models = [PlainModel(engine.schema, engine.model) for _ in engine.members]
    for number, model in enumerate(models):
        weights = engine.weights[number]
        model.embedding.weight.copy_(weights.table)
        parts = engine.layout.views(weights.dense).values()
        for parameter, part in zip(model.layers.parameters(), parts, strict=True):  # both go layer by layer
            parameter.copy_(part.T if part.dim() == 2 else part)  # weights are transposed
    return models
