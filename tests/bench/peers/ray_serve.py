"""Ray Serve with its own gRPC proxy; see the package's docstring."""

from __future__ import annotations

from pathlib import Path

from peers.peer import Peer

SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0"}


def contender(sized: str, folder: Path) -> Peer:
    """Raises ImportError where it is not installed."""
    return Peer("ray_serve", "ray", "ray.serve", sized, folder, **SETTINGS)
