"""Throttled work, behind something more urgent: in small portions, with rests between them; and work done ahead.

A burst that keeps one of few cores busy for 50 ms doubles what queries take meanwhile, also at a low priority: Python's
global lock, which they wait for too, knows none.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
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


def prefetched(items: Iterator[T], count: int = 2) -> Generator[T, None, None]:
    """The same items, the next `count` prefetched by a thread while the caller works on the last one."""
    thread = ThreadPoolExecutor(1)
    try:
        fetched = deque(thread.submit(next, items, None) for _ in range(count))
        while (item := fetched.popleft().result()) is not None:
            fetched.append(thread.submit(next, items, None))
            yield item
    finally:
        thread.shutdown(cancel_futures=True)
