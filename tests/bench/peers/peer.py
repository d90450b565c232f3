"""A peer's server: a process in the peer's own virtual environment, which may start others."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
from query_path.contender import ROOT, Served

from protos.recommender_pb2 import RecommendResponse
from serving.codec import slate_of
from simulator.types import Slate

PEERS = Path(os.environ.get("FLICKER_PEERS", ROOT / ".venv-peers"))
"""Folder of the virtual environments."""
INSTALL = "make bench-peers ARGS=--install"


class Peer(Served):
    """A contender whose server is `python -m peers.KIND_server SIZED FOLDER`, in the virtual environment PEERS/KIND."""

    def __init__(self, name: str, kind: str, modules: str, sized: str, folder: Path, **environment: str) -> None:
        """Raises ImportError where a module of `modules`, separated by commas, is not installed."""
        interpreter = find(name, kind, modules)
        super().__init__(name, folder, f"peers.{kind}_server", sized, str(folder))
        self.child.command[0] = interpreter
        self.child.environment |= environment

    def stop(self) -> None:
        """Its processes too; those that do not end in order are killed, by their numbers."""
        started = [] if self.child.ended() else psutil.Process(self.pids()[0]).children(recursive=True)
        super().stop()
        _, left = psutil.wait_procs(started, timeout=2.0)
        for each in left:
            each.kill()
        psutil.wait_procs(left, timeout=5.0)

    def slate(self, answer: bytes) -> Slate:
        """What an answer holds; bytes of a RecommendResponse unless the peer answers otherwise."""
        return slate_of(RecommendResponse.FromString(answer))


def find(name: str, kind: str, modules: str) -> str:
    """The interpreter to use: that of PEERS/KIND, this one where there is none. Raises ImportError."""
    own = PEERS / kind / "bin" / "python"
    interpreter = str(own) if own.exists() else sys.executable
    tried = subprocess.run([interpreter, "-c", f"import {modules}"], capture_output=True, text=True, cwd=ROOT)
    if tried.returncode:
        why = (tried.stderr.strip().splitlines() or ["no message"])[-1]
        raise ImportError(f"{name} is not installed ({why}): {INSTALL}")
    return interpreter


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
