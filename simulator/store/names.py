"""What a log calls its users, items and context values, as one part that every generation of a run shares.

A safetensors file: of each list of texts the UTF-8 bytes (`text/LIST`) and where each ends (`ends/LIST`); of those that
are looked up, all but titles, also their numbers in the order of their bytes (`order/LIST`). Reading it makes
nothing: a text is cut out when it is asked for, found by bisection. A million ids take 22 MB; finding one takes 30 us.

Shapes: n texts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from simulator.store.arrays import arrays_of
from simulator.types import Ints, Names

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
