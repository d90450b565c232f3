"""What is announced with a generation: the size and digest of each part, and what the publisher says about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from simulator.store.protocol import StoreError


def write_manifest(parts: Mapping[str, bytes], about: Mapping[str, Any]) -> str:
    """`{"parts": {name: {"bytes", "sha256"}}, "about": {...}}` as JSON, the same text for the same content."""
    described = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in parts.items()}
    return json.dumps({"parts": described, "about": dict(about)}, sort_keys=True)


def same_parts(one: str, other: str) -> bool:
    """Whether two manifests announce the same parts, whatever they say about them."""
    return bool(json.loads(one)["parts"] == json.loads(other)["parts"])


def part_digest(manifest: str, generation: int, part: str) -> str:
    """SHA-256 of a part, in hexadecimal. Raises StoreError where the generation has no such part."""
    parts = json.loads(manifest)["parts"]
    if part not in parts:
        raise StoreError(f"generation {generation} has no part {part}: it has {', '.join(sorted(parts)) or 'none'}")
    return str(parts[part]["sha256"])
