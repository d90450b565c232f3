"""The arrays of a part, where they lie in its bytes: a safetensors file, read without copying.

The format's own library copies all of them, and Python's global lock is held meanwhile: a few milliseconds per 10 MB in
which no query is answered. Files are written by the library; a test holds the two against each other.
Format: u64 length of the header, the header as JSON {name: {"dtype", "shape", "data_offsets"}}, the numbers.
Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

DTYPES = {
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "I8": "i1",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "U8": "u1",
    "BOOL": "?",
}
"""Those that NumPy has and somebody may publish."""
LABEL = "flicker"
"""Entry of the header's `__metadata__`."""


class Mislabelled(ValueError):
    """A part of another run, generation or duplicate."""


def label(run: str, generation: int, part: str) -> dict[str, str]:
    """The label in a published part's header. One entry: the library writes several in any order."""
    return {LABEL: f"run {run}, generation {generation}, {part}"}


def arrays_of(data: bytearray, expected: Mapping[str, str] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays by name; they share memory with `data`.

    Raises ValueError where it is damaged or truncated, Mislabelled where its label is not the `expected` one.
    """
    begin = 8 + int.from_bytes(data[:8], "little")
    if not 8 < begin <= len(data):
        raise ValueError(f"{len(data)} bytes, of which {begin} are the header")
    try:
        header = json.loads(bytes(data[8:begin]))
        if expected and (stated := header.get("__metadata__", {}).get(LABEL)) != expected[LABEL]:
            raise Mislabelled(f"it says that it is {stated!r}, expected {expected[LABEL]!r}")
        return {name: _array(data, begin, about) for name, about in header.items() if name != "__metadata__"}
    except (AttributeError, KeyError, TypeError, RecursionError) as problem:
        raise ValueError(f"header: {problem!r}") from None


def _array(data: bytearray, begin: int, about: dict[str, Any]) -> NDArray[Any]:
    dtype, shape, (start, end) = np.dtype(DTYPES[about["dtype"]]), tuple(about["shape"]), about["data_offsets"]
    count = math.prod(shape)
    if min(shape, default=0) < 0 or not 0 <= start <= end <= len(data) - begin or end - start != count * dtype.itemsize:
        raise ValueError(f"{dtype} {list(shape)} from {start} to {end} of {len(data) - begin} bytes")
    return np.frombuffer(data, dtype, count, begin + start).reshape(shape)
