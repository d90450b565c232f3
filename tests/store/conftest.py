"""One real server for all tests of the store, and the stores that keep the protocol."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from simulator.store.protocol import Store
from simulator.store.redis import RedisStore, open_store
from simulator.store.server import StoreServer, start_server
from tests.store.memory_store import MemoryStore

CAPACITY = 100
runs = (f"test-{number}" for number in itertools.count())

MakeStore = Callable[[], Store]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """A server that no test stops."""
    with start_server(tmp_path_factory.mktemp("store")) as started:
        yield started


@pytest.fixture(params=["memory", "redis", "redis and a folder"])
def make_store(request: pytest.FixtureRequest) -> Iterator[MakeStore]:
    """Makes empty stores of one kind, with room for CAPACITY events."""
    opened: list[Store] = []

    def make() -> Store:
        if request.param == "memory":
            opened.append(MemoryStore(CAPACITY))
        else:
            url, run = request.getfixturevalue("server").url, next(runs)
            folder = request.param == "redis and a folder"
            weights = f"file://{request.getfixturevalue('tmp_path')}/weights" if folder else ""
            opened.append(open_store(url, run=run, capacity=CAPACITY, weights=weights))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    """An empty store."""
    return make_store()


@pytest.fixture
def redis_store(server: StoreServer) -> Iterator[RedisStore]:
    """An empty store on the server."""
    opened = RedisStore(server.url, run=next(runs), capacity=CAPACITY)
    yield opened
    opened.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[StoreServer]:
    """A server that the test may stop or kill, with its data in `tmp_path / "data"`."""
    with start_server(tmp_path / "data") as started:
        yield started
