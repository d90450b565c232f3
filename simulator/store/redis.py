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
`XINFO GROUPS` shows each group's lag. Every change is one script, so it happens as a whole or not at all.

**Published generations** are one stream, whose ids are generation + 1, and one key for each part.

    generations                     stream: "G+1-0" -> manifest, and the key of every part
    part:GENERATION:NAME:SHA256     list: the pieces of a part (one value would be at most 512 MB, and grow by copying)
    ...:WRITER                      what a writer has uploaded of it so far
    shared:SHA256                   list: the pieces of what generations have in common

The digest in its key makes a part immutable. Parts are uploaded to run out after UPLOAD seconds and kept for good by
the script that announces them: what a trainer left behind half-way disappears by itself. They travel in pieces with
rests between them, so that neither end nor the server keeps queries waiting. A blocking read of the stream
from the last known generation cannot miss an announcement, which a subscription to a channel could while reconnecting.

**Leases and members** run out by the server's clock, so that the clocks of replicas do not matter.

    leases   hash: owner -> "number end"      members  hash: name -> "end JSON"      (end: ms since the unix epoch)
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from redis import ResponseError

from simulator.pace import throttled
from simulator.store.access import URL_ALONE, Access
from simulator.store.codec import decode_entries, encode
from simulator.store.connection import Connection
from simulator.store.manifest import (
    Manifest,
    damaged_part,
    damaged_share,
    digest,
    pieces,
    read_manifest,
    write_manifest,
)
from simulator.store.protocol import (
    KEPT,
    MOST_KEYS,
    QUARANTINE,
    REMEMBERED,
    Entry,
    Member,
    Repeated,
    SetAside,
    StoreAway,
    check_position,
    entry_order,
    refuse_appending,
    refuse_publishing,
    unknown_generation,
    unknown_group,
)
from simulator.types import Batch

UPLOAD = 600
"""Seconds from the upload of a part to the announcement of its generation."""

