"""What is announced with a generation: the size and digest of each part, and what the publisher says about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from simulator.pace import REST, throttled
from simulator.store.protocol import StoreError

PIECE = 128 << 10
"""Bytes of a part that are handled at once: a quarter of a millisecond's work."""
PUBLISHING = 1.0
"""Rest of a publisher, who learns nothing meanwhile, for each second of work."""


def write_manifest(parts: Mapping[str, bytes], about: Mapping[str, Any]) -> str:
    """`{"parts": {name: {"bytes", "sha256"}}, "about": {...}}` as JSON, the same text for the same content."""
    listed = {name: {"bytes": len(data), "sha256": digest(data)} for name, data in parts.items()}
    return json.dumps({"parts": listed, "about": dict(about)}, sort_keys=True)


def pieces(size: int, rest: float = REST) -> Iterator[slice]:
    """Where the pieces of a part of so many bytes lie, at least one; with a rest after each."""
    return throttled((slice(start, min(start + PIECE, size)) for start in range(0, max(size, 1), PIECE)), rest)


def digest(data: bytes | bytearray) -> str:
    """SHA-256 in hexadecimal."""
    found, view = hashlib.sha256(), memoryview(data)
    for piece in pieces(len(data), PUBLISHING):
        found.update(view[piece])
    return found.hexdigest()


def same_parts(one: str, other: str) -> bool:
    """Whether two manifests announce the same parts, whatever they say about them."""
    return bool(json.loads(one)["parts"] == json.loads(other)["parts"])


def described(manifest: str, generation: int, part: str) -> tuple[int, str]:
    """Bytes of a part, and their SHA-256 in hexadecimal. Raises StoreError where the generation has no such part."""
    parts = json.loads(manifest)["parts"]
    if part not in parts:
        raise StoreError(f"generation {generation} has no part {part}: it has {', '.join(sorted(parts)) or 'none'}")
    return int(parts[part]["bytes"]), str(parts[part]["sha256"])
