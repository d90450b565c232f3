"""What the environment says to router and replica, and where a replica that listens everywhere is found."""

from __future__ import annotations

import socket

import psutil
import pytest

from serving.__main__ import main
from serving.replica.main import own_address
from serving.router.main import RouterFlags
from simulator.flags import parse_flags
from simulator.process import run
from tests.serving.router_under_test import running
from tests.store.memory_store import MemoryStore

VARIABLES = {"POLICY": "sticky", "SEED": "7", "SHADOW": "0.5", "REPLICAS": "4"}


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"FLICKER_{name}", raising=False)


def router_flags(*arguments: str) -> tuple[str, int, float, int | None]:
    flags = parse_flags(RouterFlags, "router", list(arguments))
    return flags.policy, flags.seed, flags.shadow, flags.replicas


def test_flags_over_variables_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert router_flags() == ("random", 0, 0.1, None)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(f"FLICKER_{name}", value)
    assert router_flags() == ("sticky", 7, 0.5, 4)
    assert router_flags("--policy", "random", "--seed", "1", "--shadow", "0", "--replicas", "2") == (
        "random",
        1,
        0.0,
        2,
    )
    for name in VARIABLES:
        monkeypatch.setenv(f"FLICKER_{name}", "")
    assert router_flags() == ("random", 0, 0.1, None)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("SHADOW", "much", "FLICKER_SHADOW = much: a number"),
        ("SHADOW", "1.5", "shadow = 1.5: from 0 to 1"),
        ("SHADOW", "nan", "shadow = nan: from 0 to 1"),
        ("POLICY", "best", "FLICKER_POLICY = best: one of random, round_robin, sticky, least_loaded"),
        ("SEED", "1.5", "FLICKER_SEED = 1.5: a whole number"),
        ("SEED", "-1", "seed = -1: 0 or more"),
        ("REPLICAS", "0", "replicas = 0: at least 1"),
        ("REPLICAS", "three", "FLICKER_REPLICAS = three: a whole number"),
    ],
)
def test_a_bad_variable_is_one_line_and_exit_code_2(
    name: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"FLICKER_{name}", value)
    monkeypatch.setattr("sys.argv", ["serving", "router", "--store", "redis://127.0.0.1:1"])
    with pytest.raises(SystemExit) as ended:
        run("serving router", main)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("serving router: ") and told in said and said.count("\n") == 1


def test_expected_replicas_are_shown_where_they_are_told() -> None:
    for replicas in (None, 3):
        with running(MemoryStore(10_000), replicas=replicas) as asked:
            assert asked.registry.get_sample_value("flicker_router_replicas_expected") == replicas


def own_addresses() -> list[str]:
    """IPv4 addresses of this machine, the loopback's among them."""
    return [a.address for found in psutil.net_if_addrs().values() for a in found if a.family is socket.AF_INET]


def test_a_replica_announces_the_address_by_which_it_reaches_the_store() -> None:
    for address in own_addresses():
        assert own_address(f"redis://:secret@{address}:6380/0") == address
    assert own_address("redis://localhost") == "127.0.0.1"
    assert own_address("unix:///run/redis.sock") == "127.0.0.1"
    with pytest.raises(OSError):
        own_address("redis://no.such.host.invalid:6379/0")
