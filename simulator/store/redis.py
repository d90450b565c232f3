"""The store that processes and machines share: a Redis or Valkey server (7.0 or newer; 7.2 for Valkey).

**The event log** is one stream, whose ids count events, with one consumer group per trainer.

    log         stream: "E-0" -> batch. E counts events, so XRANGE from one count to another is a read of that many,
                and a gap shows
    log:counts  hash: events `appended` and events `forgotten`, ever
    log:marks   hash: writer -> "E-0 mark" of its last entry
    log:keys    set: keys of the last hour at most; log:keys:before holds those of the hour before
    quarantine  stream: "E-0" -> why, data: what of entry E-0 could not be learned

Readers use XRANGE from their own position and not XREADGROUP: the position that counts is the one that a trainer saved
together with its weights, and a second one on the server, with its list of pending entries, could only disagree. The
consumer group's last id is what the group acknowledged (XGROUP SETID); the log is trimmed behind the slowest, and
`XINFO GROUPS` shows each group's lag. Every change is one script (scripts.lua), so it happens as a whole or not at all.

**Published generations** are one stream, whose ids are generation + 1, and one key for each part.

    generations     stream: "G+1-0" -> manifest, and the key of every part
    pending         hash: "I/N" -> "GENERATION manifest" of what this shard has handed in
    part:..., shared:...    the parts themselves, see parts.py; where they lie elsewhere, `weights` says in which place

They travel in pieces with rests between them, so that neither end nor the server keeps queries waiting. A blocking read
of the stream from the last known generation cannot miss an announcement, which a subscription to a channel could while
reconnecting.

**Leases and members** run out by the server's clock, so that the clocks of replicas do not matter.

    leases   hash: owner -> "number end", of replicas; shards   the same of trainers
    members  hash: name -> "end JSON"      (end: ms since the unix epoch)
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from redis import ResponseError

from simulator.errors import SettingError
from simulator.security.credentials import secret_file
from simulator.store.access import URL_ALONE, Access, without_password
from simulator.store.codec import decode_entries, encode
from simulator.store.connection import Connection
from simulator.store.objects import ObjectParts
from simulator.store.parts import (
    UPLOAD,
    Manifest,
    Parts,
    RedisParts,
    damaged_part,
    damaged_share,
    digest,
    listed,
    missing_part,
    read_manifest,
    write_manifest,
)
from simulator.store.protocol import (
    KEPT,
    MAX_KEYS,
    QUARANTINE,
    REMEMBERED,
    WHOLE,
    Entry,
    Join,
    Member,
    Repeated,
    SetAside,
    Shard,
    Store,
    StoreAway,
    check_position,
    entry_order,
    refuse_appending,
    refuse_other_groups,
    refuse_publishing,
    unknown_generation,
    unknown_group,
)
from simulator.types import Batch

CAPACITY = 200_000
"""Events that may wait unless a process asks for another bound (about 8 MB of a server's memory)."""
WORLD_CAPACITY = 150_000
"""Of these, what the feeder may fill with the world's events: the rest is left for the feedback of users."""


class RedisStore(Store):
    """The whole protocol on one server; may be used from any thread.

    Keys are named `flicker:RUN:...`, so that several runs may share a server. A call that finds the server away tries
    again with growing pauses for `patience` seconds and then raises StoreAway; the next call finds it when it is back.
    """

    def __init__(
        self,
        url: str,
        *,
        run: str,
        capacity: int,
        patience: float = 1.0,
        access: Access = URL_ALONE,
        signing_keys: Callable[[], Sequence[bytes]] = tuple,
        parts: Callable[[Connection], Parts] = RedisParts,
    ) -> None:
        """Does not connect yet. `capacity` in events; `parts`: where those of generations lie, beside this server.

        Raises SettingError for a URL that cannot be one.
        """
        self.run, self._capacity, self._keys = run, capacity, signing_keys
        self._server = server = Connection(url, run, patience, access)
        names = ("log", "log:counts", "log:marks", "log:keys", "log:keys:before")
        self._log_keys = [server.key(name) for name in names]
        self._log, self._counts, self._marks, *self._remembered = self._log_keys
        self._quarantine, self._generations, self._pending = map(server.key, ("quarantine", "generations", "pending"))
        self._leases, self._members, self._shards = map(server.key, ("leases", "members", "shards"))
        self._append, self._join, self._leave = map(server.script, ("append", "join", "leave"))
        self._acknowledge, self._set_aside = map(server.script, ("acknowledge", "set_aside"))
        self._announce_generation, self._hand_in = server.script("publish"), server.script("hand_in")
        self._claim, self._claim_shard = server.script("claim"), server.script("claim_shard")
        self._announce, self._list = server.script("announce"), server.script("members")
        self._parts = parts(server)

    # the log

    def append(self, batch: Batch, *, writer: str = "", mark: str = "", keys: Sequence[bytes] = ()) -> str:
        refuse_appending(len(batch), 0, self._capacity)
        args = encode(batch), len(batch), writer, mark, self._capacity, REMEMBERED, MAX_KEYS, *keys
        done, answer = self._append(self._log_keys, *args, repeat=bool(writer and mark))
        if done == 2:
            raise Repeated(frozenset(answer))
        if not done:
            refuse_appending(len(batch), int(answer), self._capacity)
        return str(answer.decode())

    def mark(self, writer: str) -> str:
        last = self._server.ask(lambda: self._server.client.hget(self._marks, writer)) or b""
        return str(last.decode().partition(" ")[2])

    def join(self, *groups: str, alone: bool = False) -> None:
        if other := self._join(self._log_keys, int(alone), *groups):
            raise refuse_other_groups(groups[0], other.decode())

    def leave(self, group: str) -> None:
        self._leave(self._log_keys, group)

    def read(self, group: str, after: str, events: int, wait: float) -> list[Entry]:
        start, end = entry_order(after), time.monotonic() + wait
        while True:
            entries = self._server.ask(lambda: self._read_now(group, after, events))
            remaining = end - time.monotonic()
            if entries or remaining <= 0:
                return decode_entries(after, [(id.decode(), fields.get(b"batch", b"")) for id, fields in entries])
            self._server.wait_for_entry(self._log, f"{start}-0", remaining)

    def acknowledge(self, group: str, upto: str) -> None:
        appended = self._acknowledge(self._log_keys, group, entry_order(upto))
        if appended < 0:
            raise unknown_group(group)
        check_position(upto, 0, appended)

    def set_aside(self, rejected: SetAside) -> bool:
        return bool(self._set_aside([self._quarantine], rejected.id, rejected.why, rejected.data, QUARANTINE))

    def quarantine(self) -> list[SetAside]:
        entries = self._server.ask(lambda: self._server.client.xrange(self._quarantine))
        return [SetAside(id.decode(), fields[b"why"].decode(), fields[b"data"]) for id, fields in entries]

    def waiting(self) -> int:
        counts = self._server.ask(lambda: self._server.client.hmget(self._counts, "appended", "forgotten"))
        appended, forgotten = (int(count or 0) for count in counts)
        return appended - forgotten

    def capacity(self) -> int:
        return self._capacity

    def _read_now(self, group: str, after: str, events: int) -> list[Any]:
        """Ids and fields of the entries that are there."""
        start = entry_order(after)
        with self._server.client.pipeline(transaction=True) as pipe:
            pipe.hmget(self._counts, "appended", "forgotten")
            pipe.xinfo_groups(self._log)
            pipe.xrange(self._log, f"{start + 1}-0", f"{start + events}-0")
            counts, groups, entries = pipe.execute(raise_on_error=False)
        if isinstance(groups, ResponseError) and "no such key" in str(groups):
            raise unknown_group(group)  # no stream: nobody has joined and nothing was appended
        for answer in (counts, groups, entries):
            if isinstance(answer, Exception):
                raise answer
        if group not in [known["name"].decode() for known in groups]:
            raise unknown_group(group)
        appended, forgotten = (int(count or 0) for count in counts)
        check_position(after, forgotten, appended)
        if not entries and appended > start:  # the next entry is larger than `events`
            entries = self._server.client.xrange(self._log, f"{start + 1}-0", "+", count=1)
        return list(entries)

    # the registry

    def publish(
        self,
        generation: int,
        parts: Mapping[str, bytes],
        about: Mapping[str, Any],
        shard: Shard = WHOLE,
        join: Join = itemgetter(0),
    ) -> int:
        keys = self._keys()
        text = write_manifest(self.run, generation, listed(parts), about, keys, shard)
        manifest = read_manifest(text, self.run, generation, keys, shard)
        if self._is_published(manifest, shard):
            return 0
        for name, data in parts.items():
            self._parts.put(part_name(manifest, name), data)
        handed_in = self._handed_in(text, manifest, shard, keys)
        if any(one.generation > generation for one in handed_in):
            return 0
        if missing := shard.count - sum(one.generation == generation for one in handed_in):
            return missing
        together = {name: part for one in handed_in for name, part in one.parts.items()}
        text = write_manifest(self.run, generation, together, join([one.about for one in handed_in]), keys)
        self._announce_whole(read_manifest(text, self.run, generation, keys), text)
        return 0

    def _handed_in(self, text: str, manifest: Manifest, shard: Shard, keys: Sequence[bytes]) -> list[Manifest]:
        """What this shard and the others have handed in, in order. Raises StoreError where it is damaged."""
        if shard == WHOLE:
            return [manifest]
        flat = self._hand_in([self._pending], str(shard), f"{manifest.generation} {text}", UPLOAD)
        texts = dict(zip(flat[::2], flat[1::2], strict=True))
        parsed = ((one, texts[str(one).encode()].partition(b" ")) for one in shard.all if str(one).encode() in texts)
        return [read_manifest(content, self.run, int(number or -1), keys, one) for one, (number, _, content) in parsed]

    def _announce_whole(self, manifest: Manifest, text: str) -> None:
        keys = self._parts.keys(part_name(manifest, name) for name in manifest.parts)
        done = self._announce_generation([self._generations, *keys], manifest.generation, text, KEPT)
        if done == 0:
            raise StoreAway(
                f"a part of generation {manifest.generation} ran out after {UPLOAD} s, before all were there: try again"
            )
        if done == -1 and not self._is_published(manifest, WHOLE):
            raise AssertionError("announced generations do not disappear")
        oldest = self._server.ask(lambda: self._server.client.xrange(self._generations, count=1))
        self._parts.forget(int(oldest[0][0].partition(b"-")[0]) - 1)

    def newest(self) -> int:
        entries = self._server.ask(lambda: self._server.client.xrevrange(self._generations, count=1))
        return int(entries[0][0].partition(b"-")[0]) - 1 if entries else -1

    def about(self, generation: int) -> dict[str, Any]:
        return self._manifest(generation).about

    def fetch(self, generation: int, part: str) -> bytearray:
        manifest = self._manifest(generation)
        stored = self._parts.get(part_name(manifest, part))
        if stored is None:
            self._manifest(generation)  # raises where newer ones have displaced it
            raise missing_part(generation, part, self._parts.where)
        if stored.sha256 != manifest.part(part):
            raise damaged_part(generation, part)
        return stored.data

    def share(self, data: bytes) -> str:
        sha256 = digest(data)
        self._parts.put(f"shared:{sha256}", data, stay=True)
        return sha256

    def shared(self, digest: str) -> bytearray:
        stored = self._parts.get(f"shared:{digest}")
        if stored is None or stored.sha256 != digest:
            raise damaged_share(digest)
        return stored.data

    def wait_newer(self, than: int, wait: float) -> int:
        end = time.monotonic() + wait
        while True:
            newest, remaining = self.newest(), end - time.monotonic()
            if newest > than or remaining <= 0:
                return newest
            self._server.wait_for_entry(self._generations, f"{than + 1}-0", remaining)

    def _is_published(self, manifest: Manifest, shard: Shard) -> bool:
        """Whether these parts are published already, among those of all shards. Raises StoreError where they may not
        be."""
        newest = self.newest()
        if newest < manifest.generation:
            return False
        published = self._manifest(newest).parts if newest == manifest.generation else {}
        same = manifest.parts == published if shard == WHOLE else manifest.parts.items() <= published.items()
        refuse_publishing(manifest.generation, newest, same)
        return True

    def _manifest(self, generation: int) -> Manifest:
        id = f"{generation + 1}-0"
        entries = self._server.ask(lambda: self._server.client.xrange(self._generations, id, id))
        if not entries:
            raise unknown_generation(generation, self.newest())
        return read_manifest(entries[0][1].get(b"manifest", b""), self.run, generation, self._keys())

    # leases and members

    def claim(self, owner: str, duplicates: int, seconds: float) -> int:
        assert duplicates >= 1
        return int(self._claim([self._leases], owner, duplicates, int(1000 * seconds)))

    def release(self, owner: str) -> None:
        self._server.ask(lambda: self._server.client.hdel(self._leases, owner))
        self._server.ask(lambda: self._server.client.hdel(self._members, owner))

    def claim_shard(self, owner: str, shards: int, seconds: float) -> int:
        return int(self._claim_shard([self._shards], owner, shards, int(1000 * seconds)))

    def release_shard(self, owner: str) -> None:
        self._server.ask(lambda: self._server.client.hdel(self._shards, owner))

    def announce(self, member: Member, seconds: float) -> None:
        self._announce([self._members], member.name, int(1000 * seconds), json.dumps(asdict(member)))

    def members(self) -> list[Member]:
        announced = self._list([self._members])
        return sorted((Member(**json.loads(member)) for member in announced), key=lambda member: member.name)

    # the whole

    def ping(self) -> None:
        self._server.ask(self._server.client.ping)

    def close(self) -> None:
        self._server.client.close()


def part_name(manifest: Manifest, part: str) -> str:
    """What a part is stored as. Raises StoreError where the generation has no such one."""
    return f"part:{manifest.generation}:{part}:{manifest.part(part)}"


def open_store(
    url: str,
    *,
    run: str = "default",
    capacity: int = CAPACITY,
    access: Access = URL_ALONE,
    signing_key: Path | None = None,
    weights: str = "",
) -> Store:
    """The store at `redis://host:port/database`, or by TLS at `rediss://`.

    `run` names the store among others on the same server; `capacity` is the most events that may wait before this
    process's `append` refuses. With a `signing_key`, a file of one or several, generations are signed with the first,
    and none is read that no key has signed. `weights`: URL under which the parts of generations lie, see objects.py
    (default: on the store's server). Does not wait for the server: the first use may raise StoreAway.
    Raises SettingError, and FlickerError where a package is missing.
    """
    if capacity < 1:
        raise SettingError("capacity", capacity, "at least 1 event")
    if url.partition("://")[0] not in ("redis", "rediss", "unix"):
        raise SettingError("store", without_password(url), "a URL such as redis://127.0.0.1:6379/0")
    keys = secret_file("signing_key", signing_key) if signing_key else tuple
    parts = partial(ObjectParts, weights, run) if weights else RedisParts
    return RedisStore(url, run=run, capacity=capacity, access=access, signing_keys=keys, parts=parts)
