"""The background world: its events flow into the log at a set pace, each of them exactly once.

Each append carries how far the world has come as the writer's mark; after a crash the feeder goes on from there. Where
the log is full or the store away it waits, and does not make up for the time lost.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue

from simulator.errors import FlickerError
from simulator.process import Stopped, retry
from simulator.store.protocol import EventLog, LogFull, StoreAway
from simulator.types import Batch, World
from trainer.metrics import Metrics

log = logging.getLogger("feeder")

WRITER = "world"
CATCH_UP = 1.0
"""Seconds that the feeder may be behind its pace and still make up for."""

Pace = Callable[[Batch], float]
"""How many seconds the events of a batch take."""


def steady(rate: float) -> Pace:
    """`rate` events per second."""
    return lambda batch: len(batch) / rate


def as_logged(speed: float) -> Pace:
    """`speed` times as fast as the times of the events say."""
    last: float | None = None

    def seconds(batch: Batch) -> float:
        nonlocal last
        end = float(batch.time[-1])
        span, last = end - (float(batch.time[0]) if last is None else last), end
        return span / speed

    return seconds


class NoFeeder:
    """For a trainer beside one that feeds the world."""

    problem: BaseException | None = None

    def start(self) -> None:
        """See Feeder."""

    def feed_at_once(self, events: int) -> None:
        """See Feeder."""

    def join(self, seconds: float) -> None:
        """See Feeder."""


class Feeder:
    """A thread that feeds one world into one log."""

    def __init__(
        self, world: World, store: EventLog, metrics: Metrics, stop: threading.Event, pace: Pace, entry: int
    ) -> None:
        """Appends `entry` events at a time until the world ends or the flag `stop` is raised."""
        self._world, self._store, self._metrics, self._stop = world, store, metrics, stop
        self._pace, self._entry = pace, entry
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)
        self._requests: SimpleQueue[int] = SimpleQueue()
        self.problem: BaseException | None = None
        """Why it ended before the world did; it has raised the flag then."""

    def start(self) -> None:
        """Go on from the last mark."""
        self._thread.start()

    def feed_at_once(self, events: int) -> None:
        """The next so many events, a whole entry at least, come without waiting; the others keep their pace.

        From the next entry on. A signal handler may call it, too.
        """
        self._requests.put(events)

    def join(self, seconds: float) -> None:
        """Wait until the thread has ended, `seconds` at most."""
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self._feed()
        except Stopped:
            pass
        except BaseException as problem:  # raised by the main thread, which alone can end the process
            self.problem = problem
            self._stop.set()

    def _feed(self) -> None:
        position = self._position()
        if position:
            log.info("the world goes on from event %s of %s", f"{position:,}", f"{self._world.events:,}")
        due, hurried = time.monotonic(), 0
        for batch in self._world.batches(self._entry, position):
            while not self._requests.empty():
                hurried += self._requests.get()
            seconds = self._pace(batch)
            due = max(due + (0.0 if hurried > 0 else seconds), time.monotonic() - CATCH_UP)
            hurried = max(0, hurried - len(batch))
            self._wait_until(due)
            position += len(batch)
            self._append(batch, str(position))
        self._metrics.world_ended.set(1)
        log.info("the world has ended after %s events; clicks are still learned", f"{position:,}")

    def _position(self) -> int:
        """Events of the world that are in the log already."""
        mark = retry(lambda: self._store.mark(WRITER), StoreAway, self._stop, self._on_error)
        if mark and not (mark.isdecimal() and int(mark) <= self._world.events):
            raise FlickerError(f"run: its log was fed from another world (mark {mark}): name another --run")
        return int(mark or 0)

    def _wait_until(self, due: float) -> None:
        if self._stop.wait(max(0.0, due - time.monotonic())):
            raise Stopped

    def _append(self, batch: Batch, mark: str) -> None:
        """Append once there is room; an append whose answer was lost is known by its mark and not made twice."""
        started = counted = time.monotonic()

        def count_pause(problem: Exception) -> None:
            nonlocal counted
            now = time.monotonic()
            self._metrics.paused_seconds.inc(now - counted)
            counted = now
            if isinstance(problem, StoreAway):
                self._on_error(problem)

        append = partial(self._store.append, batch, writer=WRITER, mark=mark)
        retry(append, (LogFull, StoreAway), self._stop, count_pause)
        if counted > started:  # it had to wait: until now
            self._metrics.paused_seconds.inc(time.monotonic() - counted)
        self._metrics.fed.inc(len(batch))

    def _on_error(self, problem: Exception) -> None:
        self._metrics.store_failed(problem)
        log.warning("%s", problem)
