"""From the log's entries, of whatever size, to the chunks that are learned: whole shuffle windows of good events.

Where chunks are cut depends on the order of events alone, never on how they were appended, read or waited for. Events
that do not fit the schema are set aside and counted, and learning goes on: a row index outside the table would end the
trainer, and a label or weight that is not finite the models.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from simulator.store.codec import NO_EVENTS, encode
from simulator.store.protocol import Entry, EventLog, SetAside, entry_order
from simulator.types import Batch, Schema

log = logging.getLogger("trainer")
REASONS = ("entry", "slots", "user", "item", "features", "label", "time", "weight")
"""An entry that is no batch; events with more or fewer slots than the schema; the column that does not fit it."""
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


class Quarantine:
    """The way from the log's entries to the learner."""

    def __init__(
        self, store: EventLog, schema: Schema, users: int, items: int, count: Callable[[str, int], object]
    ) -> None:
        """Of a catalogue of so many users and items; `count` is called with reason and number of those set aside."""
        self._store, self._users, self._items, self._count = store, users, items, count
        fields = [(schema.first_row(field.name), field) for field in schema.fields]
        self._first = np.array([first for first, field in fields for _ in range(field.slots)])
        self._last = np.array([first + field.vocabulary - 1 for first, field in fields for _ in range(field.slots)])

    def admit(self, entry: Entry, events: int) -> Batch:
        """The good ones of an entry's `events`. What is set aside is counted once, however often it is read.

        Raises StoreAway.
        """
        wrong, good = self._wrong(entry, events)
        if not wrong:
            return entry.batch
        why = ", ".join(f"{reason} {count}" for reason, count in wrong.items())
        data = entry.data if entry.problem else encode(entry.batch[np.flatnonzero(~good)])
        if self._store.set_aside(SetAside(entry.id, entry.problem or why, data)):
            log.warning("entry %s of the log is set aside: %s", entry.id, entry.problem or why)
            for reason, count in wrong.items():
                self._count(reason, count)
        return entry.batch[np.flatnonzero(good)] if good.any() else NO_EVENTS

    def _wrong(self, entry: Entry, events: int) -> tuple[dict[str, int], np.ndarray]:
        """Reason -> number of events, the first reason of each; and which events are good [n]."""
        batch = entry.batch
        none = np.zeros(len(batch), bool)
        if entry.problem:
            return {"entry": events}, none
        if batch.features.shape[1] != len(self._first):
            return {"slots": events}, none
        rows = batch.features
        fits = {
            "user": (batch.user >= 0) & (batch.user < self._users),
            "item": (batch.item >= 0) & (batch.item < self._items),
            "features": ((rows == 0) | (rows >= self._first) & (rows <= self._last)).all(1),
            "label": (batch.label >= 0) & (batch.label <= 1),
            "time": np.isfinite(batch.time),
        }
        if batch.weight is not None:
            fits["weight"] = np.isfinite(batch.weight) & (batch.weight >= 0)
        wrong, good = dict[str, int](), ~none
        for reason, fit in fits.items():
            if count := int((good & ~fit).sum()):
                wrong[reason] = count
            good &= fit
        return wrong, good
