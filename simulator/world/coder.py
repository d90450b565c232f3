"""Texts become numbers 0, 1, 2 ... by first appearance: by a native table, or by pyarrow alone, with the same numbers.

pyarrow's dictionary encoding takes several times as long on a column of a million distinct ids.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pyarrow as pa

from simulator.native.loader import NativeMissing, library
from simulator.types import Rows

MAX_WAITING = 2_000_000
"""Texts that wait to be numbered together, at most."""


class Coder(Protocol):
    """Numbers distinct texts."""

    def code(self, texts: pa.StringArray) -> Rows:
        """Numbers of texts, -1 of what is null or empty; a new text gets the next number.

        They come in order, but perhaps not at once: what is missing comes with later ones, the last with `rest`.
        """

    def rest(self) -> Rows:
        """Numbers of the texts that wait."""

    def texts(self) -> pa.LargeStringArray:
        """All distinct texts, by number."""


def make_coder(native: bool = True) -> Coder:
    """The native one where there is a library and it is wanted."""
    if native:
        try:
            return NativeCoder()
        except NativeMissing:
            pass
    return PlainCoder()


def filled(texts: pa.StringArray) -> pa.StringArray:
    """Null is the empty text."""
    return texts.fill_null("") if texts.null_count else texts


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
        texts = filled(texts)
        codes = np.empty(len(texts), np.int32)
        if len(texts):
            _, places, data = texts.buffers()
            start = places.address + 4 * texts.offset
            address = data.address if data is not None else 0
            self._size = self._library.coder_code(self._coder, start, address, len(texts), codes.ctypes.data)
        if self._size < 0:
            raise MemoryError
        return codes

    def rest(self) -> Rows:
        """See Coder."""
        return np.empty(0, np.int32)

    def texts(self) -> pa.LargeStringArray:
        """See Coder."""
        offsets = np.empty(self._size + 1, np.int64)
        data = np.empty(self._library.coder_bytes(self._coder), np.uint8)
        self._library.coder_copy(self._coder, offsets.ctypes.data, data.ctypes.data)
        return pa.LargeStringArray.from_buffers(self._size, pa.py_buffer(offsets), pa.py_buffer(data))


class PlainCoder:
    """By dictionary encoding of known texts with new ones behind them, in groups twice as large as the known ones."""

    def __init__(self) -> None:
        self._known = pa.array([""], pa.large_string())
        self._waiting: list[pa.LargeStringArray] = []

    def code(self, texts: pa.StringArray) -> Rows:
        """See Coder."""
        self._waiting.append(filled(texts).cast(pa.large_string()))
        is_due = sum(map(len, self._waiting)) >= min(2 * len(self._known), MAX_WAITING)
        return self.rest() if is_due else np.empty(0, np.int32)

    def rest(self) -> Rows:
        """See Coder."""
        encoded = pa.concat_arrays([self._known, *self._waiting]).dictionary_encode()
        codes: Rows = encoded.indices.to_numpy()[len(self._known) :] - np.int32(1)
        self._known, self._waiting = encoded.dictionary, []
        return codes

    def texts(self) -> pa.LargeStringArray:
        """See Coder."""
        return self._known.slice(1)
