"""What is announced with a generation: the size and digest of each part, and what the publisher says about it.

    {"run", "generation", "parts": {name: {"bytes", "sha256"}}, "about": {...}, "sha256", "hmac"}

What one of several trainers hands in is the same of its own parts, with "shard": "I/N" beside them, so that nobody can
pass it off as the whole.

The digest is of all the others: a damaged `about` must not pass either, nor the manifest of another generation or run.
It keeps out chance, not somebody who may write to the store; that takes a key, which the publisher and those who read
share: `hmac` is the HMAC-SHA256 (RFC 2104) of the same text. As the parts' digests are in it, it vouches for all bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.pace import throttled
from simulator.store.protocol import WHOLE, Shard, StoreError, Unsigned

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
    signed = {"hmac": _signature(entries, keys[0])} if keys else {}
    return json.dumps(entries | {"sha256": _digest(entries)} | signed, sort_keys=True)


def read_manifest(
    text: str | bytes, run: str, generation: int, keys: Sequence[bytes] = (), shard: Shard = WHOLE
) -> Manifest:
    """What was announced, or handed in by a shard. Raises StoreError where it is damaged, or not of this run,
    generation and shard; Unsigned where there are keys and none of them has signed it."""
    try:
        entries = json.loads(text)
        signature = str(entries.pop("hmac", ""))
        whole = entries.pop("sha256") == _digest(entries)
        identity = entries["run"], entries["generation"], entries.get("shard")
        parts, about = dict(entries["parts"]), dict(entries["about"])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        whole = False
    if not whole:
        raise StoreError(f"the manifest of generation {generation} is damaged: it does not match its digest")
    if identity != (run, generation, _of(shard).get("shard")):
        stated = f"of run {identity[0]}, generation {identity[1]}{f', shard {identity[2]}' if identity[2] else ''}"
        raise StoreError(f"the manifest of generation {generation} of run {run} is {stated}: it was written by hand")
    if keys and not any([_is_signed(entries, key, signature) for key in keys]):
        signing = "signed with another key" if signature else "not signed"
        raise Unsigned(f"generation {generation} is {signing}: give its trainer the same --signing-key")
    return Manifest(generation, parts, about)


def _of(shard: Shard) -> dict[str, str]:
    return {} if shard == WHOLE else {"shard": str(shard)}


def _text(entries: Mapping[str, Any]) -> bytes:
    """Of entries, whatever their order and spacing."""
    return json.dumps(entries, sort_keys=True).encode()


def _digest(entries: Mapping[str, Any]) -> str:
    return hashlib.sha256(_text(entries)).hexdigest()


def _signature(entries: Mapping[str, Any], key: bytes) -> str:
    return hmac.new(key, _text(entries), hashlib.sha256).hexdigest()


def _is_signed(entries: Mapping[str, Any], key: bytes, signature: str) -> bool:
    """Takes the same time for all signatures that are wrong."""
    return hmac.compare_digest(_signature(entries, key).encode(), signature.encode())


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
