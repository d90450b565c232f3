"""The store in memory: what threads of a test share without a server."""

from __future__ import annotations

import json
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from operator import itemgetter
from typing import Any

from simulator.store.codec import decode_entries, encode
from simulator.store.parts import (
    Manifest,
    damaged_part,
    damaged_share,
    digest,
    listed,
    read_manifest,
    write_manifest,
)
from simulator.store.protocol import (
    KEPT,
    QUARANTINE,
    WHOLE,
    Entry,
    Join,
    Member,
    Repeated,
    SetAside,
    Shard,
    Store,
    check_position,
    entry_order,
    refuse_appending,
    refuse_other_groups,
    refuse_publishing,
    unknown_generation,
    unknown_group,
)
from simulator.types import Batch


class MemoryStore(Store):
    """The whole protocol behind one lock; every method may be called from any thread."""

    def __init__(self, capacity: int, run: str = "default") -> None:
        """`capacity`: most events that may wait, at least 1."""
        assert capacity >= 1
        self.run = run
        self._capacity = capacity
        self._changed = threading.Condition()
        self._positions: list[int] = []  # of the entries that are left, ascending
        self._entries: list[bytes] = []
        self._appended = 0  # events, ever
        self._forgotten = 0
        self._marks: dict[str, tuple[str, str]] = {}  # writer -> mark, entry id
        self._keys: set[bytes] = set()  # of all entries ever
        self._groups: dict[str, int] = {}  # group -> events acknowledged
        self._aside: list[SetAside] = []
        self._manifests: dict[int, str] = {}  # in the order of publishing
        self._parts: dict[int, dict[str, bytes]] = {}
        self._pending: dict[Shard, tuple[int, Mapping[str, bytes], Mapping[str, Any]]] = {}
        self._shared: dict[str, bytes] = {}  # by digest
        self._leases: dict[str, tuple[int, float]] = {}  # owner -> number, end
        self._shards: dict[str, tuple[int, float]] = {}  # likewise
        self._members: dict[str, tuple[Member, float]] = {}

    # the log

    def append(self, batch: Batch, *, writer: str = "", mark: str = "", keys: Sequence[bytes] = ()) -> str:
        data, events = encode(batch), len(batch)
        with self._changed:
            last_mark, last_id = self._marks.get(writer, ("", ""))
            if writer and mark and mark == last_mark:
                return last_id
            if known := self._keys & set(keys):
                if writer and len(known) == len(keys):
                    self._marks[writer] = (mark, f"{self._appended}-0")
                raise Repeated(frozenset(known))
            refuse_appending(events, self._appended - self._forgotten, self._capacity)
            self._appended += events
            id = f"{self._appended}-0"
            self._positions.append(self._appended)
            self._entries.append(data)
            self._keys |= set(keys)
            if writer:
                self._marks[writer] = (mark, id)
            self._changed.notify_all()
            return id

    def mark(self, writer: str) -> str:
        with self._changed:
            return self._marks.get(writer, ("", ""))[0]

    def join(self, *groups: str, alone: bool = False) -> None:
        with self._changed:
            kinds = {group.partition("-")[0] for group in groups}
            others = [group for group in self._groups if group.partition("-")[0] in kinds and group not in groups]
            if alone and others:
                raise refuse_other_groups(groups[0], others[0])
            for group in groups:
                self._groups.setdefault(group, self._forgotten)

    def leave(self, group: str) -> None:
        with self._changed:
            self._groups.pop(group, None)
            self._forget()

    def read(self, group: str, after: str, events: int, wait: float) -> list[Entry]:
        start = entry_order(after)
        with self._changed:
            self._acknowledged(group)
            check_position(after, self._forgotten, self._appended)
            self._changed.wait_for(lambda: self._appended > start, wait)
            first = bisect_right(self._positions, start)
            last = max(first + 1, bisect_right(self._positions, start + events))
            found = list(zip(self._positions[first:last], self._entries[first:last], strict=True))
        return decode_entries(after, [(f"{position}-0", data) for position, data in found])

    def acknowledge(self, group: str, upto: str) -> None:
        with self._changed:
            acknowledged = self._acknowledged(group)
            check_position(upto, 0, self._appended)
            self._groups[group] = max(acknowledged, entry_order(upto))
            self._forget()

    def set_aside(self, what: SetAside) -> bool:
        with self._changed:
            new = not self._aside or entry_order(self._aside[-1].id) < entry_order(what.id)
            self._aside = [*self._aside, what][-QUARANTINE:] if new else self._aside
            return new

    def quarantine(self) -> list[SetAside]:
        with self._changed:
            return list(self._aside)

    def waiting(self) -> int:
        with self._changed:
            return self._appended - self._forgotten

    def capacity(self) -> int:
        return self._capacity

    def _acknowledged(self, group: str) -> int:
        if group not in self._groups:
            raise unknown_group(group)
        return self._groups[group]

    def _forget(self) -> None:
        """Drop what every group has acknowledged; nothing while there is no group."""
        if self._groups:
            self._forgotten = max(self._forgotten, min(self._groups.values()))
            gone = bisect_right(self._positions, self._forgotten)
            del self._positions[:gone], self._entries[:gone]

    # the registry

    def publish(
        self,
        generation: int,
        parts: Mapping[str, bytes],
        about: Mapping[str, Any],
        shard: Shard = WHOLE,
        join: Join = itemgetter(0),
    ) -> int:
        with self._changed:
            newest = self._newest()
            if generation <= newest:
                there = self._parts[newest] if generation == newest else {}
                same = parts == there if shard == WHOLE else parts.items() <= there.items()
                refuse_publishing(generation, newest, same)
                return 0
            self._pending[shard] = (generation, parts, json.loads(json.dumps(about)))
            given = [self._pending[one] for one in shard.all if one in self._pending]
            if any(number > generation for number, _, _ in given):
                return 0
            given = [one for one in given if one[0] == generation]
            if len(given) < shard.count:
                return shard.count - len(given)
            whole = {name: bytes(data) for _, own, _ in given for name, data in own.items()}
            announced = join([dict(own) for _, _, own in given])
            self._manifests[generation] = write_manifest(self.run, generation, listed(whole), announced)
            self._parts[generation] = whole
            for old in list(self._manifests)[:-KEPT]:
                del self._manifests[old], self._parts[old]
            self._changed.notify_all()
            return 0

    def newest(self) -> int:
        with self._changed:
            return self._newest()

    def about(self, generation: int) -> dict[str, Any]:
        with self._changed:
            return self._manifest(generation).about

    def fetch(self, generation: int, part: str) -> bytearray:
        with self._changed:
            expected = self._manifest(generation).part(part)
            data = bytearray(self._parts[generation][part])
        if digest(data) != expected:
            raise damaged_part(generation, part)
        return data

    def share(self, data: bytes) -> str:
        found = digest(data)
        with self._changed:
            self._shared[found] = bytes(data)
        return found

    def shared(self, digest: str) -> bytearray:
        with self._changed:
            data = bytearray(self._shared.get(digest, b""))
        if sha256(data).hexdigest() != digest:
            raise damaged_share(digest)
        return data

    def wait_newer(self, than: int, wait: float) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._newest() > than, wait)
            return self._newest()

    def _newest(self) -> int:
        return max(self._manifests, default=-1)

    def _manifest(self, generation: int) -> Manifest:
        if generation not in self._manifests:
            raise unknown_generation(generation, self._newest())
        return read_manifest(self._manifests[generation], self.run, generation)

    # leases and members

    def claim(self, owner: str, duplicates: int, seconds: float) -> int:
        assert duplicates >= 1
        now = time.monotonic()
        with self._changed:
            self._leases = {name: lease for name, lease in self._leases.items() if lease[1] > now}
            number = self._leases.get(owner, (duplicates, now))[0]
            if number >= duplicates:
                held = Counter(lease[0] for name, lease in self._leases.items() if name != owner)
                number = min(range(duplicates), key=lambda n: (held[n], n))
            self._leases[owner] = (number, now + seconds)
            return number

    def release(self, owner: str) -> None:
        with self._changed:
            self._leases.pop(owner, None)
            self._members.pop(owner, None)

    def claim_shard(self, owner: str, shards: int, seconds: float) -> int:
        now = time.monotonic()
        with self._changed:
            others = {n for name, (n, end) in self._shards.items() if name != owner and end > now}
            mine = self._shards.pop(owner, (-1, now))[0]
            free = [n for n in (mine, *range(shards)) if 0 <= n < shards and n not in others]
            if not free:
                return -1
            self._shards[owner] = (free[0], now + seconds)
            return free[0]

    def release_shard(self, owner: str) -> None:
        with self._changed:
            self._shards.pop(owner, None)

    def announce(self, member: Member, seconds: float) -> None:
        with self._changed:
            self._members[member.name] = (member, time.monotonic() + seconds)

    def members(self) -> list[Member]:
        now = time.monotonic()
        with self._changed:
            self._members = {name: known for name, known in self._members.items() if known[1] > now}
            return [self._members[name][0] for name in sorted(self._members)]

    # the whole

    def ping(self) -> None:
        """See Store: memory is always there."""

    def close(self) -> None:
        """See Store: there is nothing to let go of."""
