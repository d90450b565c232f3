"""Leases and members in Redis; they run out by the server's clock, so that the clocks of replicas do not matter.

leases   hash: owner -> "number end"      members  hash: name -> "end JSON"      (end: ms since the unix epoch)
"""

from __future__ import annotations

import json
from dataclasses import asdict

from simulator.store.connection import Connection
from simulator.store.protocol import Member

NOW = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""
# KEYS = leases. ARGV = owner, duplicates, milliseconds.
CLAIM = (
    NOW
    + """
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
)
# KEYS = members. ARGV = name, milliseconds, JSON.
ANNOUNCE = (
    NOW
    + """
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f ', now + tonumber(ARGV[2])) .. ARGV[3])
"""
)
# KEYS = members. Answers the JSON of those that have not run out, and forgets the others.
MEMBERS = (
    NOW
    + """
local found, all = {}, redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local ending, member = string.match(all[i + 1], '^(%d+) (.*)$')
  if tonumber(ending) <= now then redis.call('HDEL', KEYS[1], all[i])
  else found[#found + 1] = member end
end
return found
"""
)


class RedisLeases:
    """See Leases."""

    def __init__(self, server: Connection) -> None:
        self._server = server
        self._leases, self._members = server.key("leases"), server.key("members")
        self._claim, self._announce = server.script(CLAIM), server.script(ANNOUNCE)
        self._list = server.script(MEMBERS)

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
