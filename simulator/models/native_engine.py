"""The engine of compiled kernels: the built-in click model on a CPU, a chunk of a model in one call, without Python's
global lock while it runs.

It knows the activations of KINDS, no weight norm, no delayed gradients, no bfloat16: `refusal` says what an arm asks
that it cannot. Here alone threads may race (`noise.racing`): a call on one mini-batch is what each of them does.
Everything else is as in engine.py.

Tensors are contiguous and on the CPU, float32 where nothing else is said.

Shapes: n events of a chunk, B of a mini-batch, S slots, D embedding length, V table rows, P dense parameters, H width
of a layer, I items, U users, Q queries, N candidates, C context slots.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from ctypes import CDLL, Array, Structure, addressof, byref, c_float, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from simulator.config import ModelConfig, NoiseConfig
from simulator.models.activations import Activation
from simulator.models.click_model import BuiltInEngine, Layout
from simulator.models.engine import Chunk, EngineName, Weights
from simulator.models.specs import Arm
from simulator.native.loader import NativeMissing, library
from simulator.types import Floats, Ints, Rows, Schema

PYTORCH = "libtorch_cpu.so", "libtorch_cpu.dylib"
NORMS = {"none": 0, "before": 1, "after": 2}
"""Their numbers in layers.hpp."""
KINDS = {"linear": 0, "relu": 1, "smelu": 2, "gsmelu": 3, "gelu": 4, "swish": 5, "softplus": 6}
"""Activations by name -> their numbers in layers.hpp."""


@dataclass(frozen=True)
class Kernel:
    """An activation as the kernels know it."""

    kind: int
    constants: Array[c_float]
    """[5] Its parameters in activations.hpp."""

    @property
    def address(self) -> int:
        """Address of the constants: valid as long as this object lives."""
        return addressof(self.constants)


def kernel_of(activation: Activation) -> Kernel | None:
    """An activation's kernel, by its name and parameters; None where there is none."""
    if activation.name not in KINDS:
        return None
    kind, p = KINDS[activation.name], activation.parameters
    constants: tuple[float, ...] = ()
    if activation.name in ("swish", "softplus"):
        constants = (p["beta"],)
    elif activation.name == "smelu" and p["beta"] == 0:
        kind = KINDS["relu"]
    elif activation.name == "smelu":
        constants = p["beta"], 2 * p["beta"], 1 / (2 * p["beta"])
    elif activation.name == "gsmelu":
        length = p["alpha"] + p["beta"]
        constants = p["alpha"], length, (p["gplus"] - p["gminus"]) / length, p["gminus"], p["t"]
        if p["gminus"] == 0 and p["t"] == 0:
            kind = KINDS["smelu"]
    return Kernel(kind, (c_float * 5)(*constants))


def missing() -> str:
    """Why there are no native kernels here, empty where there are."""
    try:
        library()
        sgemm()
    except NativeMissing as problem:
        return str(problem)
    return ""


@functools.cache
def sgemm() -> int:
    """The address of PyTorch's matrix product. Raises NativeMissing."""
    for name in PYTORCH:
        try:
            routine = CDLL(os.fspath(Path(torch.__file__).parent / "lib" / name)).sgemm_
        except (OSError, AttributeError):
            continue
        return ctypes.cast(routine, c_void_p).value or 0
    raise NativeMissing("this PyTorch shows no BLAS")


def address(tensor: Tensor | None) -> int | None:
    """Where a tensor's numbers begin."""
    return None if tensor is None else tensor.data_ptr()


class _LayerOffsets(Structure):
    """`Place` of learning.hpp: where a layer's parameters begin."""

    _fields_ = [(name, c_int64) for name in ("fan_in", "width", "weight", "bias", "gain")]


class _Model(Structure):
    """`Model` of learning.hpp."""

    _fields_ = [
        *((name, c_void_p) for name in ("sgemm", "constants", "field_of_slot", "places")),
        *((name, c_int64) for name in ("kind", "norm", "depth", "slots", "fields", "dim")),
        *((name, c_int64) for name in ("table_rows", "parameters", "batch")),
    ]


