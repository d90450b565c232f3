"""The replica's flags; each has an environment variable."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from serving.process import ServerFlags
from simulator.config import require
from simulator.flags import from_env


@dataclass(frozen=True)
class ReplicaFlags(ServerFlags):
    """Serve one duplicate of every arm: rank what routers send, and take newer generations from the store.

    Stopped by SIGTERM or Ctrl-C, after answering what it was sent.
    """

    name: str = from_env("FLICKER_NAME", f"{socket.gethostname()}-{os.getpid()}")
    """Unique among replicas; one that is started again under its old name gets its old duplicate back."""
    advertise: str = from_env("FLICKER_ADVERTISE", "")
    """Host under which routers find this replica (default: --host; where that is 0.0.0.0, the address of this machine
    or container on the network by which it reaches the store)."""
    queue: int = from_env("FLICKER_QUEUE", 1_024)
    """Queries that may wait; beyond it they are refused at once. At least 1."""
    device: str = from_env("FLICKER_DEVICE", "cpu")
    """Where candidates are scored: cpu or cuda (default: FLICKER_DEVICE, else cpu)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.name != "", "name", self.name, "a name")
        require(self.queue >= 1, "queue", self.queue, "at least 1 query")
        require(self.device in ("cpu", "cuda"), "device", self.device, "cpu or cuda")
