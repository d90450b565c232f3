"""What is done off the users' path: samples wait for a thread of their own, and no user for them."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable

from serving.metrics import ShadowMetrics

log = logging.getLogger(__name__)
Sample = tuple[bytes, bytes]
"""A request and the answer to it."""
BACKLOG, HELD = 1_024, 64 << 20
"""Samples that wait, and their bytes, at most; what is more is dropped."""
AT_ONCE = 256
"""Samples that are asked and compared together, at most: they share RPCs, what a call of NumPy costs, and the turns
that threads take."""
LINGER = 0.5
"""Seconds for others to join a sample: nobody waits for its comparison."""


class Backlog:
    """Samples, and the thread that works on them."""

    def __init__(self, recorder: ShadowMetrics, work: Callable[[list[Sample]], None]) -> None:
        """`work` gets some samples, several times a second, perhaps none; what it raises is logged."""
        self._recorder, self._work = recorder, work
        self._queue: queue.SimpleQueue[Sample] = queue.SimpleQueue()
        self._held, self._lock = 0, threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="compare", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def offer(self, request: bytes, answer: bytes) -> None:
        """A sample; one for which there is no room is counted. Never waits, never fails."""
        size = len(request) + len(answer)
        with self._lock:
            full = self._queue.qsize() >= BACKLOG or self._held + size > HELD
            self._held += 0 if full else size
        if full:
            self._recorder.dropped.inc()
        else:
            self._queue.put((request, answer))

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
        with self._lock:
            self._held -= sum(len(request) + len(answer) for request, answer in samples)
        self._recorder.backlog.set(self._queue.qsize())
        return samples
