"""A system to look at: a real router with replicas that answer by a formula, and metrics pages that a test fills."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry, start_http_server

from load.tally import LoadCollector, Repeat, Tally
from serving.metrics import RouterMetrics, ShadowMetrics
from simulator.flags import Secured
from simulator.measures.registry import MEASURES
from simulator.process import free_ports, wait_or_kill
from simulator.store.arrays import pack
from simulator.types import Names
from tests.serving.fake_replica import ARMS, ITEMS, USERS, FakeReplica, publish
from tests.serving.router_under_test import Asked, healthy, running
from tests.store.memory_store import MemoryStore
from trainer.metrics import Metrics as TrainerMetrics

ROOT = Path(__file__).parents[2]
HOSTILE = "<img src=x onerror=alert(1)>"
IDS = [f"u-{number * 7919 % 1000:03d}" for number in range(USERS)]
TITLES = [f"Film {number}" if number % 5 else f"{HOSTILE} {number}" for number in range(ITEMS)]
NAMES = Names(IDS, [f"sku-{number}" for number in range(ITEMS)], TITLES, {"device": ["phone", "<b>desktop</b>", "tv"]})
QUALITY = {arm: {"log_loss": 0.4321 + n / 10, "auc": 0.7, "calibration": 1.0} for n, arm in enumerate(ARMS)}


class Live:
    """The system; the page is a process of its own, see `Served`."""

    def __init__(self, security: Secured | None = None) -> None:
        """`security`: of the router, and the certificate of metrics pages; without it there is no TLS."""
        self.security = security or Secured()
        self._stack, self._router = ExitStack(), ExitStack()
        self.store = MemoryStore(1_000)
        self.digest = self.store.share(pack(NAMES))
        self.replicas = [FakeReplica(name, number) for number, name in enumerate("ab")]
        self.generation = 0
        self.port, self.router_metrics = free_ports(2)
        registries = [CollectorRegistry() for _ in range(3)]
        self.trainer = TrainerMetrics(registries[0])
        self.trainer.show_arms(ARMS)
        self.tally = Tally()
        LoadCollector(lambda: self.tally, lambda: 3, registries[1])
        RouterMetrics(registries[2], 2).store_up.set(1)
        self.comparisons = ShadowMetrics(registries[2], 60.0)
        """Of another router, whose comparisons the test makes up."""
        self.ports = [self._serve(registry, self._stack) for registry in registries]
        self.refresh()
        self.asked = self.start_router()

    @property
    def address(self) -> str:
        """Of the router."""
        return f"127.0.0.1:{self.port}"

    @property
    def scheme(self) -> str:
        """Of metrics pages."""
        return self.security.credentials().scheme

    @property
    def metrics(self) -> list[str]:
        """Addresses of all metrics pages."""
        return [f"{self.scheme}://127.0.0.1:{port}/metrics" for port in (*self.ports, self.router_metrics)]

    def refresh(self) -> None:
        """The next generation, which all replicas serve at once."""
        self.generation += 1
        publish(self.store, self.generation, "movies", self.digest)
        for replica in self.replicas:
            replica.generation = self.generation
            replica.say(True)
            replica.announce(self.store, 3_600)
        self.trainer.show_generation(self.generation, time.time(), QUALITY)

    def start_router(self) -> Asked:
        """At the same address as before."""
        self.asked = self._router.enter_context(running(self.store, port=self.port, security=self.security))
        self._serve(self.asked.registry, self._router, self.router_metrics)
        healthy(self.asked, 2)
        return self.asked

    def stop_router(self) -> None:
        """And its metrics page."""
        self._router.close()

    def compare(self, arm: str, cause: str, parts: float, wholes: float) -> None:
        """One comparison, in which every measure has this numerator and denominator."""
        self.comparisons.record(arm, cause, np.tile([parts, wholes], (len(MEASURES), 1)))

    def ask_again(self, arm: str, changed: int, slots: int) -> None:
        """A user asked twice."""
        self.tally.repeat(Repeat(arm, True, changed, slots))

    def close(self) -> None:
        """End all."""
        self._router.close()
        self._stack.close()
        for replica in self.replicas:
            replica.stop()

    def _serve(self, registry: CollectorRegistry, stack: ExitStack, port: int = 0) -> int:
        files = {"certfile": self.security.tls_cert, "keyfile": self.security.tls_key}
        tls = {name: str(file) for name, file in files.items() if file}
        server, thread = start_http_server(port, "127.0.0.1", registry, **tls)
        stack.callback(thread.join)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        return int(server.server_port)


class Served:
    """`python -m page` with these arguments, until the end of the block."""

    def __init__(self, *arguments: str | Path, cwd: Path = ROOT, **environment: str | Path) -> None:
        command = [sys.executable, "-m", "page", *map(str, arguments)]
        told = os.environ | {name: str(value) for name, value in environment.items()}
        out = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=cwd, env=told, stdout=out, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said.startswith("Page: http"), said + self.process.stdout.read()
        self.url = said.split()[1]

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        wait_or_kill(self.process, 5)
        assert self.process.stdout is not None
        said = self.process.stdout.read()
        self.process.stdout.close()
        assert "Traceback" not in said, said


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait for it, in steps that leave the processor to those that are waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}"
        time.sleep(0.1)


def diff(one: Sequence[str], other: Sequence[str]) -> tuple[set[str], set[tuple[int, int]]]:
    """Items that stand in one slate alone, and the places from 0 of those that moved: by looking at every pair."""
    alone = {item for item in [*one, *other] if not (item in one and item in other)}
    moved = {(a, b) for a, x in enumerate(one) for b, y in enumerate(other) if x == y and a != b}
    return alone, moved
