"""What is done off the users' path: samples wait for a thread of their own, so many at most, and no user for them."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from serving.router.metrics import ShadowMetrics

log = logging.getLogger(__name__)
Sample = TypeVar("Sample")

BACKLOG = 1_024
"""Samples that wait, about so many at most; more are dropped."""
AT_ONCE = 256
"""Samples that are asked and compared together, at most: they share RPCs, what a call of NumPy costs, and the turns
that threads take."""
LINGER = 0.5
"""Seconds for others to join a sample: nobody waits for its comparison."""


class Backlog(Generic[Sample]):
    """Samples, and the thread that works on them."""

    def __init__(self, recorder: ShadowMetrics, work: Callable[[list[Sample]], None]) -> None:
        """`work` gets some samples, several times a second, perhaps none; what it raises is logged."""
        self._recorder, self._work = recorder, work
        self._queue: queue.SimpleQueue[Sample] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="compare", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def put(self, sample: Sample) -> bool:
        """Whether there was room; a sample without is counted. Never waits, never fails."""
        if self._queue.qsize() >= BACKLOG:
            self._recorder.drop()
            return False
        self._queue.put(sample)
        return True

    def close(self, seconds: float) -> None:
        """Stop after what is at work, which takes so long at most."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._work(self._drain())
            except Exception:  # the live view must not end because of one answer
                log.exception("comparisons failed")

    def _drain(self) -> list[Sample]:
        """What waits, after a moment for the first and one for others; perhaps nothing."""
        samples: list[Sample] = []
        with contextlib.suppress(queue.Empty):
            samples.append(self._queue.get(timeout=0.2))
            if self._queue.qsize() < AT_ONCE:
                self._stop.wait(LINGER)
            while len(samples) < AT_ONCE:
                samples.append(self._queue.get_nowait())
        self._recorder.backlog(self._queue.qsize())
        return samples
