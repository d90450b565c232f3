"""Scores, items and ids from messages of the Open Inference Protocol; whatever cannot be used says why.

Shapes: B queries of a request, N items of each.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from protos.inference_pb2 import InferParameter, ModelInferRequest, ModelInferResponse
from simulator.predictions.read import arrow, codes
from simulator.types import Doubles, Ints

Scale = Literal["scores", "logits", "probabilities"]
"""What scores are."""
Values = NDArray[Any]
SHARED = "shared_memory_region"
"""Parameter of a tensor whose values are not in the message."""
MAX_ITEMS, MAX_SCORES = 10_000, 1 << 20
"""Items of a query, whose pairs are compared, and scores of a request."""
MAX_ID_LENGTH = 256
"""Of what an asker calls a query."""
MAX_ID = 10**18
"""Item numbers from here on are not told apart from text in files."""
TYPES = {
    "BOOL": (np.dtype("?"), "bool_contents"),
    "INT8": (np.dtype("<i1"), "int_contents"),
    "INT16": (np.dtype("<i2"), "int_contents"),
    "INT32": (np.dtype("<i4"), "int_contents"),
    "INT64": (np.dtype("<i8"), "int64_contents"),
    "UINT8": (np.dtype("<u1"), "uint_contents"),
    "UINT16": (np.dtype("<u2"), "uint_contents"),
    "UINT32": (np.dtype("<u4"), "uint_contents"),
    "UINT64": (np.dtype("<u8"), "uint64_contents"),
    "FP16": (np.dtype("<f2"), ""),
    "FP32": (np.dtype("<f4"), "fp32_contents"),
    "FP64": (np.dtype("<f8"), "fp64_contents"),
}
"""Datatype -> how its values stand in raw contents, and the field of typed ones."""


class UnusableError(Exception):
    """What cannot be compared: `reason`, one word for a counter, and a line for the log."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def scores_of(answer: ModelInferResponse, name: str, scale: Scale) -> Doubles:
    """The scores [B, N] of an output of shape [N], [B, N] or [B, N, 1]; of the only output where `name` is empty.

    Raises UnusableError: `tensor`, `shape`, `not_finite`, or `not_probabilities`.
    """
    tensor, values = _values("output", answer.outputs, answer.raw_output_contents, name)
    if values.dtype == object:
        raise UnusableError("tensor", f"output {tensor.name!r} holds text: name the output of scores with --scores")
    shape = list(tensor.shape)
    if len(shape) == 3 and shape[2] == 1:
        shape.pop()
    queries, items = ([1, *shape] if len(shape) == 1 else shape) if len(shape) in (1, 2) else (0, 0)
    if not (1 <= queries <= MAX_SCORES // max(items, 1) and 1 <= items <= MAX_ITEMS):
        limits = f"[N], [B, N] or [B, N, 1], N to {MAX_ITEMS:,}, in all to {MAX_SCORES:,}"
        raise UnusableError("shape", f"output {tensor.name!r} has shape {list(tensor.shape)}: scores are {limits}")
    scores = values.astype(np.float64).reshape(queries, items)
    if not np.isfinite(scores).all():
        raise UnusableError("not_finite", f"output {tensor.name!r} holds NaN or infinity")
    if scale == "probabilities" and not ((scores >= 0) & (scores <= 1)).all():
        raise UnusableError("not_probabilities", f"output {tensor.name!r} holds values outside of 0 to 1")
    return scores


def items_of(request: ModelInferRequest, name: str, shape: tuple[int, ...]) -> Values:
    """What was scored, [B, N] as in `shape`: numbers or text of an input of as many, or of N that all queries share;
    positions where `name` is empty. Raises UnusableError: `tensor`, or `items`."""
    if not name:
        return np.broadcast_to(np.arange(shape[1]), shape)
    tensor, values = _values("input", request.inputs, request.raw_input_contents, name)
    if values.size not in (math.prod(shape), shape[1]):
        raise UnusableError("items", f"input {name!r} has shape {list(tensor.shape)}, the scores {list(shape)}")
    text = values.dtype == object
    if not text and (values.dtype.kind not in "iu" or not -MAX_ID < int(values.min()) <= int(values.max()) < MAX_ID):
        raise UnusableError("items", f"input {name!r} is {tensor.datatype}: ids are whole numbers below 1e18, or text")
    return np.broadcast_to(values.reshape(-1, shape[1]), shape)


def numbers_of(items: Values) -> Ints:
    """Items [B, N] as the numbers that `flicker compare` gives them. Raises UnusableError: `items`, where one comes
    twice in a query."""
    numbers: Ints
    if items.dtype == object:
        try:
            pa, text = arrow(), items.ravel()
        except ImportError:  # not among what the image has
            raise UnusableError("items", "text as ids of items needs pyarrow: pip install pyarrow") from None
        if nothing := set(pa.csv.ConvertOptions().null_values) & set(text):
            raise UnusableError("items", f"{nothing.pop()!r} is nobody's id: in files it says that there is none")
        numbers = codes(pa.array(text)).reshape(items.shape)
    else:
        numbers = items.astype(np.int64)
    ascending = np.sort(numbers, axis=-1)
    if (ascending[:, 1:] == ascending[:, :-1]).any():
        raise UnusableError("items", "an item stands twice among those of a query")
    return numbers


def ids_of(request: ModelInferRequest, source: str, count: int) -> list[str]:
    """What the asker calls each of a request's queries, by `request.id` or `parameters.NAME`; perhaps nothing."""
    if source == "request.id":
        given = request.id
    else:
        held = request.parameters.get(source.partition(".")[2], InferParameter())
        kind = held.WhichOneof("parameter_choice")
        given = str(getattr(held, kind)) if kind else ""
    given = given[:MAX_ID_LENGTH]
    return [given] if count == 1 else [f"{given}/{row}" for row in range(count)]


def is_sequence(request: ModelInferRequest) -> bool:
    """Whether the server remembers what came before: such a request must not be asked twice."""
    return any(name.startswith("sequence_") for name in request.parameters)


def _values(kind: str, tensors: Sequence[Any], raw: Sequence[bytes], name: str) -> tuple[Any, Values]:
    """A tensor with its values [n], text as objects. Raises UnusableError: `tensor`."""
    names = [tensor.name for tensor in tensors]
    if name not in names if name else len(names) != 1:
        said = ", ".join(names)[:80] or "none"
        hint = f"no {name!r} among them" if name else "name that of the scores with --scores"
        raise UnusableError("tensor", f"{kind}s: {said}: {hint}")
    tensor = tensors[names.index(name) if name else 0]
    size, datatype = math.prod(tensor.shape), tensor.datatype
    if size > MAX_SCORES:  # what nobody compares takes no time from those who ask
        raise UnusableError("tensor", f"{kind} {tensor.name!r} has {size:,} values: at most {MAX_SCORES:,} are read")
    try:
        if raw and SHARED not in tensor.parameters:
            inside = [each.name for each in tensors if SHARED not in each.parameters]
            values = _from_raw(raw[inside.index(tensor.name)], datatype, size)
        elif datatype == "BYTES":
            values = _text(tensor.contents.bytes_contents)
        else:
            dtype, field = TYPES[datatype]
            values = np.array(getattr(tensor.contents, field), dtype)
    except (KeyError, AttributeError, IndexError, ValueError, OverflowError, struct.error):
        raise UnusableError("tensor", f"{kind} {tensor.name!r} cannot be read as {datatype!r:.20}") from None
    if values.size != size:
        raise UnusableError("tensor", f"{kind} {tensor.name!r} has {values.size} values, its shape says {size}")
    return tensor, values


def _from_raw(raw: bytes, datatype: str, limit: int) -> Values:
    """Values [n], texts `limit` at most, as they stand in raw contents; a text has its length, 4 bytes, before it."""
    if datatype != "BYTES":
        return np.frombuffer(raw, TYPES[datatype][0])
    parts, place = list[bytes](), 0
    while place < len(raw):
        if len(parts) == limit:
            raise ValueError("more than its shape says")
        (length,) = struct.unpack_from("<I", raw, place)
        place += 4 + length
        parts.append(raw[place - length : place])
    if place > len(raw):
        raise ValueError("cut short")
    return _text(parts)


def _text(parts: Iterable[bytes]) -> Values:
    return np.array([part.decode() for part in parts], object)
