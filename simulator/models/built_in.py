"""The duplicates of the built-in click model: what its two engines share. Both learn by Adagrad, row-wise in the table.

Shapes as in duplicates.py.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from simulator.models.activations import Activation
from simulator.models.click_model import Layout
from simulator.models.duplicates import Duplicates, Weights, part_of
from simulator.randomness import generator

EMBEDDING_SPREAD = 0.05
"""Standard deviation of initial embedding vectors."""


class BuiltIn(Duplicates):
    """All models of one arm: `dense` [M, P], the layout's flat rows, and `table` [M, V, D]."""

    @property
    def activation(self) -> Activation:
        """The arm's activation."""
        assert self.arm.activation
        return self.arm.activation

    def _allocate(self) -> Weights:
        """See Duplicates."""
        self.layout = Layout(self.schema, self.model)
        shapes = {"dense": (self.layout.length,), "table": (self.schema.rows, self.model.dim)}
        self.squares = self._zeros({"dense": shapes["dense"], "table": shapes["table"][:1]})
        """Adagrad's sums of squares, dense [M, P] and one for each table row [M, V]."""
        return self._zeros(shapes)

    def _zeros(self, shapes: dict[str, tuple[int, ...]]) -> Weights:
        sizes = {name: (len(self), *shape) for name, shape in shapes.items()}
        return Weights({name: torch.zeros(s, dtype=self.dtype, device=self.device) for name, s in sizes.items()})

    def initialise(self, anew: int = 0) -> None:
        """See Duplicates."""
        first: dict[tuple[int, ...], int] = {}
        for number, member in enumerate(self.members):
            index = (member.copy, member.fleet, *([member.duplicate] if self.noise.config.init == "own" else []))
            source = first.setdefault((*index, member.part), number)
            if source != number:
                self.weights[number].copy_(self.weights[source])
                continue
            further = (member.part, anew) if member.part or anew else ()
            # every tensor has draws of its own: arms of different shape or norm start alike where their shapes agree
            draws = partial(_draws, self._seed, (*index, *further))
            self.weights.dense[number] = self.layout.initial(draws)
            table = draws("table").standard_normal(self.weights.table.shape[1:], dtype="float32")
            self.weights.table[number] = torch.from_numpy(table) * EMBEDDING_SPREAD
        self.weights.table[:, 0] = 0
        self.squares.dense.fill_(self.model.initial_accumulator)
        self.squares.table.fill_(self.model.initial_accumulator)
        if self.noise.config.precision == "bfloat16":
            for tensor in self.weights.tensors.values():
                tensor.copy_(tensor.bfloat16())

    @property
    def parameters(self) -> int:
        """See Duplicates."""
        return (self.schema.rows - 1) * self.model.dim + self.layout.parameters

    def _optimiser(self) -> dict[str, Tensor]:
        """See Duplicates."""
        return self.squares.named("squares")

    def _restore_optimiser(self, state: dict[str, Tensor]) -> None:
        """See Duplicates."""
        self.squares.copy_(part_of(state, "squares"))


def _draws(seed: int, index: tuple[int, ...], name: str) -> np.random.Generator:
    """The generator of the initial values of a tensor."""
    return generator(seed, f"init {name}", *index)
