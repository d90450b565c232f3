"""Real processes of one run in one store, started as a user starts them, killed and stopped by their process ids."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.recommender_pb2 import ListReplicasRequest, ReplicaState
from protos.recommender_pb2_grpc import RecommenderStub
from simulator.live.processes import Child
from simulator.live.watch import Page, scrape

PATIENCE = 30.0
"""Seconds after which a test that waits has failed."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> float:
    """Wait for it; returns how long that took in seconds, and fails where it takes more than `seconds`."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"waited {seconds:g} s in vain: {what}"
        time.sleep(0.01)
    return time.monotonic() - started


class System:
    """The processes of a run. Each has a log in the folder, whose first JSON line says where it listens."""

    def __init__(self, store: str, run: str, folder: Path) -> None:
        self.store, self.run, self.folder = store, run, folder
        self.children: dict[str, Child] = {}

    def start(self, name: str, *arguments: object) -> Child:
        """`python ARGUMENTS --store ... --run ...`, in the background; again under an old name is a restart."""
        log = self.folder / f"{name}.log"
        log.unlink(missing_ok=True)
        command = [sys.executable, *map(str, arguments), "--store", self.store, "--run", self.run]
        self.children[name] = Child(name, command, log, ONE_THREAD)
        self.children[name].start()
        return self.children[name]

    def start_replicas(self, *names: str) -> None:
        """Replicas, side by side."""
        for name in names:
            self.start(name, "-m", "serving", "replica", "--name", name)
        for name in names:
            self.ready(name)

    def ready(self, name: str) -> dict[str, str]:
        """What a process said when it was ready; waits for that."""
        child, found = self.children[name], {}

        def said() -> bool:
            for line in child.log.read_text(errors="replace").splitlines():
                if line.startswith('{"ready"'):
                    found.update(json.loads(line))
            assert found or not child.ended(), f"{name} ended: {child.last_words()}"
            return bool(found)

        until(said, f"{name} is ready")
        return found

    def metrics(self, name: str) -> Page:
        """The metrics page of a process."""
        port = self.ready(name)["metrics"].rpartition(":")[2]
        return scrape({name: int(port)}, seconds=5.0)[name]

    def kill(self, name: str) -> None:
        """SIGKILL."""
        process = self.children[name].process
        assert process is not None
        process.kill()
        process.wait()

    def log(self, name: str) -> str:
        """What a process has said so far."""
        return self.children[name].log.read_text(errors="replace")

    def memory(self) -> int:
        """Resident bytes of all processes."""
        running = [child.process for child in self.children.values() if child.process and not child.ended()]
        return sum(psutil.Process(process.pid).memory_info().rss for process in running)

    def stop(self) -> None:
        """End all in order, replicas side by side, or after a while at once."""
        for child in self.children.values():
            if child.process is not None and not child.ended():
                child.process.send_signal(signal.SIGCONT)
            child.ask_to_stop()
        for child in self.children.values():
            child.finish(10.0)

    @contextlib.contextmanager
    def router(self, **flags: object) -> Iterator[Asked]:
        """A router of this run until the end of the block, without comparisons unless flags say so."""
        name = f"router-{sum(child.startswith('router') for child in self.children)}"
        options = {"shadow": 0, "name": name} | flags
        arguments = [word for flag, value in options.items() for word in (f"--{flag.replace('_', '-')}", value)]
        child = self.start(name, "-m", "serving", "router", *arguments)
        try:
            address = self.ready(name)["address"]
            with grpc.insecure_channel(address) as channel:
                yield Asked(self, name, address, channel)
            child.stop(10.0)
            assert child.process is not None and child.process.returncode == 0, child.last_words()
            assert "Traceback" not in self.log(name), self.log(name)
        finally:
            child.stop(10.0)


class Asked:
    """A running router, and ways to ask it."""

    def __init__(self, system: System, name: str, address: str, channel: grpc.Channel) -> None:
        self.address, self.channel, self.stub = address, channel, RecommenderStub(channel)
        self._system, self._name = system, name

    def replicas(self) -> dict[str, ReplicaState]:
        """What it knows of each replica, by name."""
        return {state.name: state for state in self.stub.ListReplicas(ListReplicasRequest(), timeout=5).replicas}

    def serves(self) -> bool:
        """Whether it says so to a probe: it has replicas, and has seen what is published."""
        stub = health_pb2_grpc.HealthStub(self.channel)
        status = stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status
        return bool(status == health_pb2.HealthCheckResponse.SERVING)

    def healthy(self) -> set[str]:
        """Names of those that it sends queries to."""
        return {name for name, state in self.replicas().items() if state.healthy}

    def metrics(self) -> Page:
        """Its metrics page."""
        return self._system.metrics(self._name)


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """Status and message of a call that must fail."""
    try:
        call()
    except grpc.RpcError as problem:
        assert isinstance(problem, grpc.Call)
        return problem.code(), problem.details() or ""
    raise AssertionError("it was answered")
