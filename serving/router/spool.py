"""Feedback on disk until the store has it: what is written here was acknowledged, and outlives this process.

    FOLDER/RUN/PLACE/lock     held by the router that uses the place: one of several that share FOLDER
    FOLDER/RUN/PLACE/reports  a database of SQLite, whose log takes one fsync for all reports that come side by side

A record that a crash cut off was never acknowledged, and SQLite leaves it out. Records are numbered in the order of
writing; `writer` is the name under which the store remembers the number of the last one that it has, so that nothing is
handed over twice. What the store has is deleted with what is written next, which costs no fsync of its own.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from simulator.errors import SettingError

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
