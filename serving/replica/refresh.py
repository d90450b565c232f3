"""What a replica has with the store, beside its queries: its lease on a duplicate number, the announcement by which
routers find it, and newer generations: wait, fetch, verify, prepare, then swap one reference."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import torch

from serving.metrics import ReplicaMetrics
from serving.replica.generation import Generation, Refused, Shelf
from simulator.models.ranker import Rankers
from simulator.process import repeat
from simulator.store.protocol import KEPT, Leases, Member, Registry, StoreAway, StoreError, UnknownGeneration, Unsigned

log = logging.getLogger(__name__)
WAIT = 0.5
"""Seconds to wait for a newer generation before looking at the stop flag and the lease again."""
SECONDS = 3.0
"""How long a lease and an announcement hold; after a crash routers forget the replica within it, at the latest."""
BEAT = 0.5
"""Seconds between renewals."""


class Membership:
    """One replica among those that serve."""

    def __init__(self, leases: Leases, name: str, address: str, shelf: Shelf, stop: threading.Event) -> None:
        self.name, self.shelf, self.stop = name, shelf, stop
        self._leases, self._address = leases, address
        self._away = False
        self._duplicates = 0  # not known before a generation is published
        self._changed, self._lock = threading.Event(), threading.Lock()
        self.duplicate = 0
        """The number held; what it says before the first `claim` means nothing."""

    def claim(self, duplicates: int) -> int:
        """The duplicate number to serve, of 0 to `duplicates` - 1. Raises StoreAway."""
        with self._lock:
            self._duplicates = duplicates
            self.duplicate = self._leases.claim(self.name, duplicates, SECONDS)
            return self.duplicate

    def tell(self) -> None:
        """Announce at once: what is served has changed."""
        self._changed.set()

    def run(self) -> None:
        """Renew until the stop flag is raised, through all absences of the store."""
        repeat(self._beat, StoreError, self.stop, self._missed)

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
            if self.stop.is_set():
                return
            if self._duplicates:
                if self._shares_needlessly():
                    self._leases.release(self.name)
                self.duplicate = self._leases.claim(self.name, self._duplicates, SECONDS)
            current = self.shelf.current
            duplicate, generation = (current.duplicate, current.number) if current else (self.duplicate, -1)
            self._leases.announce(Member(self.name, self._address, duplicate, generation), SECONDS)

    def leave(self) -> None:
        """Give the number back and leave the members; after the stop flag was raised. Raises StoreAway."""
        with self._lock:
            self._leases.release(self.name)

    def _shares_needlessly(self) -> bool:
        """Whether another replica holds this number too, while nobody holds some other number.

        So it is after a crash: the successor comes before the lease of the dead has run out.
        """
        others = [member for member in self._leases.members() if member.name != self.name]
        held = {member.duplicate for member in others}
        shared = any(member.duplicate == self.duplicate and member.name < self.name for member in others)
        return shared and len(held | {self.duplicate}) < self._duplicates


def log_problem(problem: Exception) -> None:
    """Of what ended a look at the store; that it is away, others say."""
    if not isinstance(problem, StoreAway):
        log.error("refreshing failed", exc_info=problem)


class Refresher:
    """Keeps a member's shelf up to date."""

    def __init__(
        self,
        registry: Registry,
        membership: Membership,
        metrics: ReplicaMetrics,
        ready: Callable[[], None],
        make_rankers: Rankers,
    ) -> None:
        """`ready` is called after each swap."""
        self._registry, self._membership, self._metrics = registry, membership, metrics
        self._ready, self._make_rankers = ready, make_rankers
        self._shelf, self._stop = membership.shelf, membership.stop
        self._refused = -1, -1
        """The newest generation when it was refused, and the duplicate of which it was."""

    def run(self) -> None:
        """Refresh until the stop flag is raised, through all absences of the store."""
        torch.set_num_threads(1)
        # whatever is published must not end the thread that waits for the next
        repeat(lambda: self.once(WAIT), Exception, self._stop, log_problem)

    def once(self, wait: float) -> None:
        """Wait up to `wait` seconds for a newer generation and take it. Raises StoreAway."""
        current = self._shelf.current
        served = current.number if current else -1
        newest = self._registry.wait_newer(max(served, self._refused[0]), wait)
        moved = current is not None and current.duplicate != self._membership.duplicate
        if newest < 0 or (newest == served and not moved) or (newest, self._membership.duplicate) == self._refused:
            return
        # with nothing to serve, as that duplicate or at all, one of the older generations is better than none
        older = range(newest - 1, max(-1, newest - KEPT), -1) if current is None or moved else ()
        if next(filter(self._take, (newest, *older)), None) != newest:
            self._refused = newest, self._membership.duplicate

    def _take(self, number: int) -> bool:
        """Whether a generation was taken into service; one that cannot be is counted."""
        started = time.perf_counter()
        try:
            generation = self._load(number)
        except StoreAway:
            raise
        except Exception as problem:  # of ours: the next generation must not wait for its end
            reason = problem.reason if isinstance(problem, Refused) else "unexpected"
            self._metrics.refused.labels(reason).inc()
            log.warning("generation %d refused: %s", number, problem, exc_info=reason == "unexpected")
            return False
        if generation is None or self._stop.is_set():
            return False
        self._shelf.put(generation)
        self._metrics.refreshed(number, generation.published, time.perf_counter() - started)
        arms, native = len(generation.rankers), sum(ranker.name == "native" for ranker in generation.rankers)
        self._metrics.native.set(native)
        words = "serving generation %d, duplicate %d, %d of %d arms by the native engine"
        log.info(words, number, generation.duplicate, native, arms)
        self._membership.tell()
        self._ready()
        return True

    def _load(self, number: int) -> Generation | None:
        """A generation, ready to serve; None where it is not (or no longer) there. Raises Refused and StoreAway."""
        try:
            about = self._registry.about(number)
            duplicates = about.get("duplicates")
            if not isinstance(duplicates, int) or duplicates < 1:
                raise Refused("about", f"duplicates = {duplicates}: at least 1")
            duplicate = self._membership.claim(duplicates)
            weights = self._registry.fetch(number, f"duplicate/{duplicate}")
            catalog = self._registry.fetch(number, "catalog")
        except StoreAway:
            raise
        except UnknownGeneration:
            return None
        except StoreError as problem:
            raise Refused("signature" if isinstance(problem, Unsigned) else "digest", str(problem)) from None
        whose = self._registry.run, number, duplicate
        generation = Generation.of(*whose, self._membership.name, about, weights, catalog, self._make_rankers)
        if current := self._shelf.current:
            current.refuse_unlike(generation)
        return generation
