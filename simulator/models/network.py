"""The deep click model's arithmetic for several models at once, forward and backward, written by hand.

A *slab* is a contiguous run of m models of the stack. On a CPU slabs of one model are fastest, since all that a
mini-batch touches stays in the cache; on a GPU the whole stack is one slab.

Shapes: m models, B events, D embedding length, F fields, S slots, H width of a layer, P dense parameters of a model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from simulator.config import ModelConfig
from simulator.models.activations import Activation
from simulator.types import Schema

EPSILON = 1e-5
"""Added to the variance in layer norm, and to the squared length in weight norm."""


@dataclass(frozen=True)
class Part:
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
        self.parts: dict[str, Part] = {}
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
        self.parts[name] = part = Part(name, shape, self.length, spread, centre)
        self.length += -(-part.size // 16) * 16

    @property
    def parameters(self) -> int:
        """Learned dense parameters of one model, without padding."""
        return sum(part.size for part in self.parts.values())

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """The tensors [m, *shape] inside flat rows [m, P], without copying."""
        return {p.name: flat[:, p.start : p.start + p.size].view(-1, *p.shape) for p in self.parts.values()}

    def initial(self, draws: np.random.Generator) -> Tensor:
        """One model's flat row [P] of initial values."""
        row = torch.zeros(self.length)
        for part in self.parts.values():
            values = draws.standard_normal(part.size, dtype=np.float32) * part.spread + part.centre
            row[part.start : part.start + part.size] = torch.from_numpy(values)
        return row


class Pooling:
    """From slots to fields: single values pass, multi-valued fields are averaged over the slots in use."""

    def __init__(self, schema: Schema, dim: int) -> None:
        self.dim = dim
        self.spans = [(s.start, s.stop) for s in (schema.slot_range(f.name) for f in schema.fields)]
        self.single = all(stop - start == 1 for start, stop in self.spans)
        widths = torch.tensor(
            [stop - start for start, stop in self.spans], dtype=torch.int64
        )  # also where there are none
        self.field_of_slot = torch.repeat_interleave(torch.arange(len(widths)), widths)

    def weights(self, rows: Tensor) -> Tensor | None:
        """[..., S] the share of each slot in its field's average, 0 for padding; None where all fields are single."""
        if self.single:
            return None
        used = (rows != 0).to(torch.float32)
        for start, stop in self.spans:
            if stop - start > 1:
                used[..., start:stop] /= used[..., start:stop].sum(-1, keepdim=True).clamp_min(1)
        return used

    def forward(self, vectors: Tensor, weights: Tensor | None) -> Tensor:
        """Vectors [m, B, S, D] -> input of the first layer [m, B, F D]."""
        if weights is None:
            return vectors.flatten(2)
        pooled = [
            vectors[:, :, start]
            if stop - start == 1
            else torch.matmul(weights[:, :, None, start:stop], vectors[:, :, start:stop]).squeeze(2)
            for start, stop in self.spans
        ]
        return torch.cat(pooled, -1)

    def backward(self, grad: Tensor, weights: Tensor | None) -> Tensor:
        """Gradient of the input [m, B, F D] -> gradient of each slot's vector [m, B, S, D]."""
        by_field = grad.reshape(*grad.shape[:2], -1, self.dim)
        if weights is None:
            return by_field
        return by_field.index_select(2, self.field_of_slot.to(grad.device)) * weights[..., None]


Segments = list[tuple[Activation, slice]]
"""Which activation serves which models of a slab: contiguous slices, in order."""


Tape = list[tuple[Tensor, ...]]
"""What the forward pass keeps for the backward pass, a tuple per layer."""


