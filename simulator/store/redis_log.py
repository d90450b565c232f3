"""The event log in Redis: one stream, whose ids count events, and one consumer group per trainer.

    log         stream: "E-0" -> batch. E counts events, so XRANGE from one count to another is a read of that many,
                and a gap shows
    log:counts  hash: events `appended` and events `forgotten`, ever
    log:marks   hash: writer -> "E-0 mark" of its last entry

Readers use XRANGE from their own position and not XREADGROUP: the position that counts is the one that a trainer saved
together with its weights, and a second one on the server, with its list of pending entries, could only disagree. The
consumer group's last id is what the group acknowledged (XGROUP SETID); the log is trimmed behind the slowest, and
`XINFO GROUPS` shows each group's lag. Every change is one script, so it happens as a whole or not at all.
"""

from __future__ import annotations

import time
from typing import Any

from redis import ResponseError

from simulator.store.codec import decode_entries, encode
from simulator.store.connection import Connection
from simulator.store.protocol import Entry, entry_order
from simulator.store.refusals import check_position, refuse_appending, unknown_group
from simulator.types import Batch

# All scripts: KEYS = log, log:counts, log:marks. Numbers are written by %.0f: Lua would write large ones as 1e+15.
SHARED = """
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
# ARGV = batch, events, writer, mark, capacity. Answers {1, id} or {0, events that wait}.
APPEND = (
    SHARED
    + """
local batch, events, writer, mark, capacity = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
if writer ~= '' and mark ~= '' then
  local last = redis.call('HGET', marks, writer) or ''
  local space = string.find(last, ' ', 1, true)
  if space and string.sub(last, space + 1) == mark then return {1, string.sub(last, 1, space - 1)} end
end
local waiting = count('appended') - count('forgotten')
if waiting + events > capacity then return {0, waiting} end
local new = id(redis.call('HINCRBY', counts, 'appended', events))
redis.call('XADD', log, new, 'batch', batch)
if writer ~= '' then redis.call('HSET', marks, writer, new .. ' ' .. mark) end
return {1, new}
"""
)
# ARGV = group
JOIN = (
    SHARED
    + """
if not groups()[ARGV[1]] then redis.call('XGROUP', 'CREATE', log, ARGV[1], id(count('forgotten')), 'MKSTREAM') end
"""
)
LEAVE = (
    SHARED
    + """
if groups()[ARGV[1]] then
  redis.call('XGROUP', 'DESTROY', log, ARGV[1])
  forget()
end
"""
)
# ARGV = group, events. Answers the events appended, or -1 where the group has not joined.
ACKNOWLEDGE = (
    SHARED
    + """
local group, events, appended = ARGV[1], tonumber(ARGV[2]), count('appended')
local before = groups()[group]
if not before then return -1 end
if events > before and events <= appended then
  redis.call('XGROUP', 'SETID', log, group, id(events))
  forget()
end
return appended
"""
)


class RedisLog:
    """See EventLog."""

    def __init__(self, server: Connection, capacity: int) -> None:
        self._server = server
        self._capacity = capacity
        self._log, self._counts, self._marks = (server.key(name) for name in ("log", "log:counts", "log:marks"))
        self._append, self._join = server.script(APPEND), server.script(JOIN)
        self._leave, self._acknowledge = server.script(LEAVE), server.script(ACKNOWLEDGE)

    def append(self, batch: Batch, *, writer: str = "", mark: str = "") -> str:
        """See EventLog."""
        refuse_appending(len(batch), 0, self._capacity)
        args = [encode(batch), len(batch), writer, mark, self._capacity]
        done, answer = self._server.ask(lambda: self._run(self._append, *args), repeat=bool(writer and mark))
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
                return decode_entries(after, [(id.decode(), fields[b"batch"]) for id, fields in found])
            self._server.wait_for_entry(self._log, f"{start}-0", left)

    def acknowledge(self, group: str, upto: str) -> None:
        """See EventLog."""
        appended = self._server.ask(lambda: self._run(self._acknowledge, group, entry_order(upto)))
        if appended < 0:
            raise unknown_group(group)
        check_position(upto, 0, appended)

    def waiting(self) -> int:
        """See EventLog."""
        counts = self._server.ask(lambda: self._server.client.hmget(self._counts, "appended", "forgotten"))
        appended, forgotten = (int(count or 0) for count in counts)
        return appended - forgotten

    def capacity(self) -> int:
        """See EventLog."""
        return self._capacity

    def _run(self, script: Any, *args: Any) -> Any:
        return script(keys=[self._log, self._counts, self._marks], args=args)

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
