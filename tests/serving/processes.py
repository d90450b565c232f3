"""Router and replica as processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Process:
    """A process that is ready."""

    pid: int
    said: dict[str, str]
    """What it said when it was."""


@contextmanager
def process(*arguments: str) -> Iterator[Process]:
    """`python -m serving ...`, until the end."""
    child = subprocess.Popen([sys.executable, "-m", "serving", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        yield Process(child.pid, json.loads(child.stdout.readline()))
    finally:
        child.terminate()
        code = child.wait(20)
        if child.stdout is not None:
            child.stdout.close()
    assert code == 0
