"""What users were shown and clicked, as events for the log; buffered while the store is away.

Shapes: n shown items, C context slots.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from collections import deque

import numpy as np
from grpc import StatusCode

from protos.recommender_pb2 import FeedbackRequest
from serving.codec import MOST_ITEMS, Refusal, bad
from serving.router.metrics import RouterMetrics
from serving.router.published import Published
from simulator.process import Backoff, Stopped
from simulator.store.protocol import EventLog, LogFull, StoreAway, StoreError
from simulator.types import Batch, Rows

log = logging.getLogger(__name__)

MOST_EVENTS = 2_000
"""Events per entry of the log."""
FLUSH = 2.0
"""Seconds for the last events to be appended at the end."""


def events_of(request: FeedbackRequest, published: Published) -> Batch:
    """One event for each shown item [n], its position among the context where the schema has a field for it.

    Raises Refusal for a value out of range.
    """
    ranges, n = published.ranges, len(request.shown)
    if not 1 <= n <= MOST_ITEMS:
        raise bad("shown", n, f"1 to {MOST_ITEMS:,} items")
    if not (math.isfinite(request.time) and request.time >= 0):
        raise bad("time", request.time, "seconds, a finite number, 0 or more")
    item = np.array([shown.item for shown in request.shown], np.int64)
    if (highest := int(item.max())) >= ranges.items:
        raise bad("shown", highest, f"item 0 to {ranges.items - 1}")
    user = np.full(n, ranges.user(request.user), np.int64)
    context = np.tile(np.array(ranges.context_rows(request.context), np.int32), (n, 1))
    place_positions(context, published)
    label = np.array([shown.clicked for shown in request.shown], np.float32)
    seconds = np.full(n, request.time or time.time())
    return Batch(user, item, seconds, published.encoder.encode(user, item, context), label)


def place_positions(context: Rows, published: Published) -> None:
    """Write the position of each shown item into its context [n, C]; the last position known stands for all behind."""
    column = 0
    for name, vocabulary, first, slots in published.ranges.context:
        if name == "position":
            context[:, column] = first + np.minimum(np.arange(len(context)), vocabulary - 1)
        column += slots


class FeedbackBuffer:
    """Between users and the log: a thread appends what comes, several reports as one entry, each exactly once."""

    def __init__(self, store: EventLog, metrics: RouterMetrics, writer: str, most: int) -> None:
        """`writer`: this router's name, no other's; `most`: events that wait while the store cannot take them."""
        self._store, self._metrics, self._writer, self._most = store, metrics, writer, most
        self._changed = threading.Condition()
        self._waiting: deque[Batch] = deque()
        self._events = 0  # waiting, and those that are being appended
        self._ending, self._give_up = False, threading.Event()
        self._thread = threading.Thread(target=self._run, name="append feedback", daemon=True)

    def start(self) -> None:
        """Begin to append."""
        self._thread.start()

    def take(self, events: Batch) -> None:
        """Keep events until the store has them, all or none. Raises Refusal where there is no room."""
        with self._changed:
            full = self._ending or self._events + len(events) > self._most
            if not full:
                self._waiting.append(events)
                self._events += len(events)
                self._metrics.feedback_buffered.set(self._events)
                self._changed.notify()
        if full:
            self._metrics.feedback_refused.inc(len(events))
            message = f"the event log is away or full, and {self._events} of at most {self._most} events wait for it: "
            raise Refusal(StatusCode.UNAVAILABLE, message + "try again later")

    def close(self) -> None:
        """Append what is left, in FLUSH seconds at most."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(FLUSH)
        self._give_up.set()
        self._thread.join(FLUSH)
        if self._events:
            log.warning("%d events of feedback are lost: the store did not take them in time", self._events)

    def _run(self) -> None:
        run, entry = secrets.token_hex(8), 0  # marks of this process, unlike those of one with its name before it
        while batch := self._next():
            entry += 1
            try:
                self._append(batch, f"{run}-{entry}")
            except Stopped:
                return
            with self._changed:
                self._events -= len(batch)
                self._metrics.feedback_buffered.set(self._events)

    def _next(self) -> Batch | None:
        """What waits, as one entry in the order of time; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ending)
            parts: list[Batch] = []
            while self._waiting and sum(map(len, parts)) + len(self._waiting[0]) <= MOST_EVENTS:
                parts.append(self._waiting.popleft())
        if not parts:
            return None
        whole = Batch.concatenate(parts)
        return whole[np.argsort(whole.time, kind="stable")]

    def _append(self, batch: Batch, mark: str) -> None:
        """Until the store has it; repeated with the same mark, it is there once."""
        backoff, told = Backoff(self._give_up), False
        while True:
            try:
                self._store.append(batch, writer=self._writer, mark=mark)
                return
            except (StoreAway, LogFull) as problem:
                if not told:
                    log.warning("feedback waits: %s", problem)
                told = True
            except StoreError as problem:
                log.error("%d events of feedback are lost: %s", len(batch), problem)
                return
            backoff.wait()
