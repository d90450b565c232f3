"""From the host to the GPU through pinned memory: the next chunk's orders come while this one is learned.

A chunk's events are 0.3 MB (8,192 events of 8 fields). The orders in which 64 models learn them are 4 MB and
milliseconds of drawing on the host; they depend on the chunk's number alone, so they can be made one chunk ahead.

Shapes: m models, n events of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from simulator.types import Ints

Draw = Callable[[int, int], Ints]
"""From the number of a chunk and its n events to the orders [m, n]."""


def upload(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device, in the order of the caller's stream; the host does not wait for it."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


class Orders:
    """The orders of one chunk after the other, each copied on a stream of its own while the one before is in use.

    Two buffers take turns. The caller must have waited for all work on a chunk before it takes the next one's.
    """

    def __init__(self, draw: Draw, device: torch.device) -> None:
        self._draw, self._device = draw, device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._ready: dict[tuple[int, int], Tensor] = {}
        self._buffers: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}

    def take(self, chunk: int, events: int) -> Tensor:
        """The orders [m, n] of a chunk on the device, drawn now unless they were prepared."""
        if (chunk, events) not in self._ready:
            self.prepare(chunk, events)
        orders = self._ready.pop((chunk, events))
        self._ready.clear()
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
        return orders

    def prepare(self, chunk: int, events: int) -> None:
        """Draw a chunk's orders and begin to copy them, beside whatever the GPU does now."""
        drawn = torch.from_numpy(self._draw(chunk, events))
        if self._stream is None:
            self._ready[chunk, events] = drawn
            return
        key = (chunk % 2, *drawn.shape)
        if key not in self._buffers:
            pinned = torch.empty(drawn.shape, dtype=drawn.dtype, pin_memory=True)
            self._buffers[key] = pinned, torch.empty_like(pinned, device=self._device)
            self._stream.wait_stream(torch.cuda.current_stream(self._device))  # whose memory it may have been
        pinned, there = self._buffers[key]
        pinned.copy_(drawn)
        with torch.cuda.stream(self._stream):
            there.copy_(pinned, non_blocking=True)
        self._ready[chunk, events] = there
