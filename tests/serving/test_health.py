"""`python -m serving health`: against a real router, in this process and as a container's probe runs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.__main__ import main
from simulator.errors import FlickerError
from tests.serving.fake_replica import FakeReplica, publish
from tests.serving.router_under_test import Asked, healthy, running, until
from tests.store.memory_store import MemoryStore

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore(10_000)
    publish(store, 1)
    return store


@pytest.fixture
def replica(store: MemoryStore) -> Iterator[FakeReplica]:
    made = FakeReplica("a", 0)
    made.say(True)
    made.announce(store)
    yield made
    made.stop()


@pytest.fixture
def asked(store: MemoryStore, replica: FakeReplica) -> Iterator[Asked]:
    with running(store) as router:
        healthy(router, 1)
        yield router


def probe(*arguments: str) -> int:
    """Its exit code."""
    try:
        main(["health", *arguments])
    except SystemExit as ended:
        assert isinstance(ended.code, int)
        return ended.code
    return 0


def test_a_router_that_listens_serves_at_once(store: MemoryStore, replica: FakeReplica) -> None:
    with running(store) as router:
        assert probe(router.address) == 0
        assert router.metric("flicker_router_replicas", healthy="true") == 1


def test_a_router_serves_while_a_replica_does(
    asked: Asked, replica: FakeReplica, capsys: pytest.CaptureFixture[str]
) -> None:
    until(lambda: probe(asked.address) == 0)
    assert probe(asked.address, "--service", "flicker.v1.Recommender") == 0
    capsys.readouterr()
    replica.say(False)
    until(lambda: probe(asked.address) == 1)
    # before it may stand what logging says of a handler that another test left with its closed stream
    assert capsys.readouterr().err.endswith(f"{asked.address}: NOT_SERVING\n")


def test_what_cannot_be_asked_is_one_line(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe(asked.address, "--service", "flicker.v1.Cooking") == 1
    assert capsys.readouterr().err.startswith(f"{asked.address}: NOT_FOUND: ")
    assert probe("127.0.0.1:1", "--timeout", "5") == 1
    said = capsys.readouterr().err
    assert said.startswith("127.0.0.1:1: UNAVAILABLE: ") and said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "ADDRESS"),
        (["localhost"], "address = localhost: host:port"),
        (["localhost:http"], "address = localhost:http: host:port"),
        (["localhost:1", "--timeout", "0"], "timeout = 0.0: more than 0 seconds"),
        (["localhost:1", "--timeout", "nan"], "timeout = nan: more than 0 seconds"),
        (["localhost:1", "--timeout", "soon"], "soon"),
        (["localhost:1", "--patience", "3"], "--patience"),
    ],
)
def test_bad_arguments_are_told(arguments: list[str], complaint: str) -> None:
    with pytest.raises(FlickerError) as told:
        main(["health", *arguments])
    assert complaint in str(told.value) and "\n" not in str(told.value)


PROBE = """
import sys
from simulator.process import run
from serving.__main__ import main
run("serving health", main)
heavy = {"torch", "numpy", "tyro", "rich", "prometheus_client", "protos"} & set(sys.modules)
sys.exit(f"loaded: {heavy}" if heavy else 0)
"""


def test_it_loads_little(asked: Asked) -> None:
    until(lambda: probe(asked.address) == 0)
    ended = subprocess.run([sys.executable, "-c", PROBE, "health", asked.address], cwd=ROOT, capture_output=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
