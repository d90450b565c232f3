"""Throttled work, behind something more urgent: in small portions, with rests between them.

A burst that keeps one of few cores busy for 50 ms doubles what queries take meanwhile, also at a low priority: Python's
global lock, which they wait for too, knows none.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
REST = 2.0
"""Seconds of rest for each second of the processor's time: at most a third of a core is used."""


def throttled(portions: Iterable[T], rest: float = REST) -> Iterator[T]:
    """The portions, with a rest after the work on each: `for start in throttled(range(0, size, PIECE))`."""
    for portion in portions:
        start = time.thread_time()
        yield portion
        time.sleep(rest * (time.thread_time() - start))
