"""Who answers queries: some processes, an address, and the CPU time that they have used."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Protocol

import psutil

from simulator.live.processes import Child

ROOT, BENCH = Path(__file__).parents[3], Path(__file__).parents[1]
PATIENCE = 120.0
"""Seconds for a process to say that it is ready."""
RECOMMEND = "/flicker.v1.Recommender/Recommend"


class Contender(Protocol):
    """What the bench asks of one."""

    name: str
    address: str
    """host:port or URL; valid after `start`."""
    method: str
    """What `connect` is told beside the address: for gRPC the method's path."""
    connect: str
    """`module:function` for the load client, see callers.py."""

    def start(self) -> None:
        """Returns when queries are answered. Called once; may raise."""

    def stop(self) -> None:
        """End all processes. Called once, also where `start` raised."""

    def pids(self) -> list[int]:
        """All processes whose CPU time counts; their children count by themselves."""


class Served:
    """A contender that is one Python module, `python -m MODULE ARGUMENTS`, in PYTHONPATH the bench and the project.

    It says where it listens by a line {"ready": ..., "address": ...} on standard output.
    """

    method, connect = RECOMMEND, "query_path.callers:unary"

    def __init__(self, name: str, folder: Path, *arguments: str) -> None:
        self.name, self.address = name, ""
        self.child = process(name, folder, "-m", *arguments)

    def start(self) -> None:
        """See Contender."""
        self.child.start()
        self.address = ready(self.child)["address"]

    def stop(self) -> None:
        """See Contender."""
        self.child.stop(10.0)

    def pids(self) -> list[int]:
        """See Contender."""
        return [pid(self.child)]


def process(name: str, folder: Path, *arguments: str) -> Child:
    """A Python process of the bench, with one thread per operation as in the live system."""
    paths = os.pathsep.join([str(ROOT), str(BENCH)])
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": paths}
    return Child(name, [sys.executable, *arguments], folder / f"{name.replace(' ', '-')}.log", threads)


def ready(child: Child) -> dict[str, str]:
    """What a process says when it is ready: its first line that is a JSON object with `ready`."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        ended = child.ended()
        for line in child.log.read_text(errors="replace").splitlines():
            if line.startswith('{"ready"'):
                return dict(json.loads(line))
        if ended:
            break
        time.sleep(0.02)
    raise RuntimeError(f"{child.name} is not ready: {child.last_words()}")


def pid(child: Child) -> int:
    """Of a process that was started."""
    assert child.process is not None
    return child.process.pid


def family(pids: list[int]) -> list[int]:
    """These processes and all that they started."""
    found: dict[int, None] = {}
    for parent in pids:
        found[parent] = None
        found |= {child.pid: None for child in psutil.Process(parent).children(recursive=True)}
    return list(found)


def cpu_seconds(pids: list[int]) -> dict[int, float]:
    """CPU time of those processes that still run, all their threads and the system's work for them.

    On Linux by each process's CPU clock, in nanoseconds (its number is made as clock_getcpuclockid(3) makes it); what
    psutil reads is rounded to 10 ms.
    """
    found = {}
    for process in pids:
        with contextlib.suppress(OSError, psutil.NoSuchProcess):  # a store that tidies up has a child for a while
            found[process] = _clock(process)
    return found


def _clock(process: int) -> float:
    if sys.platform == "linux":
        return time.clock_gettime((~process << 3) | 2)
    times = psutil.Process(process).cpu_times()
    return float(times.user + times.system)