# First lines of scripts. A server without memory runs those that take next to none, or give some back: replicas stay
# known, and what is learned is forgotten. Reading needs nobody's leave to write, which a read-only server refuses.
ALWAYS = "#!lua flags=allow-oom\n"
READS = "#!lua flags=no-writes\n"
# How the scripts of the log begin. KEYS = log, log:counts, log:marks. Numbers are written by %.0f: Lua would write
# large ones as 1e+15.
LOG = """
local log, counts, marks = KEYS[1], KEYS[2], KEYS[3]
local function count(name) return tonumber(redis.call('HGET', counts, name) or '0') end
local function id(events) return string.format('%.0f-0', events) end
local function groups()  -- group -> events acknowledged
  local found = {}
  if redis.call('EXISTS', log) == 0 then return found end
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', log)) do
    local group = {}
    for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
    found[group['name']] = tonumber(string.match(group['last-delivered-id'], '^%d+'))
  end
  return found
end
local function forget()  -- what every group has acknowledged; nothing while there is no group
  local least = nil
  for _, events in pairs(groups()) do least = math.min(least or events, events) end
  if least and least > count('forgotten') then
    redis.call('XTRIM', log, 'MINID', id(least + 1))
    redis.call('HSET', counts, 'forgotten', string.format('%.0f', least))
  end
end
"""
# KEYS = ..., log:keys, log:keys:before. ARGV = batch, events, writer, mark, capacity, REMEMBERED, MOST_KEYS, keys.
# Answers {1, id}, {0, events that wait} or {2, known keys}. Keys are forgotten by the set: each begins to run out when
# the next one begins, so that nothing has to look for those that are old.
APPEND = """
local batch, events, writer, mark, capacity = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
local recent, before, remembered, most, first = KEYS[4], KEYS[5], tonumber(ARGV[6]), tonumber(ARGV[7]), 8
if writer ~= '' and mark ~= '' then
  local last = redis.call('HGET', marks, writer) or ''
  local space = string.find(last, ' ', 1, true)
  if space and string.sub(last, space + 1) == mark then return {1, string.sub(last, 1, space - 1)} end
end
local known = {}
for i = first, #ARGV do
  local key = ARGV[i]
  if redis.call('SISMEMBER', recent, key) + redis.call('SISMEMBER', before, key) > 0 then known[#known + 1] = key end
end
if #known > 0 then
  if #known > #ARGV - first and writer ~= '' then
    redis.call('HSET', marks, writer, id(count('appended')) .. ' ' .. mark)
  end
  return {2, known}
end
local waiting = count('appended') - count('forgotten')
if waiting + events > capacity then return {0, waiting} end
local new = id(redis.call('HINCRBY', counts, 'appended', events))
redis.call('XADD', log, new, 'batch', batch)
if writer ~= '' then redis.call('HSET', marks, writer, new .. ' ' .. mark) end
if #ARGV >= first then
  local left = redis.call('TTL', recent)
  if left >= 0 and (left <= remembered or redis.call('SCARD', recent) >= most) then
    redis.call('UNLINK', before)
    redis.call('RENAME', recent, before)
    redis.call('EXPIRE', before, remembered)
    left = -2
  end
  for i = first, #ARGV do redis.call('SADD', recent, ARGV[i]) end
  if left < 0 then redis.call('EXPIRE', recent, 2 * remembered) end
end
return {1, new}
"""
# ARGV = group
JOIN = """
if not groups()[ARGV[1]] then redis.call('XGROUP', 'CREATE', log, ARGV[1], id(count('forgotten')), 'MKSTREAM') end
"""
LEAVE = """
if groups()[ARGV[1]] then
  redis.call('XGROUP', 'DESTROY', log, ARGV[1])
  forget()
end
"""
# ARGV = group, events. Answers the events appended, or -1 where the group has not joined.
ACKNOWLEDGE = """
local group, events, appended = ARGV[1], tonumber(ARGV[2]), count('appended')
local before = groups()[group]
if not before then return -1 end
if events > before and events <= appended then
  redis.call('XGROUP', 'SETID', log, group, id(events))
  forget()
end
return appended
"""
# KEYS = quarantine. ARGV = id, why, data, QUARANTINE. Answers 1, or 0 where it is there, or was.
SET_ASIDE = """
local function events(id) return tonumber(string.match(id, '^%d+')) end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if last and events(last[1]) >= events(ARGV[1]) then return 0 end
redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[4], ARGV[1], 'why', ARGV[2], 'data', ARGV[3])
return 1
"""
# KEYS = a writer's part. ARGV = number of the piece, piece, UPLOAD. Answers 1, or 0 where those before it ran out.
# May be repeated, unlike RPUSH alone.
PUT_PIECE = """
local length, number = redis.call('LLEN', KEYS[1]), tonumber(ARGV[1])
if length < number then return 0 end
if length == number then redis.call('RPUSH', KEYS[1], ARGV[2]) end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""
# KEYS = a writer's part, all of it, and the part. ARGV = UPLOAD. Answers 1, or 0 where it ran out before. What is there
# already under its digest has the same bytes, and may be announced: then it does not run out.
WHOLE = """
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('UNLINK', KEYS[1])
  if redis.call('TTL', KEYS[2]) >= 0 then redis.call('EXPIRE', KEYS[2], ARGV[1]) end
  return 1