class NativeModel:
    """Scores and learns for all models of one arm; safe to call from several threads."""

    def __init__(self, schema: Schema, config: ModelConfig, layout: Layout, function: Activation) -> None:
        """Raises NativeMissing. `function` has to have a kernel."""
        kernel = kernel_of(function)
        assert kernel and config.norm != "weight"
        self._library, self.config = library(), config
        fields = [number for number, field in enumerate(schema.fields) for _ in range(field.slots)]
        self._field_of_slot = torch.tensor(fields, dtype=torch.int32)
        places = _places(layout, len(config.hidden))
        self._model = _Model(
            sgemm(), kernel.address, self._field_of_slot.data_ptr(), addressof(places),
            kernel.kind, NORMS[config.norm], len(config.hidden), schema.slots, len(schema.fields), config.dim,
            schema.rows, layout.length, config.batch,
        )  # fmt: skip
        self._alive = kernel, places  # the model holds their addresses
        self._threads = threading.local()

    def score(self, weights: Weights, rows: Tensor) -> Tensor:
        """Log-odds [n] of events with int32 table rows [n, S], without learning.

        Raises ValueError where a row is outside the table.
        """
        logits = torch.empty(len(rows))
        self._check(weights, rows)
        wrong = self._library.score_events(
            byref(self._model), weights.dense.data_ptr(), weights.table.data_ptr(), rows.data_ptr(), len(rows),
            self._memory()[0].data_ptr(), logits.data_ptr(),
        )  # fmt: skip
        self._refuse(rows, wrong)
        return logits

    def learn(
        self,
        weights: Weights,
        squares: Weights,
        rows: Tensor,
        labels: Tensor,
        lost: Tensor,
        event_weights: Tensor | None = None,
    ) -> Tensor:
        """Learn a chunk of events in the order given; log-odds [n] given to each event just before.

        squares: Adagrad's sums of squares [P] and [V]; int32 rows [n, S]; labels [n]; bool lost [n / B]: mini-batches
        that are scored only; event_weights [n], None: all 1. Raises ValueError where a row is outside the table;
        nothing is learned then.
        """
        logits, addresses = torch.empty(len(rows)), [buffer.data_ptr() for buffer in self._memory()]
        self._check(weights, rows)
        assert labels.is_contiguous() and lost.is_contiguous() and len(lost) * self.config.batch >= len(rows)
        assert event_weights is None or event_weights.is_contiguous() and len(event_weights) == len(rows)
        wrong = self._library.learn_chunk(
            byref(self._model), weights.dense.data_ptr(), squares.dense.data_ptr(), weights.table.data_ptr(),
            squares.table.data_ptr(), rows.data_ptr(), labels.data_ptr(), address(event_weights), lost.data_ptr(),
            len(rows), self.config.learning_rate, *addresses, logits.data_ptr(),
        )  # fmt: skip
        self._refuse(rows, wrong)
        return logits

    def _check(self, weights: Weights, rows: Tensor) -> None:
        """That nothing is read beyond what a caller of ours passes."""
        assert rows.is_contiguous() and rows.dtype == torch.int32 and rows.shape[1] == self._model.slots
        assert weights.table.shape == (self._model.table_rows, self._model.dim) and weights.table.is_contiguous()
        assert len(weights.dense) == self._model.parameters and weights.dense.is_contiguous()

    def _refuse(self, rows: Tensor, wrong: int) -> None:
        if wrong >= 0:
            event, row = wrong // self._model.slots, int(rows.flatten()[wrong])
            raise ValueError(f"table row {row}, of event {event}, is none of the table's {self._model.table_rows} rows")

    def _memory(self) -> tuple[Tensor, Tensor, Tensor]:
        """A thread's buffers."""
        buffers: tuple[Tensor, Tensor, Tensor] | None = getattr(self._threads, "memory", None)
        if buffers is None:
            size = self._library.memory_size(byref(self._model))
            places = torch.full((self._model.table_rows,), -1, dtype=torch.int32)
            touched = torch.empty(self._model.batch * self._model.slots, dtype=torch.int64)
            buffers = self._threads.memory = torch.empty(size), places, touched
        return buffers


