"""The driver's side of the load client, and what a slice of its time told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from query_path.contender import BENCH, ROOT, Contender, cpu_seconds, family


@dataclass
class Slices:
    """Of one contender under one load, in the order they were made."""

    cpu: list[float] = field(default_factory=list)
    """CPU seconds of its processes for each answer, one a slice."""
    wall: list[float] = field(default_factory=list)
    """Seconds for each answer: 1 / throughput."""
    p50: list[float] = field(default_factory=list)
    """Milliseconds, one a slice."""
    p99: list[float] = field(default_factory=list)
    """The same."""
    latencies: list[float] = field(default_factory=list)
    """Milliseconds, of all answers."""


class LoadClient:
    """The process, for as long as the block lasts."""

    def __init__(self, sized: str, module: str = "query_path.load", **environment: str) -> None:
        command = [sys.executable, "-m", module, sized]
        paths = {"PYTHONPATH": f"{ROOT}:{BENCH}", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, env=os.environ | paths | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> LoadClient:
        return self

    def __exit__(self, *problem: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def tell(self, order: dict[str, Any]) -> dict[str, Any]:
        """What the client found when it had followed a line."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline()
        assert said, "the load client ended"
        return dict(json.loads(said))

    def slice(self, contender: Contender, seconds: float, settled: Any = None, **load: float) -> tuple[float, dict]:
        """Ask for some seconds at `in_flight` or `rate`; CPU seconds that passed, and what the client found.

        `settled` is called before the CPU clocks are read for the second time: what was put off counts too.
        """
        pids = family(contender.pids())
        before = cpu_seconds(pids)
        order = {"address": contender.address, "method": contender.method, "connect": contender.connect}
        found = self.tell(order | {"seconds": seconds} | load)
        if settled:
            settled()
        cpu = sum(after - before[process] for process, after in cpu_seconds(pids).items())
        if found["failed"] or not found["answered"]:
            raise RuntimeError(f"{contender.name}: {found['failed']} queries failed, {found['answered']} answered")
        return cpu, found

    def measure(self, into: Slices, contender: Contender, seconds: float, settled: Any = None, **load: float) -> None:
        """A slice that counts."""
        cpu, found = self.slice(contender, seconds, settled, **load)
        latencies = sorted(found["latencies"])
        into.cpu.append(cpu / found["answered"])
        into.wall.append(found["seconds"] / found["answered"])
        into.p50.append(latencies[len(latencies) // 2])
        into.p99.append(latencies[int(0.99 * len(latencies))])
        into.latencies += latencies
        time.sleep(0.05)
