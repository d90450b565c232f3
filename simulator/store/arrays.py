"""The arrays of a part, where they lie in its bytes; and one such part: what a log calls its users and items.

**Arrays** are a safetensors file, read without copying. The format's own library copies all of them, and Python's
global lock is held meanwhile: a few milliseconds per 10 MB in which no query is answered. Files are written by the
library; a test holds the two against each other. Format: u64 length of the header, the header as JSON
{name: {"dtype", "shape", "data_offsets"}}, the numbers. Source: https://github.com/huggingface/safetensors#format

**Names**, of users, items and context values, are one part that every generation of a run shares: of each list of texts
the UTF-8 bytes (`text/LIST`) and where each ends (`ends/LIST`); of those that are looked up, all but titles, also their
numbers in the order of their bytes (`order/LIST`). Reading it makes nothing: a text is cut out when it is asked for,
found by bisection. A million ids take 22 MB; finding one takes 30 us. Shapes: n texts.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from simulator.types import Ints, Names

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


CONTEXT = "context/"
"""What stands before the name of a context field, whose values a list holds."""


class Texts(Sequence[str]):
    """Texts in one run of bytes."""

    def __init__(self, data: NDArray[np.uint8], ends: Ints, order: Ints | None) -> None:
        """`ends` [n] where each text ends; `order` [n] their numbers by rising bytes, where they are looked up."""
        # of a view an element takes a third of the time that one of an array takes
        self._data, self._ends = data.data, ends.data
        self._order = None if order is None else order.data

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[str]: ...
    def __getitem__(self, number: int | slice) -> str | Sequence[str]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        return self._raw(number % len(self)).decode()

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """The number of a text. Raises ValueError where it is none of them."""
        order, raw = self._order, str(value).encode()
        if order is None:
            return super().index(value, start, len(self) if stop is None else stop)
        place = bisect_left(order, raw, key=self._raw)
        if place == len(order) or self._raw(order[place]) != raw:
            raise ValueError(f"{value!r}: none of {len(self)} texts")
        return int(order[place])

    def beginning(self, start: str, maximum: int) -> list[str]:
        """The first texts that begin so, by rising bytes; of lists that are looked up."""
        assert self._order is not None
        raw, matches = start.encode(), list[str]()
        place = bisect_left(self._order, raw, key=self._raw)
        while place < len(self) and len(matches) < maximum and self._raw(self._order[place]).startswith(raw):
            matches.append(self[self._order[place]])
            place += 1
        return matches

    def _raw(self, number: int) -> bytes:
        return bytes(self._data[self._ends[number - 1] if number else 0 : self._ends[number]])


def pack(names: Names) -> bytes:
    """The part."""
    import safetensors.numpy  # of a router only the other half is asked

    lists = {"users": names.users, "items": names.items, "titles": names.titles}
    arrays: dict[str, NDArray[Any]] = {}
    for name, texts in (lists | {CONTEXT + field: values for field, values in names.context.items()}).items():
        raw = [text.encode(errors="replace") for text in texts]
        arrays[f"text/{name}"] = np.frombuffer(b"".join(raw), np.uint8)
        arrays[f"ends/{name}"] = np.cumsum([len(each) for each in raw], dtype=np.int64)
        if name != "titles":
            arrays[f"order/{name}"] = np.array(sorted(range(len(raw)), key=raw.__getitem__), np.int32)
    return safetensors.numpy.save(arrays)


def unpack(data: bytearray) -> Names:
    """What `pack` was given. Raises ValueError and KeyError where it is not such a part."""
    arrays = arrays_of(data)
    names = [name.removeprefix("text/") for name in arrays if name.startswith("text/")]
    lists = {name: Texts(arrays[f"text/{name}"], arrays[f"ends/{name}"], arrays.get(f"order/{name}")) for name in names}
    context = {name.removeprefix(CONTEXT): texts for name, texts in lists.items() if name.startswith(CONTEXT)}
    return Names(lists["users"], lists["items"], lists["titles"], context)
