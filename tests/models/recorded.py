"""A CUDA graph's stand-in on the CPU: what PyTorch does is recorded once, then done again on the same memory.

Python does not run in a replay, so whatever was decided or read while recording is decided for good, as in a graph.
Operations that a capture forbids are refused: those that tell Python a number, or have as many results as they find.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FORBIDDEN = {
    "_local_scalar_dense",
    "lift_fresh",
    "nonzero",
    "masked_select",
    "unique2",
    "index_put_",
    "index_put",
    "sort",
}


class Recorded(TorchDispatchMode):
    """Records every operation inside `with`; `replay` repeats them."""

    def __init__(self) -> None:
        super().__init__()
        self.tape: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        name = func.overloadpacket.__name__
        assert name not in FORBIDDEN, f"{name} has no place in a CUDA graph"
        out = func(*args, **(kwargs or {}))
        self.tape.append((func, args, kwargs or {}, tensors(out)))
        return out

    def replay(self) -> None:
        """All of it again; a result that was new goes where it went the first time."""
        for func, args, kwargs, results in self.tape:
            given = {tensor.untyped_storage().data_ptr() for tensor in tensors((args, kwargs))}
            for result, again in zip(results, tensors(func(*args, **kwargs)), strict=True):
                if result.untyped_storage().data_ptr() not in given:
                    result.copy_(again)


def capture(work: Callable[[], None]) -> Callable[[], None]:
    """As `graphs.CudaGraphs` does it: a few runs first, then one that is recorded, whose effects are undone."""
    for _ in range(3):
        work()
    recorded = Recorded()
    with recorded:
        work()
    return recorded.replay


def tensors(tree: object) -> list[Tensor]:
    """All tensors in a nest of lists and such."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
