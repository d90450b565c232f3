"""The replica's flags; each has an environment variable."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field

from simulator.config import require
from simulator.flags import Wiring
from simulator.process import from_environment


@dataclass(frozen=True)
class ReplicaFlags(Wiring):
    """Serve one duplicate of every arm: rank what routers send, and take newer generations from the store.

    Stopped by SIGTERM or Ctrl-C, after answering what it was sent.
    """

    name: str = field(default_factory=lambda: from_environment("FLICKER_NAME", f"{socket.gethostname()}-{os.getpid()}"))
    """Unique among replicas; one that is started again under its old name gets its old duplicate back."""
    advertise: str = field(default_factory=lambda: from_environment("FLICKER_ADVERTISE", ""))
    """Host under which routers find this replica (default: --host; where that is 0.0.0.0, the address of this machine
    or container on the network by which it reaches the store)."""
    port: int = field(default_factory=lambda: from_environment("FLICKER_PORT", 0))
    """Port of the gRPC server, 0 for any free one, which is printed."""
    queue: int = field(default_factory=lambda: from_environment("FLICKER_QUEUE", 1_024))
    """Queries that may wait; beyond it they are refused at once. At least 1."""

    device: str = field(default_factory=lambda: from_environment("FLICKER_DEVICE", "cpu"))
    """Where candidates are scored: cpu or cuda (default: FLICKER_DEVICE, else cpu)."""

    def __post_init__(self) -> None:
        require(self.name != "", "name", self.name, "a name")
        super().__post_init__()
        require(0 <= self.port < 65_536, "port", self.port, "from 0 to 65535")
        require(self.queue >= 1, "queue", self.queue, "at least 1 query")
        require(self.device in ("cpu", "cuda"), "device", self.device, "cpu or cuda")
