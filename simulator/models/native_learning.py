"""learning.cpp called from Python: one call per chunk and model, without Python's global lock while it runs.

Shapes: n events of a chunk, B of a mini-batch, S slots, D embedding length, V table rows, P dense parameters.
"""

from __future__ import annotations

import os
import threading
from ctypes import CDLL, POINTER, Array, Structure, addressof, byref, c_float, c_int64, c_void_p, cast
from pathlib import Path

import torch
from torch import Tensor

from simulator.config import ModelConfig
from simulator.models.activations import Activation
from simulator.models.click_model import Layout, Pooling
from simulator.models.compiler import NoCompiler, Once, compiled
from simulator.models.duplicates import Weights
from simulator.models.old_native import NORMS, formula_of
from simulator.types import Schema

SOURCE = Path(__file__).with_name("learning.cpp")
PYTORCH = "libtorch_cpu.so", "libtorch_cpu.dylib"


class Place(Structure):
    """Where a layer's parameters begin, as in learning.cpp."""

    _fields_ = [(name, c_int64) for name in ("fan_in", "width", "weight", "bias", "gain")]


class Model(Structure):
    """A model, as in learning.cpp."""

    _fields_ = [
        *((name, c_void_p) for name in ("sgemm", "constants", "field_of_slot", "places")),
        *((name, c_int64) for name in ("kind", "norm", "depth", "slots", "fields", "dim", "parameters", "batch")),
    ]


class NativeModel:
    """Scores and learns for all models of one arm; safe to call from several threads."""

    def __init__(
        self, schema: Schema, config: ModelConfig, layout: Layout, function: Activation, threads: threading.local
    ) -> None:
        """`threads`: where each thread keeps its buffers, the same for all models of one shape."""
        formula, (library, sgemm) = formula_of(function), LIBRARY.get()
        assert formula
        self._library, self.config, self._rows = library, config, schema.rows
        self._field_of_slot = Pooling(schema, config.dim).field_of_slot.int()
        places = _places(layout, len(config.hidden))
        self._model = Model(
            sgemm, formula.constants, self._field_of_slot.data_ptr(), addressof(places),
            formula.kind, NORMS[config.norm], len(config.hidden), schema.slots, len(schema.fields), config.dim,
            layout.length, config.batch,
        )  # fmt: skip
        self._kept = formula, places  # the model holds their addresses
        self._threads = threads

    def score(self, weights: Weights, rows: Tensor) -> Tensor:
        """Log-odds [n] of events with table rows [n, S], without learning."""
        logits = torch.empty(len(rows))
        assert rows.is_contiguous() and rows.dtype == torch.int32
        self._library.score(
            byref(self._model), weights.dense.data_ptr(), weights.table.data_ptr(), rows.data_ptr(), len(rows),
            self._memory()[0].data_ptr(), logits.data_ptr(),
        )  # fmt: skip
        return logits

    def learn(self, weights: Weights, squares: Weights, rows: Tensor, labels: Tensor, lost: Tensor) -> Tensor:
        """Learn a chunk of events in the order given; log-odds [n] given to each event just before.

        squares: Adagrad's sums of squares [P] and [V]; int32 rows [n, S]; labels [n]; bool lost [n / B].
        """
        logits, addresses = torch.empty(len(rows)), [buffer.data_ptr() for buffer in self._memory()]
        assert all(part.is_contiguous() for part in (rows, labels, lost)) and rows.dtype == torch.int32
        self._library.learn(
            byref(self._model), weights.dense.data_ptr(), squares.dense.data_ptr(), weights.table.data_ptr(),
            squares.table.data_ptr(), rows.data_ptr(), labels.data_ptr(), lost.data_ptr(), len(rows),
            self.config.learning_rate, *addresses, logits.data_ptr(),
        )  # fmt: skip
        return logits

    def _memory(self) -> tuple[Tensor, Tensor, Tensor]:
        """A thread's buffers."""
        held: tuple[Tensor, Tensor, Tensor] | None = getattr(self._threads, "memory", None)
        if held is None:
            size = self._library.memory_size(byref(self._model))
            place = torch.full((self._rows,), -1, dtype=torch.int32)
            touched = torch.empty(self._model.batch * self._model.slots, dtype=torch.int64)
            held = self._threads.memory = torch.empty(size), place, touched
        return held


def _places(layout: Layout, depth: int) -> Array[Place]:
    places = (Place * (depth + 1))()
    for n in range(depth + 1):
        end = n if n < depth else "_out"
        weight, bias, gain = (layout.parts.get(f"{name}{end}") for name in ("weight", "bias", "gain"))
        assert weight and bias
        places[n] = Place(*weight.shape, weight.start, bias.start, gain.start if gain else 0)
    return places


def _library() -> tuple[CDLL, int]:
    """The compiled code, and the address of PyTorch's matrix product. Raises NoCompiler."""
    library = compiled(SOURCE)[0]
    library.memory_size.restype = c_int64
    library.score.argtypes = [POINTER(Model), *[c_void_p] * 3, c_int64, *[c_void_p] * 2]
    library.learn.argtypes = [POINTER(Model), *[c_void_p] * 7, c_int64, c_float, *[c_void_p] * 4]
    library.score.restype = library.learn.restype = None
    folder = Path(torch.__file__).parent / "lib"
    for name in PYTORCH:
        try:
            routine = CDLL(os.fspath(folder / name)).sgemm_
        except (OSError, AttributeError):
            continue
        return library, cast(routine, c_void_p).value or 0
    raise NoCompiler("this PyTorch shows no BLAS")


LIBRARY = Once(_library)