end
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('RENAME', KEYS[1], KEYS[2])
return 1
"""

# KEYS = generations, the new parts. ARGV = generation, manifest, KEPT. Answers 1, or 0 where a part ran out before.
# The caller looks first; a generation that another announced in between is left to it (answer -1).
PUBLISH = """
local generations, generation, kept = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[3])
local last = redis.call('XREVRANGE', generations, '+', '-', 'COUNT', 1)[1]
if last and tonumber(string.match(last[1], '^%d+')) > generation then return -1 end
local fields = {'manifest', ARGV[2]}
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then return 0 end
  fields[#fields + 1] = 'part'
  fields[#fields + 1] = KEYS[i]
end
for i = 2, #KEYS do redis.call('PERSIST', KEYS[i]) end
redis.call('XADD', generations, string.format('%.0f-0', generation + 1), unpack(fields))
local all = redis.call('XRANGE', generations, '-', '+')
for i = 1, #all - kept do
  for field = 4, #all[i][2], 2 do redis.call('UNLINK', all[i][2][field]) end
  redis.call('XDEL', generations, all[i][1])
end
return 1
"""
# What scripts begin with that need the time, in ms since the unix epoch.
NOW = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""
# KEYS = leases. ARGV = owner, duplicates, milliseconds.
CLAIM = """
local leases, owner, duplicates, milliseconds = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local held, mine = {}, nil
local all = redis.call('HGETALL', leases)
for i = 1, #all, 2 do
  local number, ending = string.match(all[i + 1], '^(%d+) (%d+)$')
  number = tonumber(number)
  if tonumber(ending) <= now then redis.call('HDEL', leases, all[i])
  elseif all[i] == owner then mine = number
  else held[number] = (held[number] or 0) + 1 end
end
if not mine or mine >= duplicates then
  mine = 0
  for number = 1, duplicates - 1 do
    if (held[number] or 0) < (held[mine] or 0) then mine = number end
  end
end
redis.call('HSET', leases, owner, string.format('%d %.0f', mine, now + milliseconds))
return mine
"""
# KEYS = members. ARGV = name, milliseconds, JSON. Forgets those that have run out.
ANNOUNCE = """
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if tonumber(string.match(all[i + 1], '^(%d+) ')) <= now then redis.call('HDEL', KEYS[1], all[i]) end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f ', now + tonumber(ARGV[2])) .. ARGV[3])
"""
# KEYS = members. Answers the JSON of those that have not run out.
MEMBERS = """
local found, all = {}, redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local ending, member = string.match(all[i + 1], '^(%d+) (.*)$')
  if tonumber(ending) > now then found[#found + 1] = member end
end
return found
"""


class RedisStore:
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
    ) -> None:
        """Does not connect yet. `capacity` in events. Raises SettingError for a URL that cannot be one."""
        self.run, self._server = run, (server := Connection(url, run, patience, access))
        self._keys = signing_keys
        self._capacity = capacity
        names = ("log", "log:counts", "log:marks", "log:keys", "log:keys:before")
        self._log, self._counts, self._marks, *self._remembered = map(server.key, names)
        self._append, self._join = server.script(LOG, APPEND), server.script(LOG, JOIN)
        self._leave, self._acknowledge = server.script(ALWAYS, LOG, LEAVE), server.script(ALWAYS, LOG, ACKNOWLEDGE)
        self._quarantine, self._set_aside = server.key("quarantine"), server.script(SET_ASIDE)
        self._generations = server.key("generations")
        self._announce_generation = server.script(PUBLISH)
        self._put_piece, self._make_whole = server.script(PUT_PIECE), server.script(WHOLE)
        self._writer = uuid.uuid4().hex
        self._leases, self._members = server.key("leases"), server.key("members")
        self._claim, self._announce = server.script(ALWAYS, NOW, CLAIM), server.script(ALWAYS, NOW, ANNOUNCE)
        self._list = server.script(READS, NOW, MEMBERS)

    # the log

    def append(self, batch: Batch, *, writer: str = "", mark: str = "", keys: Sequence[bytes] = ()) -> str:
        """See EventLog."""
        refuse_appending(len(batch), 0, self._capacity)
        args = [encode(batch), len(batch), writer, mark, self._capacity, REMEMBERED, MOST_KEYS, *keys]
        done, answer = self._server.ask(lambda: self._run(self._append, *args), repeat=bool(writer and mark))
        if done == 2:
            raise Repeated(frozenset(answer))
        if not done:
            refuse_appending(len(batch), int(answer), self._capacity)
        return str(answer.decode())

    def mark(self, writer: str) -> str:
        """See EventLog."""
        last = self._server.ask(lambda: self._server.client.hget(self._marks, writer)) or b""
        return str(last.decode().partition(" ")[2])

    def join(self, group: str) -> None:
        """See EventLog."""
        self._server.ask(lambda: self._run(self._join, group))

    def leave(self, group: str) -> None:
        """See EventLog."""
        self._server.ask(lambda: self._run(self._leave, group))

    def read(self, group: str, after: str, events: int, wait: float) -> list[Entry]:
        """See EventLog."""
        start, end = entry_order(after), time.monotonic() + wait
        while True:
            found = self._server.ask(lambda: self._read_now(group, after, events))
            left = end - time.monotonic()
            if found or left <= 0:
                return decode_entries(after, [(id.decode(), fields.get(b"batch", b"")) for id, fields in found])
            self._server.wait_for_entry(self._log, f"{start}-0", left)

    def acknowledge(self, group: str, upto: str) -> None:
        """See EventLog."""
        appended = self._server.ask(lambda: self._run(self._acknowledge, group, entry_order(upto)))
        if appended < 0:
            raise unknown_group(group)
        check_position(upto, 0, appended)

    def set_aside(self, what: SetAside) -> bool:
        """See EventLog."""
        args = [what.id, what.why, what.data, QUARANTINE]
        return bool(self._server.ask(lambda: self._set_aside(keys=[self._quarantine], args=args)))

    def quarantine(self) -> list[SetAside]:
        """See EventLog."""
        found = self._server.ask(lambda: self._server.client.xrange(self._quarantine))
        return [SetAside(id.decode(), fields[b"why"].decode(), fields[b"data"]) for id, fields in found]

    def waiting(self) -> int:
        """See EventLog."""
        counts = self._server.ask(lambda: self._server.client.hmget(self._counts, "appended", "forgotten"))
        appended, forgotten = (int(count or 0) for count in counts)
        return appended - forgotten

    def capacity(self) -> int:
        """See EventLog."""
        return self._capacity

    def _run(self, script: Any, *args: Any) -> Any:
        return script(keys=[self._log, self._counts, self._marks, *self._remembered], args=args)

    def _read_now(self, group: str, after: str, events: int) -> list[Any]:
        """Ids and fields of the entries that are there."""
        start = entry_order(after)
        with self._server.client.pipeline(transaction=True) as pipe:
            pipe.hmget(self._counts, "appended", "forgotten")
            pipe.xinfo_groups(self._log)
            pipe.xrange(self._log, f"{start + 1}-0", f"{start + events}-0")
            counts, groups, found = pipe.execute(raise_on_error=False)
        if isinstance(groups, ResponseError) and "no such key" in str(groups):
            raise unknown_group(group)  # no stream: nobody has joined and nothing was appended
        for answer in (counts, groups, found):
            if isinstance(answer, Exception):
                raise answer
        if group not in [known["name"].decode() for known in groups]:
            raise unknown_group(group)
        appended, forgotten = (int(count or 0) for count in counts)
        check_position(after, forgotten, appended)
        if not found and appended > start:  # the next entry is larger than `events`
            found = self._server.client.xrange(self._log, f"{start + 1}-0", "+", count=1)
        return list(found)

    # the registry

    def publish(self, generation: int, parts: Mapping[str, bytes], about: Mapping[str, Any]) -> None:
        """See Registry."""
        keys_now = self._keys()
        manifest = write_manifest(self.run, generation, parts, about, keys_now)
        announced = read_manifest(manifest, self.run, generation, keys_now)
        if self._is_published(announced):
            return
        keys = {name: self._part_key(generation, name, announced.part(name)) for name in parts}
        whole = all(self._upload(keys[name], data) for name, data in parts.items())
        args = [generation, manifest, KEPT]
        announce = lambda: self._announce_generation(keys=[self._generations, *keys.values()], args=args)  # noqa: E731
        done = self._server.ask(announce) if whole else 0
        if done == 0:
            raise StoreAway(
                f"a part of generation {generation} ran out after {UPLOAD} s, before all were there: try again"
            )
        if done == -1 and not self._is_published(announced):
            raise AssertionError("announced generations do not disappear")

    def newest(self) -> int:
        """See Registry."""
        found = self._server.ask(lambda: self._server.client.xrevrange(self._generations, count=1))
        return int(found[0][0].partition(b"-")[0]) - 1 if found else -1

    def about(self, generation: int) -> dict[str, Any]:
        """See Registry."""
        return self._manifest(generation).about

    def fetch(self, generation: int, part: str) -> bytearray:
        """See Registry."""
        expected = self._manifest(generation).part(part)
        data = self._download(self._part_key(generation, part, expected), expected)
        if data is None:
            self._manifest(generation)  # raises where newer ones have displaced it
            raise damaged_part(generation, part)
        return data

    def share(self, data: bytes) -> str:
        """See Registry."""
        key = self._server.key(f"shared:{(found := digest(data))}")
        client = self._server.client
        if not self._server.ask(lambda: client.exists(key)) and not self._upload(key, data):
            raise StoreAway(f"what is shared ran out after {UPLOAD} s, before all was there: try again")
        self._server.ask(lambda: client.persist(key))
        return found

    def shared(self, digest: str) -> bytearray:
        """See Registry."""
        data = self._download(self._server.key(f"shared:{digest}"), digest)
        if data is None:
            raise damaged_share(digest)
        return data

    def wait_newer(self, than: int, wait: float) -> int:
        """See Registry."""
        end = time.monotonic() + wait
        while True:
            newest, left = self.newest(), end - time.monotonic()
            if newest > than or left <= 0:
                return newest
            self._server.wait_for_entry(self._generations, f"{than + 1}-0", left)

    def _part_key(self, generation: int, part: str, digest: str) -> str:
        return self._server.key(f"part:{generation}:{part}:{digest}")

    def _upload(self, key: str, data: bytes) -> bool:
        """Whether the part is there as a whole now."""
        own = [f"{key}:{self._writer}"]
        for number, piece in enumerate(pieces(len(data))):
            args = [number, data[piece], UPLOAD]
            if not self._server.ask(functools.partial(self._put_piece, keys=own, args=args)):
                return False
        return bool(self._server.ask(lambda: self._make_whole(keys=[*own, key], args=[UPLOAD])))

    def _download(self, key: str, expected: str) -> bytearray | None:
        """The pieces under a key together; None where they do not have the digest `expected`."""
        data, found = bytearray(), hashlib.sha256()
        for number in throttled(itertools.count()):
            read = self._server.ask(functools.partial(self._server.client.lindex, key, number))
            if read is None:
                break
            found.update(read)
            data += read
        return data if found.hexdigest() == expected else None

    def _is_published(self, made: Manifest) -> bool:
        """Whether these parts are published already. Raises StoreError where the generation may not be published."""
        newest = self.newest()
        same = newest == made.generation and self._manifest(newest).parts == made.parts
        refuse_publishing(made.generation, newest, same)
        return same

    def _manifest(self, generation: int) -> Manifest:
        id = f"{generation + 1}-0"
        found = self._server.ask(lambda: self._server.client.xrange(self._generations, id, id))
        if not found:
            raise unknown_generation(generation, self.newest())
        return read_manifest(found[0][1].get(b"manifest", b""), self.run, generation, self._keys())

    # leases and members

    def claim(self, owner: str, duplicates: int, seconds: float) -> int:
        """See Leases."""
        assert duplicates >= 1
        args = [owner, duplicates, int(1000 * seconds)]
        return int(self._server.ask(lambda: self._claim(keys=[self._leases], args=args)))

    def release(self, owner: str) -> None:
        """See Leases."""
        self._server.ask(lambda: self._server.client.hdel(self._leases, owner))
        self._server.ask(lambda: self._server.client.hdel(self._members, owner))

    def announce(self, member: Member, seconds: float) -> None:
        """See Leases."""
        args = [member.name, int(1000 * seconds), json.dumps(asdict(member))]
        self._server.ask(lambda: self._announce(keys=[self._members], args=args))

    def members(self) -> list[Member]:
        """See Leases."""
        found = self._server.ask(lambda: self._list(keys=[self._members]))
        return sorted((Member(**json.loads(member)) for member in found), key=lambda member: member.name)

    # the whole

    def ping(self) -> None:
        """See Store."""
        self._server.ask(self._server.client.ping)

    def close(self) -> None:
        """See Store."""
        self._server.client.close()
