"""Feedback on disk until the store has it: what is written here was acknowledged, and outlives this process.

    FOLDER/RUN/PLACE/lock                     held by the router that uses the place: one of several that share FOLDER
    FOLDER/RUN/PLACE/WRITER-FIRST.reports     a segment: records, the first of which has the number FIRST
    record                                    length u32 · CRC-32 u32 · key 8 bytes · a batch (simulator/store/codec.py)

Records are only ever appended; a segment is deleted when the store has all of it. WRITER is the name under which the
store remembers the number of the last record that it has, so that nothing is handed over twice: neither file nor
position is written again. A record that a crash cut off was never acknowledged, and ends its segment.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import struct
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from simulator.errors import SettingError
from simulator.files import flush

log = logging.getLogger(__name__)

LEAST = 2**22
"""Bytes, the smallest spool."""
SEGMENT = 2**20
"""Bytes after which a new segment begins; more where the spool would have more than PIECES of them."""
PIECES = 32
HEADER = struct.Struct("<II")
PLACES = 64
"""Routers that may share a folder."""
KEY = 8
"""Bytes of a report's key."""


class SpoolFull(Exception):
    """No room within the bound."""


@dataclass(frozen=True)
class Record:
    """One report as it is written."""

    key: bytes
    """[KEY]"""
    batch: bytes
    number: int = 0
    """From 1, in the order of writing; 0 before it is written."""

    def __len__(self) -> int:
        return HEADER.size + KEY + len(self.batch)


@dataclass
class Segment:
    """One file."""

    path: Path
    file: int
    """Its descriptor."""
    first: int
    """Number of its first record."""
    records: int = 0
    """Those that are on disk."""
    end: int = 0
    """Bytes of these; what may stand behind was never acknowledged, and is written over."""

    def read(self, start: int) -> tuple[bytes, bytes] | None:
        """Key and batch of the record that begins at a byte; None where there is none as a whole."""
        head = os.pread(self.file, HEADER.size, start)
        if len(head) < HEADER.size:
            return None
        length, checksum = HEADER.unpack(head)
        if length > os.fstat(self.file).st_size - start:
            return None  # noise: no such length is to be made room for
        body = os.pread(self.file, length, start + HEADER.size)
        if len(body) < max(length, KEY) or zlib.crc32(body) != checksum:
            return None
        return body[:KEY], body[KEY:]


class Spool:
    """The records of one router; one thread may write while another reads and forgets."""

    def __init__(self, folder: Path, run: str, most: int) -> None:
        """Claims the first free place and finds what is there. At most `most` bytes. Raises SettingError."""
        self._most = most
        self._lock, self._segments = threading.Lock(), list[Segment]()
        self._taken = 0  # bytes of the first segment that the store has
        self._forgotten = 0  # number of the last record that it has, as far as this process knows
        try:
            self._folder, self._held = claim(folder / quote(run, safe=""))
            files = sorted(self._folder.glob("*-*.reports"), key=lambda path: path.stem.rpartition("-")[2])
            self._segments = [self._found(path) for path in files]
            self.writer = files[-1].stem.rpartition("-")[0] if files else f"spool-{secrets.token_hex(8)}"
            if not files:
                self._begin(1)
        except OSError as problem:
            raise SettingError(
                "spool", folder, f"{problem.strerror or problem}: name a folder that can be written"
            ) from None
        self._forgotten = self._segments[0].first - 1

    @property
    def bytes(self) -> int:
        """On disk, what the store has of the first segment included."""
        with self._lock:
            return sum(segment.end for segment in self._segments)

    @property
    def waiting(self) -> int:
        """Records that the store does not have, as far as is known."""
        with self._lock:
            last = self._segments[-1]
            return last.first + last.records - 1 - self._forgotten

    def write(self, records: Sequence[Record]) -> None:
        """Returns when all are on disk. Raises SpoolFull, and OSError for a disk that does not take them."""
        data = b"".join(
            HEADER.pack(KEY + len(record.batch), zlib.crc32(record.key + record.batch)) + record.key + record.batch
            for record in records
        )
        if self.bytes + len(data) > self._most:
            raise SpoolFull(f"the spool holds {self.bytes} of at most {self._most} bytes, which wait for the event log")
        last = self._segments[-1]
        if last.end >= max(SEGMENT, self._most // PIECES):
            last = self._begin(last.first + last.records)
        written = 0
        while written < len(data):
            written += os.pwrite(last.file, data[written:], last.end + written)
        os.fsync(last.file)
        with self._lock:
            last.records, last.end = last.records + len(records), last.end + len(data)

    def read(self, most: int) -> list[Record]:
        """The oldest records that are not forgotten, `most` at most, in order; fewer where a segment ends."""
        with self._lock:
            segment, start, end = self._segments[0], self._taken, self._segments[0].end
        found: list[Record] = []
        while start < end and len(found) < most:
            record = segment.read(start)
            assert record is not None, "what is on disk was read before, or written by this process"
            found.append(Record(*record, self._forgotten + 1 + len(found)))
            start += len(found[-1])
        return found

    def forget(self, records: Sequence[Record]) -> None:
        """The store has these, the oldest ones."""
        with self._lock:
            self._taken += sum(map(len, records))
            self._forgotten += len(records)
            gone = None
            if self._taken >= self._segments[0].end and len(self._segments) > 1:
                gone, self._taken = self._segments.pop(0), 0
                self._forgotten = self._segments[0].first - 1
        if gone:
            os.close(gone.file)
            gone.path.unlink()

    def close(self) -> None:
        """Let go of the folder; what waits stays there."""
        for segment in self._segments:
            os.close(segment.file)
        os.close(self._held)

    def _begin(self, first: int) -> Segment:
        path = self._folder / f"{self.writer}-{first:020d}.reports"
        segment = Segment(path, os.open(path, os.O_RDWR | os.O_CREAT, 0o600), first)
        flush(self._folder)
        with self._lock:
            self._segments.append(segment)
        return segment

    def _found(self, path: Path) -> Segment:
        """A segment of an earlier process, up to its last whole record."""
        segment = Segment(path, os.open(path, os.O_RDWR), int(path.stem.rpartition("-")[2]))
        while (record := segment.read(segment.end)) is not None:
            segment.end += HEADER.size + sum(map(len, record))
            segment.records += 1
        if rest := os.fstat(segment.file).st_size - segment.end:
            log.warning("%s: %d bytes behind the last whole record are left out", path.name, rest)
        return segment


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