class Network:
    """Forward and backward pass of a slab of models with normalisation `none`, `before`, `after` or `weight`."""

    def __init__(self, config: ModelConfig) -> None:
        self.norm = config.norm
        self.layers = range(len(config.hidden))

    def forward(self, x: Tensor, w: dict[str, Tensor], segments: Segments) -> tuple[Tensor, Tape]:
        """Inputs [m, B, F D] -> log-odds [m, B], and a tape for `backward`."""
        tape: Tape = []
        for n in self.layers:
            x = self._layer(n, x, w, segments, tape)
        tape.append((x,))
        return self._output(x, w), tape

    def forward_from(self, product: Tensor, w: dict[str, Tensor], segments: Segments) -> Tensor:
        """Log-odds [m, B] from the first layer's product of inputs and weights [m, B, H], without its bias."""
        x = self._shape(0, self._biased(0, product, w), w, segments)[0]
        for n in self.layers[1:]:
            x = self._layer(n, x, w, segments, [])
        return self._output(x, w)

    def weight(self, n: int, w: dict[str, Tensor]) -> Tensor:
        """The matrix [m, fan in, H] of layer n that inputs are multiplied with."""
        weight = w[f"weight{n}"]
        return weight * _inverse_length(weight) * w[f"gain{n}"].unsqueeze(1) if self.norm == "weight" else weight

    def _layer(self, n: int, x: Tensor, w: dict[str, Tensor], segments: Segments, tape: Tape) -> Tensor:
        """Layer n's output [m, B, H]; writes down on the tape what the backward pass needs."""
        weight = self.weight(n, w)
        y, *kept = self._shape(n, self._product(n, x, weight, w), w, segments)
        tape.append((x, weight, *kept))
        return y

    def _product(self, n: int, x: Tensor, weight: Tensor, w: dict[str, Tensor]) -> Tensor:
        """What `_shape` starts from: x @ weight [m, B, H], with the bias unless that comes later."""
        if self.norm == "before":
            return torch.bmm(x, weight)
        return torch.baddbmm(w[f"bias{n}"].unsqueeze(1), x, weight)

    def _biased(self, n: int, product: Tensor, w: dict[str, Tensor]) -> Tensor:
        """The same, from the bare product."""
        return product if self.norm == "before" else product + w[f"bias{n}"].unsqueeze(1)

    def _shape(self, n: int, product: Tensor, w: dict[str, Tensor], segments: Segments) -> tuple[Tensor, ...]:
        """From a layer's product [m, B, H] (with its bias, but for `before`) to its output, and what the tape keeps."""
        if self.norm == "before":
            normed, mean, scale = layer_norm(product, w[f"gain{n}"])
            return *_activate(segments, normed.add_(w[f"bias{n}"].unsqueeze(1))), product, mean, scale
        y, saved = _activate(segments, product)
        if self.norm == "after":
            normed, mean, scale = layer_norm(y, w[f"gain{n}"])
            return normed, saved, y, mean, scale
        return y, saved

    def _output(self, x: Tensor, w: dict[str, Tensor]) -> Tensor:
        # not as a matrix product, which takes another way, and rounds otherwise, for some numbers of rows
        return (x * w["weight_out"].transpose(1, 2)).sum(-1) + w["bias_out"]

    def backward(
        self, grad: Tensor, w: dict[str, Tensor], tape: Tape, segments: Segments, g: dict[str, Tensor]
    ) -> Tensor:
        """Gradient of the log-odds [m, B] -> gradient of the inputs [m, B, F D]; fills the gradients g of w."""
        back = self._output_backward(tape[-1][0], grad, w, g)
        for n in reversed(self.layers):
            x, weight, *kept = tape[n]
            back = self._shape_backward(n, back, w, kept, segments, g)
            torch.bmm(x.transpose(1, 2), back, out=g[f"weight{n}"])
            if self.norm == "weight":
                _weight_norm_backward(w[f"weight{n}"], w[f"gain{n}"], g[f"weight{n}"], g[f"gain{n}"])
            back = torch.bmm(back, weight.transpose(1, 2))
        return back

    def _output_backward(self, x: Tensor, grad: Tensor, w: dict[str, Tensor], g: dict[str, Tensor]) -> Tensor:
        """Gradient of the log-odds [m, B] -> gradient of the output unit's inputs [m, B, H]; fills those of w."""
        column = grad.unsqueeze(-1)
        torch.bmm(x.transpose(1, 2), column, out=g["weight_out"])
        torch.sum(grad, 1, keepdim=True, out=g["bias_out"])
        # no product of matrices: for one with a single column PyTorch 2.13 compiles a Triton kernel on a GPU, and fails
        # where there is no C compiler
        return column * w["weight_out"].transpose(1, 2)

    def _shape_backward(
        self, n: int, back: Tensor, w: dict[str, Tensor], kept: list[Tensor], segments: Segments, g: dict[str, Tensor]
    ) -> Tensor:
        """Gradient of layer n's output [m, B, H] -> gradient of its product; fills those of bias and gain."""
        saved, *normed = kept
        if self.norm == "after":
            back = layer_norm_backward(back, normed, w[f"gain{n}"], g[f"gain{n}"])
        back = _activate_backward(segments, saved, back)
        torch.sum(back, 1, out=g[f"bias{n}"])
        if self.norm == "before":
            back = layer_norm_backward(back, normed, w[f"gain{n}"], g[f"gain{n}"])
        return back


