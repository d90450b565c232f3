"""`make bench-peers ARGS=--install`: a virtual environment for each kind of peer.

It sees what the interpreter that runs this sees, but for what the peer needs otherwise. Each has one of its own because
they do not agree: pytriton 0.7 wants NumPy 1, which the project does not support.
"""

from __future__ import annotations

import site
import subprocess
import sys
import sysconfig
from pathlib import Path

from peers.peer import PEERS

NEEDS = {"ray": "ray[serve]==2.60.*", "triton": "nvidia-pytriton==0.7.*", "lit": "litserve==0.2.*"}
NEEDS |= {"mlserver": "mlserver==1.7.*"}  # asked by tests/serving/test_proxy_real.py alone


def install(kind: str) -> None:
    """Make PEERS/KIND, or bring it up to date. Raises CalledProcessError."""
    folder = PEERS / kind
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    paths = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", paths))
    (packages / "project.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", NEEDS[kind]], check=True)
