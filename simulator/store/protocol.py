"""What processes share: an event log, a snapshot registry and leases, behind one protocol.

    trainer   reads the log, publishes generations    replica   fetches generations, holds a lease and an address
    router    appends feedback, finds replicas        feeder    appends the world's events, as far as there is room

**Log.** Entries are batches of events, never changed, numbered by the store in the order of appending. Each trainer is
a *group*; it acknowledges an entry only when what it learned from it is saved, and entries that every group has
acknowledged are forgotten. The log holds at most `capacity` events that are not yet acknowledged: beyond it `append`
refuses, so that the writer waits or says no. Nothing is ever dropped: while no group has joined, everything waits.
The bound is each writer's own, so that a feeder with a lower one leaves room for users' feedback.

**Exactly once.** A trainer saves its position (the last entry it learned from) together with its weights, and reads on
from there; acknowledgement only frees memory. A writer that must not repeat itself (the feeder) hands in a mark with
its batch, stored in the same step; after a crash it goes on from the last mark. An append whose answer was lost is
simply repeated: with the writer's last mark it is not appended twice. What may come again through another writer (a
user's report, sent anew to another router) has a key, which is remembered for an hour in the step that appends it.

**Quarantine.** What a trainer cannot learn it sets aside, once however often it is read: the last `QUARANTINE` entries.

**Generations.** Published parts are immutable; a generation is announced only when all its parts are there, and the
last `KEPT` generations stay. Several trainers (*shards*) may publish a part of the duplicates each: the generation is
announced, by whoever comes last, when all have. Where the bytes of parts lie is another matter (parts.py). What all of
them have in common (the names of users and items) is shared once, known by its digest, and stays as long as the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Protocol

from simulator.errors import FlickerError
from simulator.types import Batch

KEPT = 3
"""Generations kept in the registry."""
REMEMBERED = 3_600
"""Seconds for which a key is remembered at least, unless too many others come."""
MAX_KEYS = 400_000
"""Keys after which half of what is remembered may be forgotten early: 111 reports a second for an hour. The server then
holds twice as many at most."""
QUARANTINE = 256
"""Entries of the log kept because of what is wrong with them."""


class StoreError(FlickerError):
    """The store cannot do what was asked, now or ever; the message names the store and the way out.

    StoreError: wrong for good <- StoreAway: cannot be reached, try again <- StoreRefuses: answers, but not now
    """


class StoreAway(StoreError):
    """The store cannot be reached just now; try again later. Whether the last change was made is not known: every
    change may be repeated without harm, an `append` where it names a writer and a mark."""


class StoreRefuses(StoreAway):
    """The store can be reached, and does for now not do what was asked: no memory, no disk, read-only, loading, busy.

    Nothing was changed. For callers it is away; a class of its own because someone may have to make room.
    """


class Repeated(StoreError):
    """Events with some of these keys were appended before. Nothing was changed: leave them out, and append the rest."""

    def __init__(self, known: frozenset[bytes]) -> None:
        super().__init__(f"{len(known)} keys are in the log already: leave their events out")
        self.known = known


class UnknownGeneration(StoreError):
    """It was never published, or newer ones have displaced it."""


class Unsigned(StoreError):
    """A generation that none of the known keys has signed."""


class LogFull(StoreError):
    """No room for more events until a trainer has learned and saved some: wait and try again."""


@dataclass(frozen=True)
class Entry:
    """One appended batch."""

    id: str
    """`"E-0"`, where E counts the events of the log up to and including this entry (see `entry_order`). Redis orders
    its stream by the same ids, so that events are counted without opening entries."""
    batch: Batch
    """Without events where its bytes are none."""
    problem: str = ""
    """Why they are none."""
    data: bytes = b""
    """They themselves."""


@dataclass(frozen=True)
class SetAside:
    """Of one entry what could not be learned."""

    id: str
    """The entry's."""
    why: str
    data: bytes
    """Its bad events as a batch (see codec.py), or the bytes of an entry that is none."""


def entry_order(id: str) -> int:
    """Events of the log up to and including entry `id`, 0 for "": later entries are greater."""
    return int(id.partition("-")[0]) if id else 0


