"""CPU seconds and peak memory of the parts of one process."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

RESET_PEAK = "5"
"""Written to /proc/self/clear_refs it makes Linux forget the highest memory so far (proc_pid_clear_refs(5))."""


class Meter:
    """What each part took, parts inside it included. Elsewhere than on Linux a peak is that of everything so far."""

    def __init__(self) -> None:
        self.cpu: dict[str, float] = {"start": time.process_time()}
        """Seconds of all threads; `start` is Python and its imports."""
        self.peak: dict[str, int] = {"start": peak_memory()}
        """Bytes held at most while it ran."""
        self._open: list[str] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Whatever is done inside; a part that comes again adds to its time."""
        self._note_peak()
        self._open.append(name)
        start = time.process_time()
        try:
            yield
        finally:
            self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - start
            self._note_peak()
            self._open.pop()

    def _note_peak(self) -> None:
        """To all that is under way, and begin anew."""
        for name in self._open:
            self.peak[name] = max(self.peak.get(name, 0), peak_memory())
        forget_peak()


def forget_peak() -> None:
    """Start anew, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)


def peak_memory() -> int:
    """Bytes held at most since the start, or since it was forgotten."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
