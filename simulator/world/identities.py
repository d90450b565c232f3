"""The table row of a user or an item: its own, or one that it shares by a hash.

Where I items share N < I rows, an item shares its row with some other with probability 1 - (1 - 1/N)^(I-1), about
1 - exp(-I/N): 0.63 where N is just below I, 0.86 at half as many rows, all but certain at a tenth. Those that share a
row also share what a model learns from their identity; their other features still tell them apart.
"""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np

from simulator.types import Field, Ints, Schema

Identified = Literal["user", "item"]


def id_field(name: Identified, count: int, hash_rows: int) -> Field:
    """The field of all users or items, `count` of them, in at most `hash_rows` rows (0: one for each)."""
    return Field(name, name, min(count, hash_rows or count))


def id_rows(schema: Schema, name: str, count: int) -> Ints:
    """[count] the row of each user or item in a field of them, hashed where it has fewer rows than there are."""
    number = np.arange(count)
    rows = next(field.vocabulary for field in schema.fields if field.name == name)
    return schema.first_row(name) + (number if rows == count else hashed(number, name, rows))


def hashed(number: Ints, name: str, rows: int) -> Ints:
    """[n] from 0 to rows - 1, the same on every machine: the finaliser of SplitMix64 (Steele et al., OOPSLA 2014).

    `name` keeps fields apart: users who share a row do not come with items that share one.
    """
    x = number.astype(np.uint64) + (np.uint64(zlib.crc32(name.encode())) << np.uint64(32))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) % np.uint64(rows)).astype(np.int64)
