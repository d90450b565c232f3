"""A replica's lease on a duplicate number, and the announcement by which routers find it; both are renewed."""

from __future__ import annotations

import logging
import threading

from serving.replica.generation import Shelf
from simulator.process import repeat
from simulator.store.protocol import Leases, StoreError
from simulator.store.protocol import Member as Announced

log = logging.getLogger(__name__)
SECONDS = 3.0
"""How long a lease and an announcement hold; after a crash routers forget the replica within it, at the latest."""
BEAT = 0.5
"""Seconds between renewals."""


class Membership:
    """One replica among those that serve."""

    def __init__(self, leases: Leases, name: str, address: str, shelf: Shelf, stop: threading.Event) -> None:
        self._leases, self._name, self._address, self._shelf, self._stop = leases, name, address, shelf, stop
        self._away = False
        self._duplicates = 0  # not known before a generation is published
        self._changed, self._lock = threading.Event(), threading.Lock()
        self.duplicate = 0
        """The number held; what it says before the first `claim` means nothing."""

    def claim(self, duplicates: int) -> int:
        """The duplicate number to serve, of 0 to `duplicates` - 1. Raises StoreAway."""
        with self._lock:
            self._duplicates = duplicates
            self.duplicate = self._leases.claim(self._name, duplicates, SECONDS)
            return self.duplicate

    def tell(self) -> None:
        """Announce at once: what is served has changed."""
        self._changed.set()

    def run(self) -> None:
        """Renew until the stop flag is raised, through all absences of the store."""
        repeat(self._beat, StoreError, self._stop, self._missed)

    def _beat(self) -> None:
        self.renew()
        if self._away:
            log.info("the store is back")
        self._away = False
        self._changed.wait(BEAT)
        self._changed.clear()

    def _missed(self, problem: Exception) -> None:
        if not self._away:
            log.warning("not announced: %s", problem)
        self._away = True

    def renew(self) -> None:
        """Renew lease and announcement once; leave a shared number when another is free. Raises StoreError."""
        with self._lock:
            if self._stop.is_set():
                return
            if self._duplicates:
                if self._shares_needlessly():
                    self._leases.release(self._name)
                self.duplicate = self._leases.claim(self._name, self._duplicates, SECONDS)
            current = self._shelf.current
            duplicate, generation = (current.duplicate, current.number) if current else (self.duplicate, -1)
            self._leases.announce(Announced(self._name, self._address, duplicate, generation), SECONDS)

    def leave(self) -> None:
        """Give the number back and leave the members; after the stop flag was raised. Raises StoreAway."""
        with self._lock:
            self._leases.release(self._name)

    def _shares_needlessly(self) -> bool:
        """Whether another replica holds this number too, while nobody holds some other number.

        So it is after a crash: the successor comes before the lease of the dead has run out.
        """
        others = [member for member in self._leases.members() if member.name != self._name]
        held = {member.duplicate for member in others}
        shared = any(member.duplicate == self.duplicate and member.name < self._name for member in others)
        return shared and len(held | {self.duplicate}) < self._duplicates
