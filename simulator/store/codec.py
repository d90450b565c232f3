"""Batches as bytes: a header, then the columns, little-endian and as narrow as their values allow.

    magic "FB" · version u8 · six dtype letters (user, item, time, features, label, weight) · n u32 · S u32 · CRC-32 u32
    user [n] · item [n] · time [n] · features [n, S] · label [n] · weight [n], or nothing where the letter is -

Whole numbers take 1, 2, 4 or 8 bytes each, chosen per column and batch; a label of 0 or 1 takes one byte. Nothing is
rounded: decoding gives the same values in the dtypes of `Batch`. The checksum covers the columns.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.store.protocol import Entry, StoreError, entry_order
from simulator.types import Batch, Ints

MAGIC = b"FB"
VERSION = 2
HEADER = struct.Struct("<2sB6sIII")
COLUMNS = "BHIq", "BHIq", "d", "BHIi", "Bf", "f-"
"""Letters that each column may have."""
LETTERS = {"B": "<u1", "H": "<u2", "I": "<u4", "q": "<i8", "i": "<i4", "d": "<f8", "f": "<f4"}
BYTES = {letter: np.dtype(dtype).itemsize for letter, dtype in LETTERS.items()} | {"-": 0}

NONE: Ints = np.empty(0, np.int64)
NO_EVENTS = Batch(NONE, NONE, NONE.astype(np.float64), NONE.astype(np.int32).reshape(0, 0), NONE.astype(np.float32))


def encode(batch: Batch) -> bytes:
    """The bytes of a batch."""
    columns = [
        narrow(batch.user),
        narrow(batch.item),
        batch.time.astype("<f8", copy=False),
        narrow(batch.features),
        narrow_labels(batch.label),
        *([] if batch.weight is None else [batch.weight.astype("<f4", copy=False)]),
    ]
    body = b"".join(column.tobytes() for column in columns)
    letters = "".join(column.dtype.char.replace("l", "q") for column in columns).ljust(len(COLUMNS), "-").encode()
    slots = batch.features.shape[1]
    return HEADER.pack(MAGIC, VERSION, letters, len(batch), slots, zlib.crc32(body)) + body


def decode(data: bytes) -> Batch:
    """The batch of these bytes, in arrays of its own.

    Raises StoreError where they are damaged or of another version.
    """
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        raise StoreError("an entry of the log is not a batch of events: another program writes to this log")
    _, version, letters, n, slots, checksum = HEADER.unpack_from(data)
    if version != VERSION:
        raise StoreError(f"an entry of the log has format {version}, this is a reader of format {VERSION}: update it")
    body = memoryview(data)[HEADER.size :]
    if zlib.crc32(body) != checksum:
        raise StoreError("an entry of the log is damaged: its checksum differs")
    dtypes = [chr(letter) for letter in letters]
    sizes = n, n, n, n * slots, n, n
    known = all(letter in allowed for letter, allowed in zip(dtypes, COLUMNS, strict=True))
    if not known or sum(BYTES[letter] * count for letter, count in zip(dtypes, sizes, strict=True)) != len(body):
        raise StoreError("an entry of the log is damaged: its columns are not those of its header")
    columns, start = [], 0
    for letter, count in zip("".join(dtypes).rstrip("-"), sizes, strict=False):
        column = np.frombuffer(body, LETTERS[letter], count, start)
        columns.append(column)
        start += column.nbytes
    user, item, time, features, label, *weight = columns
    return Batch(
        user.astype(np.int64),
        item.astype(np.int64),
        time.astype(np.float64),
        features.astype(np.int32).reshape(n, slots),
        label.astype(np.float32),
        *(column.astype(np.float32) for column in weight),
    )


def narrow(column: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in the narrowest unsigned dtype that holds them; negative ones keep their own."""
    low, high = (int(column.min()), int(column.max())) if column.size else (0, 0)
    if low < 0 or high >= 2**32:
        return column.astype("<i8" if column.itemsize == 8 else "<i4", copy=False)
    return column.astype("<u1" if high < 2**8 else "<u2" if high < 2**16 else "<u4")


def narrow_labels(label: NDArray[np.float32]) -> NDArray[Any]:
    """Labels as bytes where all are exactly 0 or 1, else as they are (the sign of -0.0 is not kept)."""
    bits = label == 1
    return bits.astype("<u1") if np.all(bits | (label == 0)) else label.astype("<f4", copy=False)


def decode_entries(after: str, raw: list[tuple[str, bytes]]) -> list[Entry]:
    """Entries that follow `after`, from their ids and bytes.

    Raises StoreError where they do not join without a gap (ids count events, so a gap shows, but beside damage).
    """
    entries, position = [], entry_order(after)
    for id, data in raw:
        try:
            entry = Entry(id, decode(data))
            position += len(entry.batch)
        except StoreError as problem:
            entry, position = Entry(id, NO_EVENTS, str(problem), data), entry_order(id)
        if entry_order(id) != position:
            raise StoreError(f"the log has a gap before entry {id}: it does not follow on {after or 'the start'}")
        entries.append(entry)
    return entries
