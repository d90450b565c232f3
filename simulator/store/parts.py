"""Parts of generations: what a manifest says of them, and where their bytes lie.

**A manifest** is announced with a generation: the size and digest of each part, and what the publisher says about it.

    {"run", "generation", "parts": {name: {"bytes", "sha256"}}, "about": {...}, "sha256", "hmac"}

What one of several trainers hands in is the same of its own parts, with "shard": "I/N" beside them, so that nobody can
pass it off as the whole.

The digest is of all the others: a damaged `about` must not pass either, nor the manifest of another generation or run.
It keeps out chance, not somebody who may write to the store; that takes a key, which the publisher and those who read
share: `hmac` is the HMAC-SHA256 (RFC 2104) of the same text. As the parts' digests are in it, it vouches for all bytes.

**The bytes** lie in the store's own server, or under a URL of an object store or folder (objects.py). Names are
`part:GENERATION:NAME:SHA256` and `shared:SHA256`: the digest in its name makes what is there immutable.

In a Redis or Valkey server each is a list of pieces (one value would be at most 512 MB, and grow by copying), under its
name with `:WRITER` behind it until all pieces are there. Parts are uploaded to run out after UPLOAD seconds and kept
for good by the script that announces them: what a trainer left behind half-way disappears by itself.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import itertools
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from simulator.pace import throttled
from simulator.store.connection import Connection
from simulator.store.protocol import WHOLE, Shard, StoreAway, StoreError, Unsigned

PIECE = 128 << 10
"""Bytes of a part that are handled at once: a quarter of a millisecond's work."""
PUBLISHING = 1.0
"""Rest of a publisher, who learns nothing meanwhile, for each second of work."""


@dataclass(frozen=True)
class Manifest:
    """A manifest that was read and verified."""

    generation: int
    parts: dict[str, dict[str, Any]]
    about: dict[str, Any]

    def part(self, name: str) -> str:
        """SHA-256 of a part in hexadecimal. Raises StoreError where the generation has no such one."""
        if name not in self.parts:
            names = ", ".join(sorted(self.parts)) or "none"
            raise StoreError(f"generation {self.generation} has no part {name}: it has {names}")
        return str(self.parts[name]["sha256"])


