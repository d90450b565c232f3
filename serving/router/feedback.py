"""What users were shown and clicked, as events for the log; acknowledged when the store or a file has it.

Reports that come side by side are kept together (group commit): by one append to the log, or, where the router has a
spool, by one fsync, behind which a thread hands them to the store as soon as it takes them. A report has a key, by
which the store knows it again: a caller may send it anew after any error.

A **spool** holds reports on disk until the store has them: what is written there was acknowledged, and outlives this
process.

    FOLDER/RUN/PLACE/lock     held by the router that uses the place: one of several that share FOLDER
    FOLDER/RUN/PLACE/reports  a database of SQLite, whose log takes one fsync for all reports that come side by side

A record that a crash cut off was never acknowledged, and SQLite leaves it out. Records are numbered in the order of
writing; `writer` is the name under which the store remembers the number of the last one that it has, so that nothing is
handed over twice. What the store has is deleted with what is written next, which costs no fsync of its own.

Shapes: n shown items, C context slots.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import logging
import math
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import quote

import numpy as np
from grpc import StatusCode

from protos.recommender_pb2 import FeedbackRequest
from serving.codec import MAX_ITEMS, Refusal, bad
from serving.metrics import RouterMetrics
from serving.router.published import Published
from simulator.errors import SettingError
from simulator.process import Stopped, retry
from simulator.store.codec import decode, encode
from simulator.store.protocol import EventLog, LogFull, Repeated, StoreAway, StoreError
from simulator.types import Batch, Rows

log = logging.getLogger(__name__)
T = TypeVar("T")

KEY = 8
"""Bytes of a report's key."""
MAX_EVENTS = 2_000
"""Events per entry of the log."""
MAX_CLIENT_LENGTH = 64
"""Characters of a caller's name."""
PENDING = 128
"""Reports that wait to be kept at most: fewer than the calls that a server takes, so that queries find room."""
HANGS, REST = 1.0, 0.5
"""Seconds after which a store or disk that has not answered takes no more reports; seconds without a try after one that
failed."""
FLUSH = 2.0
"""Seconds for the last events to be appended at the end."""
MIN_BYTES = 2**22
"""Bytes, the smallest spool."""
PLACES = 64
"""Routers that may share a folder."""
TABLES = """
    PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 4194304;
    CREATE TABLE IF NOT EXISTS reports (number INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB, batch BLOB);
    CREATE TABLE IF NOT EXISTS writer (name TEXT);
"""
Record = tuple[int, bytes, bytes]
"""Number from 1, key, and a batch (simulator/store/codec.py)."""


class Report(NamedTuple):
    """One report, checked."""

    key: bytes
    """[KEY] Of two with one key the log takes the first."""
    events: Batch


def report_of(request: FeedbackRequest, user: int, published: Published) -> Report:
    """Of a user; raises Refusal for a value out of range."""
    if len(request.client) > MAX_CLIENT_LENGTH:
        raise bad("client", request.client, f"at most {MAX_CLIENT_LENGTH} characters")
    key = secrets.token_bytes(KEY)
    if request.client and request.query_id:
        name = f"{request.query_id} {request.client}".encode()
        key = hashlib.blake2b(name, digest_size=KEY).digest()
    return Report(key, events_of(request, user, published))


def events_of(request: FeedbackRequest, number: int, published: Published) -> Batch:
    """One event for each shown item [n], its position among the context where the schema has a field for it.

    A user whom the world has not gets the last one's number: his are only checked. Raises Refusal for a value out
    of range.
    """
    ranges, n = published.ranges, len(request.shown)
    if not 1 <= n <= MAX_ITEMS:
        raise bad("shown", n, f"1 to {MAX_ITEMS:,} items")
    if not (math.isfinite(request.time) and request.time >= 0):
        raise bad("time", request.time, "seconds, a finite number, 0 or more")
    item = np.array([shown.item for shown in request.shown], np.int64)
    if (highest := int(item.max())) >= ranges.items:
        raise bad("shown", highest, f"item 0 to {ranges.items - 1}")
    user = np.full(n, min(number, ranges.users - 1), np.int64)
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


class NotWritten(Exception):
    """No room within the bound, or a disk that does not take it."""


