"""LitServe; see the package's docstring."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from peers.peer import Peer
from simulator.types import Slate


class LitServe(Peer):
    """It speaks HTTP and JSON."""

    method, connect = "/predict", "peers.http_calls:connect"

    def slate(self, answer: bytes) -> Slate:
        """See Peer."""
        said = json.loads(answer)
        return Slate(np.array(said["items"], np.int64), np.array(said["scores"], np.float32))


def contender(sized: str, folder: Path) -> Peer:
    """Raises ImportError where it is not installed."""
    return LitServe("litserve", "lit", "litserve", sized, folder)
