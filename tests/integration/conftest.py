"""One store and three replicas for all tests that leave them as they found them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.process import free_ports
from simulator.store.redis import RedisStore
from simulator.store.server import StoreServer, start_server
from tests.integration.publisher import Publisher
from tests.integration.system import System

RUN = "shared"
REPLICAS = ("replica-0", "replica-1", "replica-2")


class StoreProcess:
    """A store's server that tests may kill and start again: the same folder, the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_ports(1)[0]
        self.server: StoreServer = start_server(folder, port=self.port)
        self.url = self.server.url

    def kill(self) -> None:
        """SIGKILL."""
        assert self.server.process is not None
        self.server.process.kill()
        self.server.process.wait()

    def start(self) -> None:
        """After `kill`."""
        self.server = start_server(self.folder, port=self.port)


@pytest.fixture(scope="session")
def store_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    """The server of all tests."""
    process = StoreProcess(tmp_path_factory.mktemp("store"))
    yield process
    process.server.stop()


@pytest.fixture(scope="session")
def publisher(store_process: StoreProcess) -> Iterator[Publisher]:
    """Publishes what the shared replicas serve; there is one generation already."""
    store = RedisStore(store_process.url, run=RUN, capacity=200_000)
    made = Publisher(store)
    made.publish()
    yield made
    store.close()


@pytest.fixture(scope="session")
def replicas(
    store_process: StoreProcess, publisher: Publisher, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """Three of them."""
    started = System(store_process.url, RUN, tmp_path_factory.mktemp("shared"))
    try:
        started.start_replicas(*REPLICAS)
        yield started
    finally:
        started.stop()
    for name in REPLICAS:
        assert "Traceback" not in started.log(name), started.log(name)


@pytest.fixture
def system(replicas: System, store_process: StoreProcess) -> System:
    """The three replicas, all of them alive whatever the test before did."""
    if not store_process.server.alive():
        store_process.start()
    replicas.start_replicas(*(name for name in REPLICAS if replicas.children[name].ended()))
    return replicas
