"""A store that says no in every way that one does, under 100 queries and 50 reports per second, beside a real trainer.

No query fails, what was accepted is learned, once, nobody ends, and all go on by themselves when the store relents.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from simulator.live.watch import scrape
from simulator.process import free_ports
from simulator.store.redis import RedisStore
from tests.integration.conftest import StoreProcess
from tests.integration.reports import GROUP, ITEMS, Reports, count
from tests.integration.system import Asked, System, until
from tests.integration.test_trainer import SMALL, newest
from tests.integration.traffic import Traffic

SHORT, LONG = 1.0, 30.0
"""Seconds that a fault lasts in everyday runs, and in slow ones."""
Relent = Callable[[], object]


def without_memory(store: StoreProcess, client: redis.Redis) -> Relent:
    client.config_set("maxmemory", 1)
    return lambda: client.config_set("maxmemory", 0)


def read_only(store: StoreProcess, client: redis.Redis) -> Relent:
    client.replicaof("127.0.0.1", str(free_ports(1)[0]))
    return lambda: client.replicaof("NO", "ONE")


def without_replicas(store: StoreProcess, client: redis.Redis) -> Relent:
    client.config_set("min-replicas-to-write", 1)
    return lambda: client.config_set("min-replicas-to-write", 0)


def without_disk(store: StoreProcess, client: redis.Redis) -> Relent:
    """Its dump cannot be written: a folder is in the way, which stops the superuser too."""
    place = store.folder / "dump.rdb"
    place.mkdir()
    client.config_set("stop-writes-on-bgsave-error", "yes")
    client.config_set("save", "3600 1")
    client.bgsave()

    def relent() -> None:
        place.rmdir()
        client.config_set("save", "")

    return relent


def killed(store: StoreProcess, client: redis.Redis) -> Relent:
    store.kill()
    return store.start


def frozen(store: StoreProcess, client: redis.Redis) -> Relent:
    assert store.server.process is not None
    store.server.process.send_signal(signal.SIGSTOP)
    return lambda: store.server.process.send_signal(signal.SIGCONT) if store.server.process else None


REFUSING = (without_memory, read_only, without_replicas, without_disk)
FAULTS = [pytest.param(fault, True, SHORT, id=fault.__name__) for fault in (*REFUSING, killed, frozen)]
FAULTS.append(pytest.param(killed, False, SHORT, id="killed, no spool"))
FAULTS += [
    pytest.param(fault.values[0], fault.values[1], LONG, marks=pytest.mark.slow, id=f"{fault.id}, long")
    for fault in list(FAULTS)
]
FAULTS.append(pytest.param(frozen, False, LONG, marks=pytest.mark.slow, id="frozen, no spool, long"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    """A server of these tests alone."""
    process = StoreProcess(tmp_path_factory.mktemp("refusing"))
    yield process
    process.server.stop()


@pytest.fixture(scope="module")
def system(store: StoreProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A trainer and two replicas, none of which may end."""
    folder = tmp_path_factory.mktemp("system")
    system = System(store.url, "refused", folder)
    try:
        system.start("trainer", "-m", "trainer", "--state", folder / "state", *SMALL, "--rate", 400)
        system.start_replicas("one", "two")
        yield system
        assert not [name for name, child in system.children.items() if name[:6] != "router" and child.ended()]
    finally:
        system.stop()
    for name in ("trainer", "one", "two"):
        assert "Traceback" not in system.log(name), system.log(name)


class Log:
    """The log from now on, which nobody forgets before it is counted."""

    def __init__(self, url: str) -> None:
        self._store = RedisStore(url, run="refused", capacity=200_000, patience=10.0)
        self._store.join(GROUP)
        appended = self._store._server.client.hget(self._store._counts, "appended")
        self._start = f"{int(appended or 0)}-0"

    def count(self) -> Counter[int]:
        """Report -> its events in the log."""
        return count(self._store, self._start)

    def close(self) -> None:
        """Let it be forgotten."""
        self._store.leave(GROUP)
        self._store.close()


