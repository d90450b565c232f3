"""Real processes on a real server, killed by SIGKILL: nothing lost, nothing learned twice, the same to the last bit."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from simulator.models.factories import ALLOWED
from simulator.process import free_ports
from simulator.store.redis import RedisStore
from simulator.store.server import StoreServer, start_server
from tests.trainer.conftest import Reference
from tests.trainer.small_trainer import (
    ARGUMENTS,
    CHUNK,
    CONFIG,
    EVENTS,
    GENERATIONS,
    OWN_ARGUMENTS,
    OWN_CONFIG,
    OWN_FACTORY,
    PATIENCE,
    finish,
    running,
    saved,
)

ROOT = Path(__file__).parents[2]
MOMENTS = {
    "learning, between two generations": ("simulator.models.engines:Engines.learn", 7),
    "saving, the weights written": ("simulator.models.snapshot:save_file", 3),
    "saving, all written but not in place": ("trainer.resume:write_snapshot", 3),
    "saved, nothing published": ("trainer.resume:StateFolder.save", 2),
    "publishing, half of the parts there": ("simulator.store.parts:RedisParts.put", 10),
    "published, not acknowledged": ("simulator.store.redis:RedisStore.publish", 4),
    "fed, the mark just set": ("simulator.store.redis:RedisStore.append", 3),
}
OWN_MOMENTS = {
    "a module, between two generations": ("simulator.models.engines:Engines.learn", 7),
    "a module, saved, nothing published": ("trainer.resume:StateFolder.save", 2),
}
"""The same with a module of the user's, which draws random numbers, has buffers, and an optimiser of its own."""
EVERY = MOMENTS | OWN_MOMENTS
Launch = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """A server that no test stops."""
    with start_server(tmp_path_factory.mktemp("store")) as started:
        yield started


@pytest.fixture(scope="module")
def launch() -> Iterator[Launch]:
    """Starts Python processes, all of which have ended when the tests have."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", ALLOWED: OWN_FACTORY}
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=pipe, stderr=pipe))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def killed(server: StoreServer, launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The state folders that trainers left which died at each of the moments, side by side."""
    folders = {name: tmp_path_factory.mktemp("killed") for name in EVERY}
    moments = []
    for number, (name, (where, count)) in enumerate(EVERY.items()):
        wiring = f"--store {server.url} --run killed-{number} --state {folders[name]} --rate 5000".split()
        moments.append((where, count, wiring + (OWN_ARGUMENTS if name in OWN_MOMENTS else ARGUMENTS)))
    endings, errors = launch(ROOT / "tests/trainer/dying.py", json.dumps(moments)).communicate(timeout=2 * PATIENCE)
    assert json.loads(endings.splitlines()[-1]) == [-signal.SIGKILL] * len(EVERY), errors
    return folders


@pytest.mark.parametrize("moment", EVERY)
def test_killed(
    moment: str,
    server: StoreServer,
    killed: dict[str, Path],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ALLOWED, OWN_FACTORY)
    own = moment in OWN_MOMENTS
    reference: Reference = request.getfixturevalue("own_reference" if own else "reference")
    name = f"killed-{list(EVERY).index(moment)}"
    store = RedisStore(server.url, run=name, capacity=200_000)
    try:
        assert store.waiting() < EVENTS
        finish(store, killed[moment], run=name, config=OWN_CONFIG if own else CONFIG)
        reference.check(store, killed[moment])
        after = saved(killed[moment])[1]["after"]
        ids = [after, *(entry.id for entry in store.read("trainer", after, 500, 0.0))]
        assert ids[-1] == f"{EVENTS}-0"  # every event of the world is in the log, once
    finally:
        store.close()


def test_killed_from_outside_and_stopped_by_a_signal(
    server: StoreServer, launch: Launch, reference: Reference, tmp_path: Path
) -> None:
    flags = ["-m", "trainer", "--store", server.url, "--run", "outside", "--state", tmp_path, "--rate", 1_500]
    store = RedisStore(server.url, run="outside", capacity=200_000)
    try:
        process = launch(*flags, *ARGUMENTS)
        assert store.wait_newer(1, PATIENCE) > 1
        process.kill()
        process.wait()
        process = launch(*flags, *ARGUMENTS)
        address = re.search(r"http://\S+", process.stdout.readline() if process.stdout else "")
        assert address
        assert store.wait_newer(3, PATIENCE) > 3
        with urllib.request.urlopen(address[0]) as page:
            assert "flicker_events_learned_total" in page.read().decode()
        process.terminate()
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0 and "Traceback" not in errors
        finish(store, tmp_path, run="outside")
        reference.check(store, tmp_path)
    finally:
        store.close()


def test_a_server_that_is_stopped_for_a_while(reference: Reference, tmp_path: Path) -> None:
    port = free_ports(1)[0]
    store = RedisStore(f"redis://127.0.0.1:{port}/0", run="flicker", capacity=200_000, patience=0.1)
    server = start_server(tmp_path / "store", port=port)
    try:
        with running(store, tmp_path / "state", rate=4_000.0) as one:
            one.learn(3 * CHUNK)
            server.stop()
            before = one.metric("flicker_store_errors_total") or 0
            one.wait_for(lambda: (one.metric("flicker_store_errors_total") or 0) >= before + 3)
            server = start_server(tmp_path / "store", port=port)
            one.learn(EVENTS // CHUNK * CHUNK)
            one.wait_for(lambda: one.metric("flicker_generation") == GENERATIONS)
        reference.check(store, tmp_path / "state")
    finally:
        store.close()
        server.stop()
