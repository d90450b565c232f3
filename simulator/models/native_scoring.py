"""scoring.cpp called from Python: one call for all queries of a pass, without Python's global lock.

Shapes: I items, U users, H width of the first hidden layer, Q queries, N candidates, C context slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import CDLL, Structure, addressof, c_int64, c_void_p, pointer
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from simulator.models.compiler import Once, compiled
from simulator.models.old_native import NORMS, Formula
from simulator.types import Floats, Ints, Rows

SOURCE = Path(__file__).with_name("scoring.cpp")


class Stage(Structure):
    """A layer, as in scoring.cpp."""

    _fields_ = [
        *((name, c_int64) for name in ("kind", "norm", "width")),
        *((name, c_void_p) for name in ("constants", "bias", "gain", "weight")),
    ]


class Model(Structure):
    """A model, as in scoring.cpp."""

    _fields_ = [
        *((name, c_int64) for name in ("stages", "dim", "user_slots", "context_slots", "fields")),
        *((name, c_void_p) for name in ("stage", "out_weight", "out_bias", "items", "table", "weight")),
        *((name, c_void_p) for name in ("user_rows", "field_of_slot")),
    ]


class NativeScorer:
    """Scores with one model; safe to call from several threads."""

    def __init__(
        self,
        formula: Formula,
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
        """
        self._library, self.items = LIBRARY.get(), items
        table, user_rows, field_of_slot, weight = query
        stages = (Stage * len(layers))()
        self._kept: list[object] = [formula, stages]
        for number, (matrix, bias, gain) in enumerate(layers):
            panels = None if number == 0 else _panels(matrix, self._library.panel_width())
            held = [self._hold(part) for part in (bias, gain, panels)]
            stages[number] = Stage(formula.kind, NORMS[norm], len(bias), formula.constants, *held)
        fields = int(field_of_slot.max()) + 1 if len(field_of_slot) else 0
        self._context_slots = context_slots
        self._model = Model(
            len(layers), table.shape[1], user_rows.shape[1], context_slots, fields, addressof(stages),
            *(self._hold(part.float()) for part in (*output, items, table, weight)),
            self._hold(user_rows.int()), self._hold(field_of_slot.int()),
        )  # fmt: skip
        self._address = pointer(self._model)

    def _hold(self, tensor: Tensor | None) -> int | None:
        """The address of a tensor's numbers, which stay where they are as long as this object."""
        if tensor is None:
            return None
        tensor = tensor.contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()

    def scores(self, users: Ints, context: Rows, items: Ints) -> Floats:
        """Log-odds [Q, N] of candidates [Q, N] for users [Q] in contexts [Q, C] (table rows)."""
        found = np.empty(items.shape, np.float32)
        parts = np.ascontiguousarray(users), np.ascontiguousarray(context), np.ascontiguousarray(items)
        assert [part.dtype for part in parts] == [np.int64, np.int32, np.int64]
        assert parts[1].shape == (len(items), self._context_slots) and len(users) == len(items)
        self._library.score(self._address, *items.shape, *(part.ctypes.data for part in parts), found.ctypes.data)
        return found


def _panels(weight: Tensor, width: int) -> Tensor:
    """A matrix [K, H] as panels [H / width, K, width], the last one filled up with zeros."""
    padded = torch.nn.functional.pad(weight, (0, -weight.shape[1] % width))
    return padded.view(len(weight), -1, width).transpose(0, 1).contiguous()


def is_wanted(choice: Literal["auto", "on", "off"]) -> bool:
    """Whether models are scored by compiled code. Raises SettingError where they have to be and cannot."""
    return LIBRARY.wanted(choice) is not None


def _library() -> CDLL:
    library = compiled(SOURCE)[0]
    library.score.argtypes = [c_void_p, c_int64, c_int64, *[c_void_p] * 4]
    library.score.restype = None
    return library


LIBRARY = Once(_library)
