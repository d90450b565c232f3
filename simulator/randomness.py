"""Randomness is an argument: every generator is derived from (seed, purpose, index), none is global."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """An independent generator for one purpose, e.g. `generator(seed, "order", fleet, duplicate, window)`.

    The same arguments give the same stream on every machine; it does not matter what else was drawn before.
    """
    # the number of indices is part of the key, since NumPy reads missing trailing words as zeros
    key = [seed, zlib.crc32(purpose.encode()), len(index), *index]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
