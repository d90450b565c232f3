"""NVIDIA Triton through pytriton; see the package's docstring."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from peers.peer import Peer
from peers.triton_calls import METHOD, slate_of
from simulator.types import Slate


class Triton(Peer):
    """It speaks its own gRPC service."""

    method, connect = METHOD, "peers.triton_calls:connect"

    def slate(self, answer: bytes) -> Slate:
        """See Peer."""
        return slate_of(answer)


def contender(sized: str, folder: Path) -> Peer:
    """Raises ImportError where it is not installed."""
    # its Python backend must find the library of the very interpreter that runs it
    libraries = os.pathsep.join(filter(None, [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")]))
    return Triton("pytriton", "triton", "pytriton.triton", sized, folder, LD_LIBRARY_PATH=libraries)
