"""The built-in click model: embedding vectors of an event's fields, hidden layers, one output unit.

All dense parameters of a model stand in one flat row of floats (`Layout`), which both engines share: what one of them
learned the other can score. The embedding table is outside of the module: only the rows of a mini-batch are touched.

Shapes: m models, B events, D embedding length, F fields, S slots, V table rows, H width of a layer, P dense parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from simulator.config import ModelConfig
from simulator.models.activations import Activation
from simulator.models.engine import Engine, Weights, part_of
from simulator.randomness import generator
from simulator.types import Schema

EMBEDDING_SPREAD = 0.05
"""Standard deviation of initial embedding vectors."""
EPSILON = 1e-5
"""Added to the variance in layer norm, and to the squared length in weight norm."""
ALIGNED_ROWS, MIN_ROWS = 32, 64
"""How a matrix product of PyTorch rounds depends on its number of rows, on each processor in its own way. Where it is a
multiple of the first number, and at least the second, results are batch-invariant on all processors that were tried."""


def padding(rows: int) -> int:
    """Rows to add so that no row's rounding depends on how many are computed together (batch invariance)."""
    return max(MIN_ROWS, -(-rows // ALIGNED_ROWS) * ALIGNED_ROWS) - rows


def fetch(table: Tensor, rows: Tensor) -> Tensor:
    """Vectors [*, D] of a table's rows [*]."""
    return table.index_select(0, rows.flatten()).view(*rows.shape, table.shape[-1])


@dataclass(frozen=True)
class ParameterSlice:
    """Where one parameter tensor of a model stands in its flat row of dense parameters."""

    name: str
    shape: tuple[int, ...]
    start: int
    """First element; a multiple of 16 floats, so that every model's tensors are aligned alike and round alike."""
    spread: float
    """Standard deviation of its initial values."""
    centre: float = 0.0
    """Mean of its initial values."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class Layout:
    """The dense parameters of one model as one flat row of P floats: weights, biases, gains, and the output unit."""

    def __init__(self, schema: Schema, config: ModelConfig) -> None:
        self.parts: dict[str, ParameterSlice] = {}
        self.length = 0
        widths = (len(schema.fields) * config.dim, *config.hidden)
        for number, (fan_in, fan_out) in enumerate(zip(widths, widths[1:], strict=False)):
            self._add(f"weight{number}", (fan_in, fan_out), math.sqrt(2 / fan_in))  # He et al. 2015
            self._add(f"bias{number}", (fan_out,), 0.0)
            if config.norm != "none":
                self._add(f"gain{number}", (fan_out,), 0.0, centre=1.0)
        self._add("weight_out", (widths[-1], 1), math.sqrt(1 / widths[-1]))
        self._add("bias_out", (1,), 0.0)

    def _add(self, name: str, shape: tuple[int, ...], spread: float, centre: float = 0.0) -> None:
        self.parts[name] = part = ParameterSlice(name, shape, self.length, spread, centre)
        self.length += -(-part.size // 16) * 16

    @property
    def parameters(self) -> int:
        """Learned dense parameters of one model, without padding."""
        return sum(part.size for part in self.parts.values())

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """The tensors [*, *shape] inside flat rows [*, P], without copying; * may be no axis at all."""
        lead = flat.shape[:-1]
        return {p.name: flat[..., p.start : p.start + p.size].view(*lead, *p.shape) for p in self.parts.values()}

    def flat(self, tensors: Sequence[Tensor]) -> Tensor:
        """Flat rows [*, P] of the tensors [*, *shape], in the order of `parts`: what `views` takes apart, copied."""
        rows = []
        for part, values in zip(self.parts.values(), tensors, strict=True):
            row = values.flatten(values.dim() - len(part.shape))
            unused = -part.size % 16
            rows.append(functional.pad(row, (0, unused)) if unused else row)
        return torch.cat(rows, -1)

    def initial(self, draws: Callable[[str], np.random.Generator]) -> Tensor:
        """One model's flat row [P] of initial values; `draws` are those of a tensor, by its name."""
        row = torch.zeros(self.length)
        for part in self.parts.values():
            values = draws(part.name).standard_normal(part.size, dtype=np.float32) * part.spread + part.centre
            row[part.start : part.start + part.size] = torch.from_numpy(values)
        return row


def dense_parameters(schema: Schema, config: ModelConfig) -> int:
    """Learned parameters of one model, its embedding table aside."""
    return Layout(schema, config).parameters


class Pooling:
    """From slots to fields: single values pass, multi-valued fields are averaged over the slots in use."""

    def __init__(self, schema: Schema, dim: int) -> None:
        self.dim = dim
        self.spans = [(s.start, s.stop) for s in (schema.slot_range(f.name) for f in schema.fields)]
        self.single = all(stop - start == 1 for start, stop in self.spans)
        slots = torch.tensor([field.slots for field in schema.fields], dtype=torch.int64)  # also where there are none
        self.field_of_slot = torch.repeat_interleave(torch.arange(len(slots)), slots)

    def shares(self, rows: Tensor, dtype: torch.dtype = torch.float32) -> Tensor | None:
        """[..., S] the share of each slot in its field's average, 0 for padding; None where all fields are single."""
        if self.single:
            return None
        used = (rows != 0).to(dtype)
        for start, stop in self.spans:
            if stop - start > 1:
                used[..., start:stop] /= used[..., start:stop].sum(-1, keepdim=True).clamp_min(1)
        return used

    def forward(self, vectors: Tensor, shares: Tensor | None) -> Tensor:
        """Vectors [B, S, D] -> input of the first layer [B, F D]."""
        if shares is None:
            return vectors.flatten(1)
        pooled = [
            vectors[:, start]
            if stop - start == 1
            else torch.matmul(shares[:, None, start:stop], vectors[:, start:stop]).squeeze(1)
            for start, stop in self.spans
        ]
        return torch.cat(pooled, -1)


class ClickModel(nn.Module):
    """The hidden layers with normalisation `none`, `before`, `after` or `weight`, and the output unit."""

    def __init__(self, schema: Schema, config: ModelConfig, activation: Activation) -> None:
        super().__init__()
        self.norm, self.pooling = config.norm, Pooling(schema, config.dim)
        self.activation: Activation = activation
        self.layers = range(len(config.hidden))
        layout = Layout(schema, config)
        for name, values in layout.views(torch.zeros(layout.length)).items():
            self.register_parameter(name, nn.Parameter(values))

    def forward(self, vectors: Tensor, shares: Tensor | None) -> Tensor:
        """Embedding vectors [B, S, D], and each slot's share in its field's average, -> log-odds [B]."""
        x = self.pooling.forward(vectors, shares)
        for n in self.layers:
            x = self._shape(n, self._product(n, x))
        return self._output(x)

    def from_product(self, product: Tensor) -> Tensor:
        """Log-odds [B] from the first layer's product of inputs and weights [B, H], without its bias."""
        x = self._shape(0, product if self.norm == "before" else product + self.tensor("bias", 0))
        for n in self.layers[1:]:
            x = self._shape(n, self._product(n, x))
        return self._output(x)

    def weight(self, n: int) -> Tensor:
        """The matrix [fan in, H] of layer n that inputs are multiplied with."""
        weight = self.tensor("weight", n)
        if self.norm != "weight":
            return weight
        return weight * torch.rsqrt(weight.square().sum(0, keepdim=True) + EPSILON) * self.tensor("gain", n)

    def _product(self, n: int, x: Tensor) -> Tensor:
        """Layer n's product [B, H] with its bias, unless the norm stands between the two."""
        return x @ self.weight(n) if self.norm == "before" else torch.addmm(self.tensor("bias", n), x, self.weight(n))

    def _shape(self, n: int, product: Tensor) -> Tensor:
        """From what `_product` gives to the layer's output [B, H]."""
        if self.norm == "before":
            return self.activation(self._layer_norm(n, product) + self.tensor("bias", n))
        y = self.activation(product)
        return self._layer_norm(n, y) if self.norm == "after" else y

    def _layer_norm(self, n: int, x: Tensor) -> Tensor:
        gain = self.tensor("gain", n)
        return functional.layer_norm(x, gain.shape, gain, None, EPSILON)

    def tensor(self, name: str, n: int | str) -> Tensor:
        """The parameter `weight`, `bias` or `gain` of layer n, or of the output unit `_out`."""
        parameter: Tensor = getattr(self, f"{name}{n}")
        return parameter

    def _output(self, x: Tensor) -> Tensor:
        # not as a matrix product, which takes another way, and rounds otherwise, for some numbers of rows
        return (x * self.tensor("weight", "_out").squeeze(1)).sum(-1) + self.tensor("bias", "_out")


def check_shapes(tensors: Mapping[str, Tensor], schema: Schema, config: ModelConfig) -> None:
    """Raises ValueError where `table` [V, D] or `dense` [P] has another shape than schema and model ask for."""
    expected = {"table": (schema.rows, config.dim), "dense": (Layout(schema, config).length,)}
    for name, shape in expected.items():
        if name not in tensors or tuple(tensors[name].shape) != shape:
            shape_found = tuple(tensors[name].shape) if name in tensors else "missing"
            raise ValueError(f"{name}: {shape_found}, expected {shape}")


class BuiltInEngine(Engine):
    """All models of one arm: `dense` [M, P], the layout's flat rows, and `table` [M, V, D]."""

    @property
    def activation(self) -> Activation:
        """The arm's activation."""
        assert self.arm.activation
        return self.arm.activation

    def _allocate(self) -> Weights:
        self.layout = Layout(self.schema, self.model)
        shapes = {"dense": (self.layout.length,), "table": (self.schema.rows, self.model.dim)}
        self.squares = self._zeros({"dense": shapes["dense"], "table": shapes["table"][:1]})
        """Adagrad's sums of squares, dense [M, P] and one for each table row [M, V]."""
        return self._zeros(shapes)

    def _zeros(self, shapes: dict[str, tuple[int, ...]]) -> Weights:
        sizes = {name: (len(self), *shape) for name, shape in shapes.items()}
        return Weights({name: torch.zeros(s, dtype=self.dtype, device=self.device) for name, s in sizes.items()})

    def initialise(self, anew: int = 0) -> None:
        """See Engine."""
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
        """See Engine."""
        return (self.schema.rows - 1) * self.model.dim + self.layout.parameters

    def _optimiser(self) -> dict[str, Tensor]:
        return self.squares.named("squares")

    def _restore_optimiser(self, state: dict[str, Tensor]) -> None:
        self.squares.copy_(part_of(state, "squares"))


def _draws(seed: int, index: tuple[int, ...], name: str) -> np.random.Generator:
    """The generator of the initial values of a tensor."""
    return generator(seed, f"init {name}", *index)
