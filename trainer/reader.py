"""From the log's entries, of whatever size, to the chunks that are learned: always whole shuffle windows.

Where chunks are cut depends on the order of events alone, never on how they were appended, read or waited for.
"""

from __future__ import annotations

from collections import deque

from simulator.store.protocol import Entry, EventLog
from simulator.types import Batch


class Reader:
    """One trainer's place in the log."""

    def __init__(self, log: EventLog, group: str, chunk: int, after: str = "", offset: int = 0) -> None:
        """Chunks of `chunk` events, from where `offset` events behind entry `after` were taken already."""
        self._log, self._group, self._chunk = log, group, chunk
        self.after = after
        """The last entry of which every event was taken."""
        self.offset = offset
        """Events that were taken of the entry behind it."""
        self._ahead: deque[Entry] = deque()

    @property
    def ahead(self) -> int:
        """Events that were read, but not taken yet."""
        return sum(len(entry.batch) for entry in self._ahead) - (self.offset if self._ahead else 0)

    def take(self, wait: float) -> Batch | None:
        """The next chunk; None where it is not complete after waiting `wait` seconds for one more entry.

        Raises StoreAway and StoreError as `EventLog.read` does; nothing is taken then.
        """
        if self.ahead < self._chunk:
            last = self._ahead[-1].id if self._ahead else self.after
            self._ahead += self._log.read(self._group, last, 2 * self._chunk, wait)  # one read for two chunks
        return self._cut() if self.ahead >= self._chunk else None

    def _cut(self) -> Batch:
        """Take a chunk of what is ahead, the last entry perhaps only in part."""
        parts: list[Batch] = []
        missing = self._chunk
        while missing:
            entry = self._ahead[0]
            part = entry.batch[self.offset : self.offset + missing]
            parts.append(part)
            missing -= len(part)
            self.offset += len(part)
            if self.offset == len(entry.batch):
                self._ahead.popleft()
                self.after, self.offset = entry.id, 0
        return Batch.concatenate(parts)