def listed(parts: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """Size and digest of parts, as a manifest lists them."""
    return {name: {"bytes": len(data), "sha256": digest(data)} for name, data in parts.items()}


def write_manifest(
    run: str,
    generation: int,
    parts: Mapping[str, Mapping[str, Any]],
    about: Mapping[str, Any],
    keys: Sequence[bytes] = (),
    shard: Shard = WHOLE,
) -> str:
    """As JSON, the same text for the same content; signed with the first of the keys, where there are any."""
    entries = {"run": run, "generation": generation, "parts": dict(parts), "about": dict(about), **_of(shard)}
    content = _content(entries)
    signed = {"hmac": _signature(content, keys[0])} if keys else {}
    return json.dumps(entries | {"sha256": hashlib.sha256(content).hexdigest()} | signed, sort_keys=True)


def read_manifest(
    text: str | bytes, run: str, generation: int, keys: Sequence[bytes] = (), shard: Shard = WHOLE
) -> Manifest:
    """What was announced, or handed in by a shard. Raises StoreError where it is damaged, or not of this run,
    generation and shard; Unsigned where there are keys and none of them has signed it."""
    try:
        entries = json.loads(text)
        signature = str(entries.pop("hmac", ""))
        whole = entries.pop("sha256") == hashlib.sha256(content := _content(entries)).hexdigest()
        identity = entries["run"], entries["generation"], entries.get("shard")
        parts, about = dict(entries["parts"]), dict(entries["about"])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        whole = False
    if not whole:
        raise StoreError(f"the manifest of generation {generation} is damaged: it does not match its digest")
    if identity != (run, generation, _of(shard).get("shard")):
        stated = f"of run {identity[0]}, generation {identity[1]}{f', shard {identity[2]}' if identity[2] else ''}"
        raise StoreError(f"the manifest of generation {generation} of run {run} is {stated}: it was written by hand")
    # a list: it takes the same time for all signatures that are wrong
    matches = [hmac.compare_digest(_signature(content, key).encode(), signature.encode()) for key in keys]
    if keys and not any(matches):
        signing = "signed with another key" if signature else "not signed"
        raise Unsigned(f"generation {generation} is {signing}: give its trainer the same --signing-key")
    return Manifest(generation, parts, about)


def _of(shard: Shard) -> dict[str, str]:
    return {} if shard == WHOLE else {"shard": str(shard)}


def _content(entries: Mapping[str, Any]) -> bytes:
    """What is digested and signed: the entries, whatever their order and spacing."""
    return json.dumps(entries, sort_keys=True).encode()


def _signature(content: bytes, key: bytes) -> str:
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def pieces(size: int) -> Iterator[slice]:
    """Where the pieces of a part of so many bytes lie, at least one; with a publisher's rest after each."""
    return throttled((slice(start, start + PIECE) for start in range(0, max(size, 1), PIECE)), PUBLISHING)


def digest(data: bytes | bytearray) -> str:
    """SHA-256 in hexadecimal."""
    sha256, view = hashlib.sha256(), memoryview(data)
    for piece in pieces(len(data)):
        sha256.update(view[piece])
    return sha256.hexdigest()


def missing_part(generation: int, part: str, where: str) -> StoreError:
    """For a part that is announced, and not where parts are."""
    hint = "give all processes of a run the same --weights"
    return StoreError(f"part {part} of generation {generation} is not in {where}: {hint}")


def damaged_part(generation: int, part: str) -> StoreError:
    """For a part whose bytes are not those that were announced."""
    return StoreError(f"part {part} of generation {generation} is damaged: its digest differs")


def damaged_share(digest: str) -> StoreError:
    """For what should be shared under this digest."""
    return StoreError(f"what is shared as {digest[:12]} is not in the store, or damaged: start the trainer again")


UPLOAD = 600
"""Seconds from the upload of a part to the announcement of its generation."""


class StoredPart(NamedTuple):
    """A part as it is there."""

    data: bytearray
    sha256: str


class Parts(Protocol):
    """Bytes by name, each name with the digest of its bytes in it."""

    where: str
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


class RedisParts(Parts):
    """In the store's server."""

    def __init__(self, server: Connection) -> None:
        self._server = server
        self.where = f"the store at {server.name}"
        self._put_piece, self._make_whole = server.script("put_piece"), server.script("make_whole")
        self._writer = uuid.uuid4().hex

    def put(self, name: str, data: bytes, *, stay: bool = False) -> None:
        key = self._server.key(name)
        upload_key = f"{key}:{self._writer}"
        if not self._is_whole(upload_key, key):
            for number, piece in enumerate(pieces(len(data))):
                if not self._put_piece([upload_key], number, data[piece], UPLOAD):
                    raise ran_out()
            if not self._is_whole(upload_key, key):
                raise ran_out()
        if stay:
            self._server.ask(lambda: self._server.client.persist(key))

    def get(self, name: str) -> StoredPart | None:
        key = self._server.key(name)
        read = (self._server.ask(functools.partial(self._server.client.lindex, key, n)) for n in itertools.count())
        part = concatenated(itertools.takewhile(lambda piece: piece is not None, read))
        return part if part.data or self._server.ask(lambda: self._server.client.exists(key)) else None

    def keys(self, names: Iterable[str]) -> list[str]:
        return [self._server.key(name) for name in names]

    def forget(self, generation: int) -> None:
        """See Parts: all of them are keys of the server."""

    def _is_whole(self, upload_key: str, key: str) -> bool:
        return bool(self._make_whole([upload_key, key], UPLOAD))


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