def _places(layout: Layout, depth: int) -> Array[_LayerOffsets]:
    places = (_LayerOffsets * (depth + 1))()
    for n in range(depth + 1):
        end = n if n < depth else "_out"
        weight, bias, gain = (layout.parts.get(f"{name}{end}") for name in ("weight", "bias", "gain"))
        assert weight and bias
        places[n] = _LayerOffsets(*weight.shape, weight.start, bias.start, gain.start if gain else 0)
    return places


class _Stage(Structure):
    """`Stage` of scoring.hpp: a layer."""

    _fields_ = [
        *((name, c_int64) for name in ("kind", "norm", "width")),
        *((name, c_void_p) for name in ("constants", "bias", "gain", "weight")),
    ]


class _Scorer(Structure):
    """`Scorer` of scoring.hpp: a model."""

    _fields_ = [
        *((name, c_int64) for name in ("stages", "dim", "user_slots", "context_slots", "fields")),
        *((name, c_void_p) for name in ("stage", "out_weight", "out_bias", "items", "table", "weight")),
        *((name, c_void_p) for name in ("user_rows", "field_of_slot")),
    ]


class NativeScorer:
    """Scores with one model; safe to call from several threads."""

    def __init__(
        self,
        kernel: Kernel,
        norm: str,
        layers: Sequence[tuple[Tensor, Tensor, Tensor | None]],
        output: tuple[Tensor, Tensor],
        items: Tensor,
        query: tuple[Tensor, Tensor, Tensor, Tensor],
        context_slots: int,
    ) -> None:
        """Of each layer its weight [fan in, H] (the first is not used), bias [H] and gain [H]; of the output unit
        weight [H, 1] and bias [1]; `items` [I, H] added to the first product; of the query side the embedding table
        [V, D], the rows of users [U, S - C], the field of each slot [S], the first layer's weight [F D, H].

        Raises NativeMissing.
        """
        self._library, self.items = library(), items
        table, user_rows, field_of_slot, weight = query
        stages = (_Stage * len(layers))()
        self._alive: list[object] = [kernel, stages]
        for number, (matrix, bias, gain) in enumerate(layers):
            panels = None if number == 0 else _panels(matrix, self._library.panel_width())
            addresses = [self._pin(part) for part in (bias, gain, panels)]
            stages[number] = _Stage(kernel.kind, NORMS[norm], len(bias), kernel.address, *addresses)
        fields = int(field_of_slot.max()) + 1 if len(field_of_slot) else 0
        self._context_slots = context_slots
        self._model = _Scorer(
            len(layers), table.shape[1], user_rows.shape[1], context_slots, fields, addressof(stages),
            *(self._pin(part.float()) for part in (*output, items, table, weight)),
            self._pin(user_rows.int()), self._pin(field_of_slot.int()),
        )  # fmt: skip

    def _pin(self, tensor: Tensor | None) -> int | None:
        """The address of a tensor's numbers, which stay where they are as long as this object."""
        if tensor is None:
            return None
        tensor = tensor.contiguous()
        self._alive.append(tensor)
        return tensor.data_ptr()

    def scores(self, users: Ints, context: Rows, items: Ints) -> Floats:
        """Log-odds [Q, N] of candidates [Q, N] for users [Q] in contexts [Q, C] (table rows)."""
        logits = np.empty(items.shape, np.float32)
        parts = np.ascontiguousarray(users), np.ascontiguousarray(context), np.ascontiguousarray(items)
        assert [part.dtype for part in parts] == [np.int64, np.int32, np.int64]
        assert parts[1].shape == (len(items), self._context_slots) and len(users) == len(items)
        addresses = [part.ctypes.data for part in (*parts, logits)]
        self._library.score_candidates(byref(self._model), *items.shape, *addresses)
        return logits