@pytest.fixture
def log(store: StoreProcess) -> Iterator[Log]:
    """Of one test."""
    log = Log(store.url)
    yield log
    log.close()


def assert_learned_once(log: Log, reports: Reports) -> None:
    """Every report that was accepted is in the log, once."""
    until(lambda: len(log.count()) == len(reports.taken), "all that was accepted reaches the log", 20.0)
    assert log.count() == {number: ITEMS for number in reports.taken}
    assert len(reports.taken) == reports.sent, f"each was accepted in the end: {reports.codes}"


@pytest.mark.parametrize(("fault", "spooled", "seconds"), FAULTS)
def test_nothing_fails_and_nothing_accepted_is_lost(
    fault: Callable[[StoreProcess, redis.Redis], Relent],
    spooled: bool,
    seconds: float,
    store: StoreProcess,
    system: System,
    log: Log,
    tmp_path: Path,
) -> None:
    flags = {"spool": tmp_path / "spool"} if spooled else {}
    with redis.Redis.from_url(store.url, protocol=2) as client, system.router(**flags) as asked:
        until(lambda: newest(asked) >= 1 and len(asked.healthy()) == 2 and asked.serves(), "both serve", 60.0)
        before = refused(system, asked)
        with Traffic(asked.address) as traffic, Reports(asked.address, str(tmp_path)) as reports:
            time.sleep(1.0)
            relent = fault(store, client)
            time.sleep(seconds)
            if seconds > SHORT and fault in (killed, frozen):
                assert asked.metrics().value("flicker_router_store_up") == 0, "the alert's metric"
            assert asked.healthy() == {"one", "two"}
            relent()
            relented, published = time.monotonic(), newest(asked)
            until(lambda: newest(asked) > published, "new generations come")
            until(lambda: asked.metrics().value("flicker_feedback_buffered") == 0, "the spool is handed over")
        healed = time.monotonic() - relented
        traffic.assert_none_failed(least=round(80 * (1.0 + seconds)))
        assert_learned_once(log, reports)
        if fault in REFUSING:
            assert refused(system, asked) > before, "the alert's metric"
        if spooled:
            assert set(reports.codes) == {"OK"}, "the spool takes all"
    print(
        f"{fault.__name__}, {seconds:g} s: {len(traffic.outcomes)} queries, slowest {traffic.slowest():.2f} s; "
        f"{reports.sent} reports {dict(reports.codes)}; a new generation and all reports {healed:.1f} s after"
    )


def refused(system: System, asked: Asked) -> float:
    """What the router and the trainer count of a store that refuses."""
    said = system.log("trainer").partition("trainer: metrics at http://127.0.0.1:")[2].partition("/")[0]
    trainer = scrape({"trainer": int(said)}, seconds=5.0)["trainer"]
    name = "flicker_store_refused_total"
    return trainer.total(name) + asked.metrics().total(name)


def test_a_router_is_killed_while_the_store_is_away(
    store: StoreProcess, system: System, log: Log, tmp_path: Path
) -> None:
    started = ("-m", "serving", "router", "--shadow", 0, "--spool", tmp_path, "--port", free_ports(1)[0])
    try:
        system.start("router-killed", *started)
        address = system.ready("router-killed")["address"]
        with Reports(address, str(tmp_path)) as reports:
            until(lambda: len(reports.taken) > 20, "reports are taken", 60.0)
            store.kill()
            until(lambda: len(reports.taken) > 80, "they are taken without a store")
            system.kill("router-killed")
            store.start()
            system.start("router-killed", *started)
            system.ready("router-killed")
            before = len(reports.taken)
            until(lambda: len(reports.taken) > before + 50, "they are taken again")
        assert_learned_once(log, reports)
    finally:
        system.children["router-killed"].stop(10.0)
    print(f"{reports.sent} reports, {dict(reports.codes)}")
