"""Published generations in Redis: one stream, whose ids are generation + 1, and one key for each part.

    generations                     stream: "G+1-0" -> manifest, and the key of every part
    part:GENERATION:NAME:SHA256     list: the pieces of a part (one value would be at most 512 MB, and grow by copying)
    ...:WRITER                      what a writer has uploaded of it so far

The digest in its key makes a part immutable. Parts are uploaded to run out after UPLOAD seconds and kept for good by
the script that announces them: what a trainer left behind half-way disappears by itself. They travel in pieces with
rests between them, so that neither end nor the server keeps queries waiting. A blocking read of the stream
from the last known generation cannot miss an announcement, which a subscription to a channel could while reconnecting.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from simulator.store.connection import Connection
from simulator.store.manifest import PUBLISHING, described, pieces, same_parts, write_manifest
from simulator.store.protocol import KEPT, StoreAway, StoreError
from simulator.store.refusals import refuse_publishing, unknown_generation

UPLOAD = 600
"""Seconds from the upload of a part to the announcement of its generation."""

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
ANNOUNCE = """
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


class RedisRegistry:
    """See Registry."""

    def __init__(self, server: Connection) -> None:
        self._server = server
        self._generations = server.key("generations")
        self._announce_generation = server.script(ANNOUNCE)
        self._put_piece, self._make_whole = server.script(PUT_PIECE), server.script(WHOLE)
        self._writer = uuid.uuid4().hex

    def publish(self, generation: int, parts: Mapping[str, bytes], about: Mapping[str, Any]) -> None:
        """See Registry."""
        manifest = write_manifest(parts, about)
        if self._is_published(generation, manifest):
            return
        keys = {name: self._part_key(generation, name, described(manifest, generation, name)[1]) for name in parts}
        whole = all(self._upload(keys[name], data) for name, data in parts.items())
        args = [generation, manifest, KEPT]
        announce = lambda: self._announce_generation(keys=[self._generations, *keys.values()], args=args)  # noqa: E731
        done = self._server.ask(announce) if whole else 0
        if done == 0:
            raise StoreAway(
                f"a part of generation {generation} ran out after {UPLOAD} s, before all were there: try again"
            )
        if done == -1 and not self._is_published(generation, manifest):
            raise AssertionError("announced generations do not disappear")

    def newest(self) -> int:
        """See Registry."""
        return self._last()[0]

    def about(self, generation: int) -> dict[str, Any]:
        """See Registry."""
        return dict(json.loads(self._manifest(generation))["about"])

    def fetch(self, generation: int, part: str) -> bytearray:
        """See Registry."""
        size, digest = described(self._manifest(generation), generation, part)
        key, data, found = self._part_key(generation, part, digest), bytearray(size), hashlib.sha256()
        for number, piece in enumerate(pieces(size)):
            read = self._read(key, number)
            if read is None:  # displaced by newer ones
                raise unknown_generation(generation, self.newest())
            found.update(read)
            data[piece] = read
        if found.hexdigest() != digest or len(data) != size:
            raise StoreError(f"part {part} of generation {generation} is damaged: its digest differs")
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
        for number, piece in enumerate(pieces(len(data), PUBLISHING)):
            args = [number, data[piece], UPLOAD]
            if not self._server.ask(functools.partial(self._put_piece, keys=own, args=args)):
                return False
        return bool(self._server.ask(lambda: self._make_whole(keys=[*own, key], args=[UPLOAD])))

    def _read(self, key: str, number: int) -> bytes | None:
        found: bytes | None = self._server.ask(lambda: self._server.client.lindex(key, number))
        return found

    def _is_published(self, generation: int, manifest: str) -> bool:
        """Whether these parts are published already. Raises StoreError where the generation may not be published."""
        newest, announced = self._last()
        refuse_publishing(generation, newest, newest >= 0 and same_parts(announced, manifest))
        return generation == newest

    def _last(self) -> tuple[int, str]:
        """The newest generation and its manifest; (-1, "") where there is none."""
        found = self._server.ask(lambda: self._server.client.xrevrange(self._generations, count=1))
        return (int(found[0][0].partition(b"-")[0]) - 1, found[0][1][b"manifest"].decode()) if found else (-1, "")

    def _manifest(self, generation: int) -> str:
        id = f"{generation + 1}-0"
        found = self._server.ask(lambda: self._server.client.xrange(self._generations, id, id))
        if not found:
            raise unknown_generation(generation, self.newest())
        return str(found[0][1][b"manifest"].decode())