class Spool:
    """The records of one router; one thread may write while another reads and forgets."""

    def __init__(self, folder: Path, run: str, limit: int) -> None:
        """Claims the first free place and finds what is there. At most `limit` bytes. Raises SettingError."""
        self._max_bytes, self._lock = limit, threading.Lock()
        try:
            place, self._held = claim(folder / quote(run, safe=""))
            self._base = sqlite3.connect(place / "reports", isolation_level=None, check_same_thread=False)
            self._base.executescript(TABLES)
            if not self._base.execute("SELECT 1 FROM writer").fetchall():
                self._base.execute("INSERT INTO writer VALUES (?)", (f"spool-{secrets.token_hex(8)}",))
            self.writer = str(self._base.execute("SELECT name FROM writer").fetchone()[0])
            kept = self._base.execute("SELECT count(*), total(length(key) + length(batch)) FROM reports").fetchone()
        except (OSError, sqlite3.Error) as problem:
            why = getattr(problem, "strerror", None) or problem
            raise SettingError("spool", folder, f"{why}: name a folder that can be written") from None
        self.waiting, self.bytes = int(kept[0]), int(kept[1])
        """Records that the store does not have, as far as is known, and their bytes."""
        self._forgotten = 0  # number of the last record that it has, as far as this process knows

    def write(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Returns when all are on disk, keys and batches. Raises NotWritten."""
        size = sum(len(key) + len(batch) for key, batch in records)
        with self._lock:
            if self.bytes + size > self._max_bytes:
                limit = f"{self.bytes} of at most {self._max_bytes} bytes"
                raise NotWritten(f"the spool holds {limit}, which wait for the event log")
            try:
                self._base.execute("BEGIN")
                self._base.execute("DELETE FROM reports WHERE number <= ?", (self._forgotten,))
                self._base.executemany("INSERT INTO reports (key, batch) VALUES (?, ?)", records)
                self._base.execute("COMMIT")
            except sqlite3.Error as problem:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                raise NotWritten(f"the spool cannot be written: {problem}") from None
            self.waiting, self.bytes = self.waiting + len(records), self.bytes + size

    def read(self, limit: int) -> list[Record]:
        """The oldest records that are not forgotten, `limit` at most, in order."""
        with self._lock:
            query = "SELECT number, key, batch FROM reports WHERE number > ? ORDER BY number LIMIT ?"
            return self._base.execute(query, (self._forgotten, limit)).fetchall()

    def forget(self, records: Sequence[Record]) -> None:
        """The store has these, the oldest ones."""
        with self._lock:
            self._forgotten = records[-1][0]
            self.waiting -= len(records)
            self.bytes -= sum(len(key) + len(batch) for _, key, batch in records)

    def close(self) -> None:
        """Let go of the folder; what waits stays there."""
        self._base.close()
        os.close(self._held)


def claim(folder: Path) -> tuple[Path, int]:
    """The first place that nobody uses, and a file descriptor that keeps others out of it. Raises OSError."""
    for place in range(PLACES):
        path = folder / str(place)
        path.mkdir(parents=True, exist_ok=True)
        held = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return path, held
        except BlockingIOError:
            os.close(held)
    raise OSError(f"{PLACES} routers use it")


class InStore:
    """Reports are kept by the store alone."""

    def __init__(self, store: EventLog, writer: str, metrics: RouterMetrics) -> None:
        """`writer`: this router's name, no other's."""
        self._store, self._writer, self._metrics = store, writer, metrics
        self._process, self._entry = secrets.token_hex(8), 0  # unlike that of one with its name before it

    def keep(self, reports: Sequence[Report]) -> None:
        """Returns when all of them outlive this process. Raises Refusal where they do not, or it is not known."""
        self._entry += 1
        try:
            append(self._store, reports, self._writer, f"{self._process}-{self._entry}")
        except StoreError as problem:
            self._metrics.store_failed(problem)
            if not isinstance(problem, (StoreAway, LogFull)):
                log.error("feedback is refused: %s", problem)
            raise unavailable(str(problem)) from None

    def close(self) -> None:
        """There is nothing to let go."""


class OnDisk:
    """They are kept by a spool; a thread hands it over, in order, until the store has it."""

    def __init__(self, store: EventLog, spool: Spool, metrics: RouterMetrics) -> None:
        self._store, self._spool, self._metrics = store, spool, metrics
        metrics.feedback_buffered.set_function(lambda: spool.waiting)
        metrics.spool_bytes.set_function(lambda: spool.bytes)
        self._changed = threading.Event()
        self._ending, self._give_up = threading.Event(), threading.Event()
        self._last_problem = ""
        self._thread = threading.Thread(target=self._run, name="hand over feedback", daemon=True)
        self._thread.start()

    def keep(self, reports: Sequence[Report]) -> None:
        """See InStore."""
        try:
            self._spool.write([(report.key, encode(report.events)) for report in reports])
        except NotWritten as problem:
            raise unavailable(str(problem)) from None
        self._changed.set()

    def close(self) -> None:
        """Hand over what can be, and let go."""
        for flag in (self._ending, self._give_up):
            flag.set()
            self._changed.set()
            self._thread.join(FLUSH)
        if waiting := self._spool.waiting:
            log.info("%d reports stay in the spool until this router runs again", waiting)
        if not self._thread.is_alive():
            self._spool.close()

    def _run(self) -> None:
        try:
            mark = self._insist(lambda: self._store.mark(self._spool.writer))
            while not self._give_up.is_set():
                self._changed.clear()
                if records := self._spool.read(PENDING):
                    self._hand_over([record for record in records if record[0] > int(mark or 0)])
                    self._spool.forget(records)
                elif self._ending.is_set():
                    return
                else:
                    self._changed.wait()
        except Stopped:
            pass
        except Exception:
            log.exception("the spool is not handed over until this router is started again")

    def _hand_over(self, records: Sequence[Record]) -> None:
        """In entries of MAX_EVENTS; a record's number is the mark, from which the next process goes on."""
        reports = [Report(key, decode(batch)) for _, key, batch in records]
        while reports:
            count = fitting(reports, min(MAX_EVENTS, self._store.capacity()))
            group, mark = reports[:count], str(records[count - len(reports) - 1][0])
            self._insist(partial(append, self._store, group, self._spool.writer, mark))
            reports = reports[count:]

    def _insist(self, action: Callable[[], T]) -> T:
        """Until the store has done it: what is here was acknowledged, and is not dropped for any error."""
        return retry(action, StoreError, self._give_up, self._failed)

    def _failed(self, problem: Exception) -> None:
        if type(problem).__name__ != self._last_problem:
            log.warning("feedback waits in the spool: %s", problem)
        self._last_problem = type(problem).__name__
        self._metrics.store_failed(problem)


def fitting(reports: Sequence[Report], limit: int) -> int:
    """How many of them, at least the first, one entry of `limit` events holds."""
    ends = itertools.accumulate(len(report.events) for report in reports)
    return min(len(reports), max(1, sum(end <= limit for end in ends)))


def append(store: EventLog, reports: Sequence[Report], writer: str, mark: str) -> None:
    """Reports as one entry in the order of time, without those that the log has. Raises as EventLog.append does."""
    new = {report.key: report.events for report in reversed(reports)}  # of two with one key the first
    while new:
        whole = Batch.concatenate(list(reversed(new.values())))
        ordered = whole[np.argsort(whole.time, kind="stable")]
        try:
            store.append(ordered, writer=writer, mark=mark, keys=list(new))
            return
        except Repeated as problem:
            new = {key: events for key, events in new.items() if key not in problem.known}


def unavailable(why: str) -> Refusal:
    """For a report that may be sent again."""
    return Refusal(StatusCode.UNAVAILABLE, f"{why}; report again later")


Done = Callable[[Refusal | None], None]
"""Hears what became of a report: None where it is kept."""


class Feedback:
    """Takes reports from any thread, without waiting; a thread has those kept that wait, all at once."""

    def __init__(self, keeper: InStore | OnDisk, metrics: RouterMetrics, max_events: int = MAX_EVENTS) -> None:
        """`max_events`: of the reports that are kept at once."""
        self._keeper, self._metrics, self._max_events = keeper, metrics, max_events
        self._changed = threading.Condition()
        self._waiting: list[tuple[Report, Done]] = []
        self._ending = False
        self._since = float("inf")  # when what is being kept was handed over
        self._rests, self._why = 0.0, ""
        self._thread = threading.Thread(target=self._run, name="keep feedback", daemon=True)

    def start(self) -> None:
        """Begin to keep."""
        self._thread.start()

    def take(self, report: Report, done: Done) -> None:
        """Have a report kept, or refused at once where that would take long."""
        with self._changed:
            refusal = self._refusal()
            if refusal is None:
                self._waiting.append((report, done))
                self._changed.notify()
        if refusal is not None:
            self._end([(report, done)], refusal)

    def close(self) -> None:
        """Have what waits kept, and hand over what is kept, in a few seconds at most."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(FLUSH)
        self._keeper.close()

    def _refusal(self) -> Refusal | None:
        now = time.monotonic()
        if self._ending:
            return unavailable("this router ends")
        if now < self._rests:
            return unavailable(self._why)
        if now - self._since > HANGS:
            return unavailable(f"what was reported {now - self._since:.1f} s ago is not kept yet")
        if len(self._waiting) >= PENDING:
            return unavailable(f"{PENDING} reports wait to be kept, and no more may")
        return None

    def _run(self) -> None:
        while group := self._next():
            refusal = None
            try:
                self._keeper.keep([report for report, _ in group])
            except Refusal as problem:
                refusal = problem
            except Exception:  # the thread goes on: the next report may be another
                log.exception("feedback was not kept")
                refusal = unavailable("a fault of the router; its log says more")
            with self._changed:
                self._since = float("inf")
                if refusal:
                    self._rests, self._why = time.monotonic() + REST, refusal.message.partition("; report")[0]
                    group, self._waiting = group + self._waiting, []  # they would wait for the same
            self._end(group, refusal)

    def _next(self) -> list[tuple[Report, Done]]:
        """What waits, as much as one entry may hold; nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ending)
            count = fitting([report for report, _ in self._waiting], self._max_events)
            group, self._waiting = self._waiting[:count], self._waiting[count:]
            self._since = time.monotonic() if group else float("inf")
        return group

    def _end(self, group: Sequence[tuple[Report, Done]], refusal: Refusal | None) -> None:
        if refusal:
            self._metrics.feedback_refused.inc(sum(len(report.events) for report, _ in group))
        for _, done in group:
            done(refusal)
