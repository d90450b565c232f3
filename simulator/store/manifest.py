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


def refuse_publishing(generation: int, newest: int, same: bool) -> None:
    """Raises StoreError unless `generation` may be published (again) while `newest` is the last one."""
    if generation < newest:
        raise StoreError(f"generation {generation} is older than {newest}, which is published: another trainer runs")
    if generation == newest and not same:
        raise StoreError(f"generation {generation} is published with other content: another trainer runs")


def unknown_generation(generation: int, newest: int) -> StoreError:
    """For a generation that is not (or no longer) in the registry."""
    return StoreError(f"generation {generation} is not in the store, the newest is {newest}: ask for the newest")
