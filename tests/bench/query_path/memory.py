"""The live system in memory: proportional set size (PSS), which counts shared pages once, of all its processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from figures import Figure, single
from sizes import Size

from query_path.contender import ROOT, family

PATIENCE = 60.0
"""Seconds for traffic to begin."""
MODULES = "trainer.loop", *["serving.replica.replica"] * 3, "serving.router.main", "locust", "simulator.live.up"
"""What the processes of the live system import."""


def measure(size: Size) -> list[Figure]:
    """`flicker up` with two arms and three duplicates, read every half second while queries are answered."""
    if not size.stack_seconds:
        return []
    with TemporaryDirectory() as folder:
        out = Path(folder) / "up"
        command = [sys.executable, "-m", "simulator", "up", "--no-page", "--for", "600", "--out", str(out)]
        running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            readings, end = list[float](), time.monotonic() + PATIENCE
            while not (out / "load.log").exists() and time.monotonic() < end:
                time.sleep(0.5)
            assert (out / "load.log").exists(), f"no traffic within {PATIENCE:.0f} s"
            end = time.monotonic() + size.stack_seconds
            while time.monotonic() < end:
                readings.append(pss(running.pid))
                time.sleep(0.5)
            assert running.poll() is None, "the live system ended"
            processes = len(family([running.pid]))
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(30)
    found = single("the live system, 2 arms x 3 duplicates", "GiB", readings)
    note = f"PSS of {processes} processes, the store's among them; the value is the most of {len(readings)} readings"
    floor = single("its processes when they have imported what they use", "GiB", [imported()])
    return [replace(found, value=max(readings), note=note), floor]


def imported() -> float:
    """GiB of one process for each of the live system's, the store's aside, which does nothing once it has begun."""
    idle = "import sys; import {}; print('ready', flush=True); sys.stdin.read()"
    waiting = [
        subprocess.Popen(
            [sys.executable, "-c", idle.format(module)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for module in MODULES
    ]
    try:
        for process in waiting:
            assert process.stdout and process.stdout.readline(), "an import failed"
        return sum(pss(process.pid) for process in waiting)
    finally:
        for process in waiting:
            process.communicate()


def pss(pid: int) -> float:
    """GiB of a process and all that it started."""
    total = 0
    for number in family([pid]):
        try:
            total += psutil.Process(number).memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total / 2**30
