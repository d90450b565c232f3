"""Choices that a replay repeats: a hash of seed, purpose and index, for what must cost a fraction of a microsecond.

`simulator.randomness.generator` is for streams of numbers; making one takes 20 us, a tenth of what a query costs.
"""

from __future__ import annotations

import functools
import hashlib

RANGE = 1 << 64
"""`stable_hash` is below this."""
_MOST = RANGE - 1


def stable_hash(seed: int, purpose: str, index: int) -> int:
    """A number from 0 to RANGE - 1, evenly spread, the same for the same arguments on every machine."""
    return splitmix64(_start(seed, purpose) + index)


def splitmix64(index: int) -> int:
    """Number `index` of the sequence that starts at 0.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    mixed = index * 0x9E3779B97F4A7C15 & _MOST
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MOST
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MOST
    return mixed ^ mixed >> 31


@functools.lru_cache(1_024)
def _start(seed: int, purpose: str) -> int:
    """Where in the sequence the hashes of a purpose begin: far from those of others."""
    return int.from_bytes(hashlib.blake2b(f"{purpose}/{seed}".encode(), digest_size=8).digest(), "little")