def _panels(weight: Tensor, width: int) -> Tensor:
    """A matrix [K, H] as panels [H / width, K, width], the last one filled up with zeros."""
    padded = torch.nn.functional.pad(weight, (0, -weight.shape[1] % width))
    return padded.view(len(weight), -1, width).transpose(0, 1).contiguous()


class NativeEngine(BuiltInEngine):
    """The duplicates of one arm by compiled kernels."""

    name: EngineName = "native"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """See Engine. The settings are such that `refusal` is empty."""
        super().__init__(*arguments, **options)
        self._model = NativeModel(self.schema, self.model, self.layout, self.activation)

    def _score(self, models: slice, rows: Tensor, weights: Weights) -> Tensor:
        """See Engine: padded to whole mini-batches, which makes scores batch-invariant."""
        events = rows.shape[-2]
        padded = functional.pad(rows, (0, 0, 0, -events % self.model.batch))
        per_model = padded.expand(len(weights.dense), *padded.shape[-2:])
        return torch.stack([self._model.score(weights[k], per_model[k])[:events] for k in range(len(per_model))])

    def _learn(self, models: slice, chunk: Chunk) -> Tensor:
        return self._race(models, chunk) if self.noise.config.racing else self._learn_in_turn(models, chunk)

    def _race(self, models: slice, chunk: Chunk) -> Tensor:
        """Hogwild: threads share the weights and Adagrad's sums of a model, and lock nothing. Each takes the next
        mini-batch when done with one. A number that two change at once keeps one of the changes, and a gradient may
        mix older and newer weights: which, the machine decides. It is over when the chunk is, so a state is whole.

        C++ does not define such a race; the loops that it is run in read and write whole floats, by plain loads and
        stores, on every processor that there is a build for."""
        parts = [chunk.mini_batch(number, self.model.batch) for number in range(chunk.lost.shape[1])]

        def learn(part: Chunk) -> tuple[Tensor, float]:
            start = time.thread_time()
            return self._learn_in_turn(models, part), time.thread_time() - start

        racing = self.noise.config.racing
        with ThreadPoolExecutor(racing, initializer=torch.set_num_threads, initargs=(1,)) as threads:
            logits, seconds = zip(*threads.map(learn, parts), strict=True)
        self._seconds[models] += sum(seconds)
        return torch.cat(logits, 1)

    def _learn_in_turn(self, models: slice, chunk: Chunk) -> Tensor:
        lost, learned, event_weights = torch.from_numpy(chunk.lost), [], chunk.event_weights
        for k, model in enumerate(range(models.start, models.stop)):
            weights, squares = self.weights[model], self.squares[model]
            weights_of_events = None if event_weights is None else event_weights[k]
            learned.append(
                self._model.learn(weights, squares, chunk.rows[k], chunk.targets[k], lost[k], weights_of_events)
            )
        return torch.stack(learned)


def refusal(arm: Arm, model: ModelConfig, noise: NoiseConfig, device: str) -> str:
    """Why this engine cannot teach an arm, in a few words; empty where it can."""
    if arm.own:
        return "it teaches no modules of your own"
    if device != "cpu":
        return f"it computes on a CPU, not on {device}"
    if model.norm == "weight":
        return "it has no norm = weight"
    if noise.delay or noise.precision != "float32":
        return "it has no delayed gradients" if noise.delay else f"it has no {noise.precision}"
    if noise.racing and arm.cure.coupled:
        return "its models learn from one another at each mini-batch, in turn"
    assert arm.activation
    if kernel_of(arm.activation) is None:
        return f"it has no kernel for {arm.activation.name}"
    return missing()
