"""Choices that a replay repeats: a hash of seed, purpose and index, for what must cost a microsecond.

`simulator.randomness.generator` is for streams of numbers; making one takes 20 us, a tenth of what a query costs.
"""

from __future__ import annotations

import hashlib

RANGE = 1 << 64
"""`stable_hash` is below this."""


def stable_hash(seed: int, purpose: str, *index: int | str) -> int:
    """A number from 0 to RANGE - 1, evenly spread, the same for the same arguments on every machine."""
    words = "/".join([purpose, str(seed), *map(str, index)])
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "little")
