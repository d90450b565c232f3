"""As containers are treated: started in any order, told to stop at any moment; a replica that listens everywhere."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from simulator.live.watch import Page, scrape
from simulator.process import free_ports
from simulator.store.redis import open_store
from simulator.store.server import start_server
from tests.integration.system import System, until

SMALL = (
    "--hidden 16 --dim 4 --batch 64 --window 4 --events 20000 --users 100 --items 80 --candidates 30 --duplicates 2 "
    "--head-start 2000 --arms smelu:beta=1 relu relu"
).split()
ARMS = ("smelu:beta=1", "relu", "relu#2")
PATIENCE = 90.0
"""Seconds for all processes to start side by side on a busy machine."""
AWAY = {"trainer": "is away", "replica": "is away", "router": "the store is away"}
"""What each says while the store is."""


@pytest.fixture
def port() -> int:
    """Where a store will be, or never."""
    return free_ports(1)[0]


@pytest.fixture
def system(port: int, tmp_path: Path) -> Iterator[System]:
    """Trainer, replica and router, without a store."""
    system = System(f"redis://127.0.0.1:{port}/0", "alone", tmp_path)
    try:
        system.start("trainer", "-m", "trainer", "--state", tmp_path / "state", "--host", "0.0.0.0", *SMALL)
        system.start("replica", "-m", "serving", "replica", "--host", "0.0.0.0", "--name", "one")
        system.start("router", "-m", "serving", "router", "--host", "0.0.0.0", "--replicas", 2)
        yield system
    finally:
        system.stop()


def wait_for_log(system: System, name: str, words: str) -> None:
    until(lambda: words in system.log(name) or system.children[name].ended(), f"{name} says: {words}", PATIENCE)
    assert not system.children[name].ended(), system.log(name)


def assert_ends_in_order(system: System) -> None:
    """SIGTERM ends each with exit code 0, within the 10 seconds that containers are given."""
    for child in system.children.values():
        child.ask_to_stop()
    for name, child in system.children.items():
        assert child.process is not None and child.process.wait(10) == 0, f"{name}: {system.log(name)}"
        assert "Traceback" not in system.log(name), system.log(name)


def test_all_wait_for_the_store_and_then_serve(system: System, port: int, tmp_path: Path) -> None:
    for name, words in AWAY.items():
        wait_for_log(system, name, words)
    with start_server(tmp_path / "store", port=port):
        router = f"127.0.0.1:{system.ready('router')['address'].rpartition(':')[2]}"

        def serves() -> bool:
            with grpc.insecure_channel(router) as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                status = stub.Check(health_pb2.HealthCheckRequest(), timeout=5, wait_for_ready=True).status
            return bool(status == health_pb2.HealthCheckResponse.SERVING)

        until(serves, "the router answers", PATIENCE)
        store, ready = open_store(system.store, run=system.run), system.ready("replica")
        assert [member.address for member in store.members()] == [ready["address"]]
        store.close()
        # the way to this store is the loopback interface, so that whoever shares the store is on this machine too
        assert ready["address"].startswith("127.0.0.1:") and ready["metrics"].startswith("127.0.0.1:")
        page = system.metrics("router")
        assert page.value("flicker_router_replicas_expected") == 2
        assert page.value("flicker_router_replicas", healthy="true") == 1
        assert_ends_in_order(system)


def early_metrics(system: System, name: str) -> Page:
    """The metrics page of a process that is not ready yet."""
    said = re.search(rf"{name}: metrics at http://0\.0\.0\.0:(\d+)/metrics", system.log(name))
    assert said, system.log(name)
    return scrape({name: int(said[1])}, seconds=10.0)[name]


def test_all_end_while_they_wait_for_the_store(system: System) -> None:
    for name, words in AWAY.items():
        wait_for_log(system, name, words)
    trainer, router = (early_metrics(system, name) for name in ("trainer", "router"))
    assert '{"ready"' not in system.log("router"), "it listens only when it knows what is published"
    positions = {arm: trainer.value("flicker_arm_position", arm=arm) for arm in ARMS}
    assert list(positions.items()) == [("smelu:beta=1", 0), ("relu", 1), ("relu#2", 2)]
    for page in (trainer, system.metrics("replica"), router):
        assert page.value("process_resident_memory_bytes") > 10e6 and page.value("process_cpu_seconds_total") > 0
    assert_ends_in_order(system)


def test_all_end_while_they_still_start(system: System) -> None:
    for child in system.children.values():
        assert child.process is not None
        wait_until_handled(child.process.pid)
    assert_ends_in_order(system)


def wait_until_handled(pid: int) -> None:
    """Wait until the process has a handler for SIGTERM: Python itself needs a moment for that."""
    mask = 1 << (signal.SIGTERM - 1)

    def handled() -> bool:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return any(line.startswith("SigCgt:") and int(line.split()[1], 16) & mask for line in lines)

    until(handled, "it handles SIGTERM", PATIENCE)
