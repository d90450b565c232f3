"""The server as a child: killed, restarted, orphaned, not found. Nothing that it acknowledged is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.store import server as servers
from simulator.store.protocol import StoreAway, StoreError
from simulator.store.redis import RedisStore
from simulator.store.server import URL_VARIABLE, StoreServer, find_or_start, start_server
from tests.conftest import ROOT
from tests.store.batches import batch, numbers


def kill(server: StoreServer) -> None:
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()


def port_of(server: StoreServer) -> int:
    return int(server.url.rpartition(":")[2].partition("/")[0])


@pytest.fixture
def store(own_server: StoreServer) -> Iterator[RedisStore]:
    """On a server that the test may kill."""
    opened = RedisStore(own_server.url, run="killed", capacity=10**6, patience=0.2)
    yield opened
    opened.close()


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(
    own_server: StoreServer, store: RedisStore, tmp_path: Path
) -> None:
    answered: list[str] = []
    away, done = threading.Event(), threading.Event()

    def write() -> None:
        while not done.is_set():
            number = 10 * len(answered)
            try:
                answered.append(store.append(batch(number, 10), writer="feeder", mark=str(number)))
            except StoreAway:
                away.set()

    def write_until(entries: int) -> None:
        while len(answered) < entries:
            time.sleep(0.01)
            assert writer.is_alive()

    store.join("trainer")
    store.publish(0, {"part": b"x" * 10**6}, {"generation": 0})
    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    write_until(100)
    kill(own_server)
    assert away.wait(30.0), "the writer is told that the store is away"
    with pytest.raises(StoreAway):
        store.read("trainer", "", 10, 0.0)
    with start_server(tmp_path / "data", port=port_of(own_server)):
        write_until(len(answered) + 50)  # the same client goes on
        done.set()
        writer.join()
        found = store.read("trainer", "", 10**6, 0.0)
        assert [entry.id for entry in found] == answered
        assert numbers([entry.batch for entry in found]) == list(range(10 * len(answered)))
        assert store.mark("feeder") == str(10 * (len(answered) - 1))
        assert store.fetch(0, "part") == b"x" * 10**6


def test_all_that_a_store_holds_survives_a_restart(own_server: StoreServer, store: RedisStore, tmp_path: Path) -> None:
    store.join("trainer")
    ids = [store.append(batch(number, 1)) for number in range(5)]
    store.acknowledge("trainer", ids[1])
    store.publish(4, {"part": b"4"}, {"events": 2})
    assert [store.claim(owner, 3, 60.0) for owner in ("a", "b")] == [0, 1]
    own_server.stop()
    own_server.stop()
    assert not own_server.alive()
    with start_server(tmp_path / "data", port=port_of(own_server)):
        assert store.waiting() == 3
        assert [entry.id for entry in store.read("trainer", ids[1], 10, 0.0)] == ids[2:]
        with pytest.raises(StoreError, match="forgotten|begins after"):
            store.read("trainer", "", 10, 0.0)
        assert (store.newest(), store.about(4)) == (4, {"events": 2})
        assert [store.claim(owner, 3, 60.0) for owner in ("b", "c")] == [1, 2]


def test_those_who_wait_go_on_waiting_through_a_short_outage(own_server: StoreServer, tmp_path: Path) -> None:
    store = RedisStore(own_server.url, run="waits", capacity=100, patience=30.0)
    store.join("trainer")
    found: list[object] = []
    waiters = [
        threading.Thread(target=lambda: found.append(numbers([e.batch for e in store.read("trainer", "", 10, 60.0)]))),
        threading.Thread(target=lambda: found.append(store.wait_newer(-1, 60.0))),
    ]
    for waiter in waiters:
        waiter.start()
    kill(own_server)
    with start_server(tmp_path / "data", port=port_of(own_server)):
        store.append(batch(0, 2), writer="feeder", mark="2")
        store.publish(0, {}, {})
        for waiter in waiters:
            waiter.join()
    assert sorted(found, key=str) == [0, [0, 1]]
    store.close()


def test_a_server_that_hangs_is_away(
    own_server: StoreServer, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulator.store.connection.TIMEOUT", 0.2)
    impatient = RedisStore(own_server.url, run="hangs", capacity=1, patience=0.0)
    impatient.ping()
    assert own_server.process is not None
    os.kill(own_server.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreAway):
            impatient.ping()
    finally:
        os.kill(own_server.process.pid, signal.SIGCONT)
    impatient.ping()
    impatient.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_the_server_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import time; from pathlib import Path; from simulator.store.server import start_server\n"
        f"print(start_server(Path({str(tmp_path)!r})).process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    try:
        pid = int(parent.stdout.readline())
        os.kill(pid, 0)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    held = None
    for _ in range(1000):  # the lock on its folder is free once it is gone
        try:
            held = servers.lock(tmp_path)
            break
        except StoreError:
            time.sleep(0.01)
    if held is None:
        os.kill(pid, signal.SIGKILL)
    assert held is not None, f"server {pid} outlived its parent"
    os.close(held)


def test_a_folder_in_use_is_named(own_server: StoreServer, store: RedisStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"store folder {tmp_path / 'data'}: another server uses it"):
        start_server(tmp_path / "data")
    store.ping()


def test_a_port_in_use_is_not_taken_for_the_new_server(own_server: StoreServer, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="did not start: .*[Ff]ailed listening"):
        start_server(tmp_path / "second", port=port_of(own_server))


def test_a_damaged_data_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "appendonlydir" / "appendonly.aof.manifest").write_text("file nonsense\n")
    with pytest.raises(StoreError, match="^the store's server did not start: .*$"):
        start_server(tmp_path)


def test_a_folder_whose_name_has_spaces_is_as_good(tmp_path: Path) -> None:
    with start_server(tmp_path / "my  data 'here'") as started:
        assert started.alive()
    assert (tmp_path / "my  data 'here'" / "appendonlydir").is_dir()


def test_the_named_server_is_used_and_not_stopped(
    server: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, server.url)
    with find_or_start(tmp_path / "unused") as found:
        assert (found.url, found.process, found.alive()) == (server.url, None, True)
    assert server.alive() and not (tmp_path / "unused").exists()
    monkeypatch.setenv(URL_VARIABLE, " ")
    with find_or_start(tmp_path / "used") as started:
        assert started.process is not None


def test_without_any_program_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(servers, "carried_program", lambda: None)
    with pytest.raises(StoreError, match=f"install redis-server .* {URL_VARIABLE}"):
        start_server(tmp_path / "data")
    assert not (tmp_path / "data").exists()
