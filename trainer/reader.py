"""From the log's entries, of whatever size, to the chunks that are learned: whole shuffle windows of good events.

Where chunks are cut depends on the order of events alone, never on how they were appended, read or waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields

import torch
from torch import Tensor

from simulator.store.protocol import Entry, EventLog, entry_order
from simulator.types import Batch

NAMES = [column.name for column in fields(Batch)]


class Reader:
    """One trainer's place in the log."""

    def __init__(
        self, log: EventLog, group: str, chunk: int, admit: Callable[[Entry, int], Batch], after: str = ""
    ) -> None:
        """Chunks of `chunk` events, of those that `admit` lets through of an entry with so many, from `after` on."""
        self._log, self._group, self._chunk, self._admit = log, group, chunk, admit
        self.after = after
        """The last entry that was read."""
        self._ahead: list[Batch] = []

    @property
    def ahead(self) -> int:
        """Good events that were read, but not taken yet."""
        return sum(map(len, self._ahead))

    def take(self, wait: float) -> Batch | None:
        """The next chunk; None where it is not complete after waiting `wait` seconds for one more entry.

        Raises StoreAway and StoreError as `EventLog.read` does; nothing is taken then.
        """
        if self.ahead < self._chunk:
            for entry in self._log.read(self._group, self.after, 2 * self._chunk, wait):  # one read for two chunks
                good = self._admit(entry, entry_order(entry.id) - entry_order(self.after))
                self._ahead += [good] if len(good) else []
                self.after = entry.id
        if self.ahead < self._chunk:
            return None
        whole = Batch.concatenate(self._ahead)
        self._ahead = [whole[self._chunk :]] if len(whole) > self._chunk else []
        return whole[: self._chunk]

    def state(self) -> dict[str, Tensor]:
        """What was read and not taken, which nobody else will keep: `after` is behind it."""
        columns = vars(Batch.concatenate(self._ahead)) if self._ahead else {}
        kept = {name: column for name, column in columns.items() if column is not None}
        return {f"reader.{name}": torch.from_numpy(column) for name, column in kept.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        kept = {name: state[f"reader.{name}"].numpy() for name in NAMES if f"reader.{name}" in state}
        if kept:
            self._ahead = [Batch(**kept)]
