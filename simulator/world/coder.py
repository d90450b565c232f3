"""Texts become numbers 0, 1, 2 ... by first appearance: a native table, or Python's dictionary, with the same numbers.

pyarrow's dictionary encoding is not used: on a column of a million distinct ids it takes more time than all else.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from simulator.native.library import NativeMissing, library
from simulator.types import Ints, Rows

if TYPE_CHECKING:
    import pyarrow as pa


class Coder(Protocol):
    """Numbers distinct texts."""

    def code(self, texts: pa.StringArray) -> Rows:
        """Numbers [n] of texts [n], -1 of what is null or empty; a new text gets the next number."""

    def texts(self) -> pa.LargeStringArray:
        """All texts so far, by number."""


def make_coder(native: bool = True) -> Coder:
    """The native one where there is a library and it is wanted."""
    if native:
        try:
            return NativeCoder()
        except NativeMissing:
            pass
    return PlainCoder()


def large_texts(offsets: Ints, data: np.ndarray[Any, Any]) -> pa.LargeStringArray:
    """Texts that lie between the offsets [n + 1] of the bytes, without a copy."""
    import pyarrow as pa

    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, *buffers[1:])


class NativeCoder:
    """By native/coder.hpp, without Python's global lock while it works."""

    def __init__(self) -> None:
        """Raises NativeMissing."""
        self._library = library()
        self._coder = self._library.coder_make()
        if not self._coder:
            raise MemoryError
        self._size = 0

    def __del__(self) -> None:
        if getattr(self, "_coder", None):
            self._library.coder_free(self._coder)

    def code(self, texts: pa.StringArray) -> Rows:
        """See Coder. Raises MemoryError."""
        filled = texts.fill_null("") if texts.null_count else texts
        _, places, data = filled.buffers()
        codes = np.empty(len(filled), np.int32)
        if len(filled):
            start = places.address + 4 * filled.offset
            address = data.address if data is not None else 0
            self._size = self._library.coder_code(self._coder, start, address, len(filled), codes.ctypes.data)
        if self._size < 0:
            raise MemoryError
        return codes

    def texts(self) -> pa.LargeStringArray:
        """See Coder."""
        offsets = np.empty(self._size + 1, np.int64)
        data = np.empty(self._library.coder_bytes(self._coder), np.uint8)
        self._library.coder_copy(self._coder, offsets.ctypes.data, data.ctypes.data)
        return large_texts(offsets, data)


class PlainCoder:
    """By a dictionary."""

    def __init__(self) -> None:
        self._numbers = _Numbers({"": -1})

    def code(self, texts: pa.StringArray) -> Rows:
        """See Coder."""
        filled = texts.fill_null("") if texts.null_count else texts
        cells = filled.to_numpy(zero_copy_only=False).tolist()
        return np.fromiter(map(self._numbers.__getitem__, cells), np.int32, len(cells))

    def texts(self) -> pa.LargeStringArray:
        """See Coder."""
        import pyarrow as pa

        return pa.array(list(self._numbers)[1:], pa.large_string())


class _Numbers(dict[str, int]):
    """A text that is looked up for the first time gets the next number."""

    def __init__(self, known: dict[str, int]) -> None:
        super().__init__(known)
        self._next = count().__next__

    def __missing__(self, text: str) -> int:
        number = self[text] = self._next()
        return number
