"""The model of the servers in front of which `flicker shadow` is tested: NumPy alone, for environments of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def scores(users: NDArray[Any], items: NDArray[Any], version: int) -> NDArray[np.float32]:
    """Log-odds [B, N] of items [N] or [B, N] for users [B]: a taste, and a tenth as much that is a version's own."""
    wide = np.broadcast_to(items.reshape(-1, items.shape[-1]), (len(users), items.shape[-1]))

    def noise(salt: int) -> NDArray[np.float32]:
        seed = (users[:, None] * 7_919 + wide * 104_729 + salt * 1_299_709).astype(np.uint64)
        seed = (seed * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
        return np.asarray(seed / 2.0**24 * 4 - 2, np.float32)

    return noise(0) + np.float32(0.1) * noise(version)
