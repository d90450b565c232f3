"""Variants timed side by side, A B A B ..., so that whatever else the machine does slows all of them alike."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median


@dataclass
class Passes:
    """Seconds of each timed pass of one variant, in the order they were made."""

    cpu: list[float] = field(default_factory=list)
    """Of the process, all its threads together: the steadier clock where other processes share the cores."""
    wall: list[float] = field(default_factory=list)

    def medians(self) -> dict[str, float]:
        """What goes into the results file."""
        return {"cpu_seconds": median(self.cpu), "wall_seconds": median(self.wall)}


def interleave(
    label: str, variants: Mapping[str, Callable[[int], object]], rounds: int, warm_up: int
) -> dict[str, Passes]:
    """Time `rounds` passes of each variant in turn, after `warm_up` rounds that do not count; progress on stderr.

    A variant is called with the number of the round, so that all of them can do the same work in it.
    """
    passes = {name: Passes() for name in variants}
    with progress_bar(label, (warm_up + rounds) * len(variants)) as advance:
        for number in range(warm_up + rounds):
            for name, work in variants.items():
                cpu, wall = time.process_time(), time.perf_counter()
                work(number)
                cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
                if number >= warm_up:
                    passes[name].cpu.append(cpu)
                    passes[name].wall.append(wall)
                advance()
    return passes


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[], None]]:
    """A count on standard error, and what moves it on; without a thread, whose work would count as ours."""
    done, start, end = 0, time.monotonic(), "\r" if sys.stderr.isatty() else ""

    def advance() -> None:
        nonlocal done
        done += 1
        left = (time.monotonic() - start) / done * (total - done)
        if end or done == total:
            print(f"{label}: {done} of {total}, {left:4.0f} s left", end=end, file=sys.stderr, flush=True)

    yield advance
    print(file=sys.stderr)
