"""What may be learned: events that fit the schema. Others are set aside and counted, and learning goes on.

A row index outside the table would end the trainer, and a label or weight that is not finite the models.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from simulator.store.codec import NO_EVENTS, encode
from simulator.store.protocol import Entry, EventLog, SetAside
from simulator.types import Batch, Schema

log = logging.getLogger("trainer")
REASONS = ("entry", "slots", "user", "item", "features", "label", "time", "weight")
"""An entry that is no batch; events with more or fewer slots than the schema; the column that does not fit it."""


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
