"""Work on the GPU captured once as a CUDA graph and replayed with one launch, on the same memory each time.

What is captured may not wait for the GPU, copy from the host, or let a number on the GPU decide what happens next; and
whatever Python decides is decided for good. `Capture` is how the users of this module see it, so that tests can put
something in its place that needs no GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

Work = Callable[[], None]
Capture = Callable[[Work], Work]
"""From work to what repeats it."""


def uncaptured(work: Work) -> Work:
    """No capture: the work itself, launched piece by piece each time."""
    return work


WARM_UP = 3
"""Runs before the capture: kernels are compiled and libraries loaded in them, which cannot be captured."""
_ALONE = threading.Lock()
"""One capture at a time: `torch.cuda.graph` begins by waiting for the whole device, which another capture forbids."""


class CudaGraphs:
    """Captures that share one pool of memory, since they never run at once; nothing of it lives from one to the next.

    Their inputs and outputs must stand elsewhere: in tensors made before the capture and kept as long as the graphs.
    """

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Work) -> Work:
        """Run `work` a few times, then capture it. What is returned replays it on the caller's current stream."""
        graph = torch.cuda.CUDAGraph()
        with _ALONE:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UP):
                    work()
            # thread_local: other threads of the process may go on using the GPU meanwhile
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                work()
        return graph.replay