def layer_norm(x: Tensor, gain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Layer norm over the last axis of [m, B, H] with a gain [m, H] per model -> (y, mean, 1 / standard deviation)."""
    width = [x.shape[-1]]
    if len(x) == 1:  # PyTorch's fused kernel takes one gain: the case of a CPU slab
        y, mean, scale = torch.native_layer_norm(x, width, gain[0], None, EPSILON)
        return y, mean, scale
    y, mean, scale = torch.native_layer_norm(x, width, None, None, EPSILON)
    return y.mul_(gain.unsqueeze(1)), mean, scale


def layer_norm_backward(grad: Tensor, taped: Sequence[Tensor], gain: Tensor, gain_grad: Tensor) -> Tensor:
    """Gradient of `layer_norm`'s input, taped = (input, mean, 1 / standard deviation); fills gain_grad [m, H]."""
    x, mean, scale = taped
    backward, width = torch.ops.aten.native_layer_norm_backward, [x.shape[-1]]
    result: Tensor
    if len(x) == 1:
        result, gain_row, _ = backward(grad, x, width, mean, scale, gain[0], None, [True, True, False])
        gain_grad[0] = gain_row
        return result
    torch.sum(grad * ((x - mean) * scale), 1, out=gain_grad)
    result, _, _ = backward(grad * gain.unsqueeze(1), x, width, mean, scale, None, None, [True, False, False])
    return result


def _inverse_length(weight: Tensor) -> Tensor:
    """1 / length of each neuron's incoming weights, [m, 1, H]."""
    return torch.rsqrt(weight.square().sum(1, keepdim=True) + EPSILON)


def _weight_norm_backward(weight: Tensor, gain: Tensor, weight_grad: Tensor, gain_grad: Tensor) -> None:
    """Turn the gradient of gain * weight / length (in weight_grad) into those of weight and gain, in place."""
    inverse = _inverse_length(weight)
    unit = weight * inverse
    along = (weight_grad * unit).sum(1, keepdim=True)
    gain_grad.copy_(along.squeeze(1))
    weight_grad.sub_(unit * along).mul_(inverse * gain.unsqueeze(1))


def _activate(segments: Segments, x: Tensor) -> tuple[Tensor, Tensor]:
    if len(segments) == 1:
        return segments[0][0].forward(x)
    pairs = [function.forward(x[part]) for function, part in segments]
    return torch.cat([y for y, _ in pairs]), torch.cat([saved for _, saved in pairs])


def _activate_backward(segments: Segments, saved: Tensor, grad: Tensor) -> Tensor:
    if len(segments) == 1:
        return segments[0][0].backward(saved, grad)
    return torch.cat([function.backward(saved[part], grad[part]) for function, part in segments])
