"""Bringing equal rows of a mini-batch together, so that each table row is updated once, by a sum in a fixed order.

`index_put_(accumulate=True)` sorts too, but inside the step, where no CUDA graph can hold it (it allocates and waits
for the sort); atomic adds would round at random. Which rows a chunk needs is known before its first step, so sorting is
done here, for all steps and models in one call, and `fused.update_rows` sums and applies in one launch.
"""

from __future__ import annotations

import torch
from torch import Tensor


def plan(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [..., n] of each model's own table -> sorted rows, where each run of equal ones ends, and where they stood.

    All int32 [..., n]. The sort is stable: a run keeps the order of the mini-batch, alike for equal models.
    """
    ordered, places = torch.sort(rows.contiguous(), dim=-1, stable=True)
    ends = torch.searchsorted(ordered, ordered, right=True, out_int32=True)
    return ordered, ends, places.int()