@dataclass(frozen=True)
class Member:
    """A replica that serves."""

    name: str
    """Unique, e.g. host and process id."""
    address: str
    """host:port of its gRPC server."""
    duplicate: int
    """The duplicate of every arm that it holds, 0-based."""
    generation: int
    """What it serves now; -1 while it has none."""


@dataclass(frozen=True)
class Shard:
    """One of several trainers: each trains a share of the duplicates."""

    number: int = 0
    count: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, duplicates: int) -> range:
        """The numbers of its duplicates, of so many in all."""
        return range(duplicates * self.number // self.count, duplicates * (self.number + 1) // self.count)

    @property
    def all(self) -> list[Shard]:
        """It and the others, in order."""
        return [Shard(number, self.count) for number in range(self.count)]

    @property
    def group(self) -> str:
        """Its name among those who read the log."""
        return "trainer" if self == WHOLE else f"trainer-{self.number}-of-{self.count}"


WHOLE = Shard()
"""The only trainer."""
Join = Callable[[list[dict[str, Any]]], Mapping[str, Any]]
"""From what each shard says about a generation, in order, to what is announced with it."""


class EventLog(Protocol):
    """The order of events that all duplicates learn from."""

    def append(self, batch: Batch, *, writer: str = "", mark: str = "", keys: Sequence[bytes] = ()) -> str:
        """Append events (at least one) as one entry and, where `writer` is named, remember its `mark`, both or neither.

        Returns the entry's id. With the mark (not empty) that is the writer's last already, it changes nothing and
        returns the id of then. `keys` (all different) are remembered with the entry; where one was before, nothing is
        appended, but with all of them known the mark is remembered. Raises Repeated then; LogFull, StoreAway, and
        StoreError for a batch larger than the capacity.
        """

    def mark(self, writer: str) -> str:
        """The last mark of a writer, empty where it has none."""

    def join(self, *groups: str, alone: bool = False) -> None:
        """Make groups known: nothing is forgotten any more that they have not acknowledged. Harmless when repeated.

        They start at the first entry that is not forgotten. Raises StoreError where they are to be `alone` and another
        group of their kind (the name up to its first -) reads the log; none has joined then.
        """

    def leave(self, group: str) -> None:
        """Forget a group that will not come back, so that it no longer holds the log up."""

    def read(self, group: str, after: str, events: int, wait: float) -> list[Entry]:
        """Entries after id `after` ("" for the first), in order: about `events` events at most, at least one entry.

        Waits up to `wait` seconds for the first; empty when there is none by then. Raises StoreAway, and StoreError
        where the group has not joined, where entries after `after` were forgotten already, and where `after` is not an
        entry of this log (a store that lost its data). An entry that is damaged comes with its `problem`.
        """

    def acknowledge(self, group: str, upto: str) -> None:
        """What the group learned up to this entry is saved; forget what every group has acknowledged.

        Harmless when repeated, and for an entry before the last acknowledged one. Raises StoreAway, and StoreError
        where the group has not joined or the log ends before `upto`.
        """

    def set_aside(self, rejected: SetAside) -> bool:
        """Keep what cannot be learned, for someone to look at; entries come in the log's order.

        Whether it is new: nothing is kept twice, however often the log is read. Raises StoreAway.
        """

    def quarantine(self) -> list[SetAside]:
        """The last QUARANTINE that were set aside, in order."""

    def waiting(self) -> int:
        """Events in the log that some group has not acknowledged; all of them while there is no group."""

    def capacity(self) -> int:
        """Most events that may wait before this writer's `append` refuses."""


class Registry(Protocol):
    """Published generations."""

    run: str
    """Whose they are: the name of this run among those on one server."""

    def publish(
        self,
        generation: int,
        parts: Mapping[str, bytes],
        about: Mapping[str, Any],
        shard: Shard = WHOLE,
        join: Join = itemgetter(0),
    ) -> int:
        """Store all parts, then announce the generation in one step; forget all but the last KEPT.

        A shard stores its own parts, which then stay for ten minutes at least; with the last one's the generation is
        announced. Returns how many others are missing: publish again, within that time, until none is. One that is seen
        to be at a later generation has seen this one announced (a server that loses power may forget its last second).

        Publishing the newest generation again with the same parts is harmless (a trainer that died in between); what
        was announced first stays. `about` holds what JSON can. Raises StoreError for a generation that is older than
        the newest or has other parts, StoreAway.
        """

    def newest(self) -> int:
        """The last announced generation, -1 where there is none."""

    def about(self, generation: int) -> dict[str, Any]:
        """What was announced with a generation. Raises StoreError where it is unknown, forgotten or damaged."""

    def fetch(self, generation: int, part: str) -> bytearray:
        """One part, as a copy. Raises StoreError where it is unknown or forgotten, or it or its manifest is damaged."""

    def share(self, data: bytes) -> str:
        """Store what generations have in common; returns its digest, by which they may refer to it. Harmless when
        repeated. Raises StoreAway."""

    def shared(self, digest: str) -> bytearray:
        """It, as a copy. Raises StoreError where it is not there or damaged."""

    def wait_newer(self, than: int, wait: float) -> int:
        """The newest generation, as soon as it is newer than `than` or after `wait` seconds."""


class Leases(Protocol):
    """Who serves which duplicate, and who is which shard."""

    def claim(self, owner: str, duplicates: int, seconds: float) -> int:
        """A duplicate number, 0 to `duplicates` - 1, for `seconds`: one that nobody holds, else the least shared.

        Among equals the lowest. Repeated in time, it keeps the number and renews it.
        """

    def release(self, owner: str) -> None:
        """Give the number back and leave the members (`owner` is the member's name)."""

    def claim_shard(self, owner: str, shards: int, seconds: float) -> int:
        """A shard number, 0 to `shards` - 1, for `seconds`: the lowest that nobody else holds, -1 where all are held.

        Repeated in time, it keeps the number and renews it.
        """

    def release_shard(self, owner: str) -> None:
        """Give it back."""

    def announce(self, member: Member, seconds: float) -> None:
        """Be found by routers for `seconds`; repeat before they are over."""

    def members(self) -> list[Member]:
        """Replicas whose announcements have not run out, by name."""


class Store(EventLog, Registry, Leases, Protocol):
    """All of it, in one place."""

    def ping(self) -> None:
        """Raises StoreAway where the store cannot be reached."""

    def close(self) -> None:
        """Let go of connections; the store itself stays."""


# What every store refuses, in the same words.


def refuse_appending(events: int, waiting: int, capacity: int) -> None:
    """Raises LogFull or StoreError unless `events` more fit beside those that wait."""
    assert events >= 1, "an entry holds at least one event"
    if events > capacity:
        raise StoreError(f"a batch of {events} events can never fit into a log of {capacity}: append smaller batches")
    if waiting + events > capacity:
        raise LogFull(
            f"the log has no room for {events} events: {waiting} of at most {capacity} wait until trainers have "
            "learned and saved them; try again later"
        )


def refuse_other_groups(group: str, other: str) -> StoreError:
    """For a log that another group of the same kind reads."""
    hint = "start as many trainers as before, or name another --run"
    return StoreError(f"{other} reads this log, beside which {group} cannot: {hint}")


def unknown_group(group: str) -> StoreError:
    """For a reader whose group the log does not know."""
    return StoreError(f"group {group} has not joined this log: join before reading, and start on an empty store anew")


def check_position(after: str, forgotten: int, appended: int) -> None:
    """Raises StoreError where a log of which events (forgotten, appended] are there cannot be read on from `after`."""
    if entry_order(after) < forgotten:
        raise StoreError(
            f"the log begins after event {forgotten} and cannot be read from event {entry_order(after)}: "
            "start without saved state and with an empty store, or from state that was saved later"
        )
    if entry_order(after) > appended:
        raise StoreError(
            f"the log ends at event {appended}, before the reader's position {entry_order(after)}: "
            "the store lost its data or is another one; start without saved state and with an empty store"
        )


def refuse_publishing(generation: int, newest: int, same: bool) -> None:
    """Raises StoreError unless `generation` may be published (again) while `newest` is the last one."""
    if generation < newest:
        raise StoreError(f"generation {generation} is older than {newest}, which is published: another trainer runs")
    if generation == newest and not same:
        raise StoreError(f"generation {generation} is published with other content: another trainer runs")


def unknown_generation(generation: int, newest: int) -> UnknownGeneration:
    """For a generation that is not (or no longer) in the registry."""
    return UnknownGeneration(f"generation {generation} is not in the store, the newest is {newest}: ask for the newest")
