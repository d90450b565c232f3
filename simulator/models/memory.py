"""Memory used again: the system takes longer to find fresh pages for a large tensor than we take to fill it."""

from __future__ import annotations

import weakref

import numpy as np
import torch
from torch import Tensor

from simulator.types import Floats


class Recycled:
    """Makes tensors, in the memory of such as were made before and are gone. One thread calls it; any may let go."""

    def __init__(self) -> None:
        self._free: list[Floats] = []

    def __call__(self, rows: int, columns: int) -> Tensor:
        """An uninitialised float32 tensor [rows, columns] on the CPU.

        Its memory is free again when neither it nor a view of it is referred to any more.
        """
        memory = self._free.pop() if self._free else None  # only this thread takes
        if memory is None or memory.size != rows * columns:  # what has another size is let go
            memory = np.empty(rows * columns, np.float32)
        lent = memory[:]  # PyTorch refers to this view as long as anything refers to the tensor's storage
        weakref.finalize(lent, self._free.append, memory).atexit = False
        return torch.from_numpy(lent).view(rows, columns)

    def let_go(self) -> None:
        """Give what is free to the system: a tensor that was once held for longer must not cost memory for good."""
        self._free.clear()
