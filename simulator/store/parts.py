"""Where the bytes of parts lie: in the store's own server, or under a URL of an object store or folder (objects.py).

Names are `part:GENERATION:NAME:SHA256` and `shared:SHA256`: the digest in its name makes what is there immutable.

In a Redis or Valkey server each is a list of pieces (one value would be at most 512 MB, and grow by copying), under its
name with `:WRITER` behind it until all pieces are there. Parts are uploaded to run out after UPLOAD seconds and kept
for good by the script that announces them: what a trainer left behind half-way disappears by itself.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import uuid
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from simulator.pace import throttled
from simulator.store.connection import Connection
from simulator.store.manifest import pieces
from simulator.store.protocol import StoreAway

UPLOAD = 600
"""Seconds from the upload of a part to the announcement of its generation."""


class StoredPart(NamedTuple):
    """A part as it is there."""

    data: bytearray
    sha256: str


class Parts(Protocol):
    """Bytes by name, each name with the digest of its bytes in it."""

    @property
    def where(self) -> str:
        """The place, for messages."""

    def put(self, name: str, data: bytes, *, stay: bool = False) -> None:
        """Store all of it, for UPLOAD seconds at least, or for good. What is there already is not stored again.

        Raises StoreAway, StoreError.
        """

    def get(self, name: str) -> StoredPart | None:
        """It, as a copy; None where it is not there. Raises StoreAway, StoreError."""

    def keys(self, names: Iterable[str]) -> list[str]:
        """Keys of the store's server that stay as long as the generation of these parts, and go with it."""

    def forget(self, generation: int) -> None:
        """Remove all parts of older generations, unless they are such keys. Raises StoreAway, StoreError."""


# KEYS = a writer's part. ARGV = number of the piece, piece, UPLOAD. Answers 1, or 0 where those before it ran out.
# May be repeated, unlike RPUSH alone.
PUT_PIECE = """
local length, number = redis.call('LLEN', KEYS[1]), tonumber(ARGV[1])
if length < number then return 0 end
if length == number then redis.call('RPUSH', KEYS[1], ARGV[2]) end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""
# KEYS = a writer's part, all of it, and the part. ARGV = UPLOAD. Answers 1, or 0 where neither is there. What is there
# already under its digest has the same bytes, and may be announced: then it does not run out.
MAKE_WHOLE = """
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('UNLINK', KEYS[1])
  if redis.call('TTL', KEYS[2]) >= 0 then redis.call('EXPIRE', KEYS[2], ARGV[1]) end
  return 1
end
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('RENAME', KEYS[1], KEYS[2])
return 1
"""


class RedisParts:
    """In the store's server."""

    def __init__(self, server: Connection) -> None:
        self._server = server
        self.where = f"the store at {server.name}"
        self._put_piece, self._make_whole = server.script(PUT_PIECE), server.script(MAKE_WHOLE)
        self._writer = uuid.uuid4().hex

    def put(self, name: str, data: bytes, *, stay: bool = False) -> None:
        """See Parts."""
        key = self._server.key(name)
        upload_key = f"{key}:{self._writer}"
        if not self._is_whole(upload_key, key):
            for number, piece in enumerate(pieces(len(data))):
                args = [number, data[piece], UPLOAD]
                if not self._server.ask(functools.partial(self._put_piece, keys=[upload_key], args=args)):
                    raise ran_out()
            if not self._is_whole(upload_key, key):
                raise ran_out()
        if stay:
            self._server.ask(lambda: self._server.client.persist(key))

    def get(self, name: str) -> StoredPart | None:
        """See Parts."""
        key = self._server.key(name)
        read = (self._server.ask(functools.partial(self._server.client.lindex, key, n)) for n in itertools.count())
        part = concatenated(itertools.takewhile(lambda piece: piece is not None, read))
        return part if part.data or self._server.ask(lambda: self._server.client.exists(key)) else None

    def keys(self, names: Iterable[str]) -> list[str]:
        """See Parts."""
        return [self._server.key(name) for name in names]

    def forget(self, generation: int) -> None:
        """See Parts: all of them are keys of the server."""

    def _is_whole(self, upload_key: str, key: str) -> bool:
        return bool(self._server.ask(lambda: self._make_whole(keys=[upload_key, key], args=[UPLOAD])))


def concatenated(read: Iterable[bytes]) -> StoredPart:
    """Pieces together, with a reader's rest after each."""
    data, digest = bytearray(), hashlib.sha256()
    for piece in throttled(read):
        digest.update(piece)
        data += piece
    return StoredPart(data, digest.hexdigest())


def ran_out() -> StoreAway:
    """For what was uploaded too slowly."""
    return StoreAway(f"a part ran out after {UPLOAD} s, before all was there: try again")
