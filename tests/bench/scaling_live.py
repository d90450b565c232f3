"""One point of the live system, for the laws of `flicker size`: real processes and a store. Prints a line of JSON.

    python tests/bench/scaling_live.py FOLDER '{"entities": 10000, ...}'

A trainer, two replicas, and two routers of which one compares every query. Five windows each of queries at each router,
of reports of clicks, and of generations that are learned, published and taken up; CPU seconds of all threads (Linux)
without what the process takes when nothing is asked of it. Memory is anonymous: what a process holds beside files that
it maps.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from protos.recommender_pb2 import FeedbackRequest, RecommendRequest, ShownItem
from simulator.flags import parse
from simulator.live.processes import Child
from simulator.randomness import generator
from simulator.store.protocol import Store
from simulator.store.redis import open_store
from simulator.store.server import start_server
from simulator.world.open import open_world
from tests.integration.system import Asked, System, until
from trainer.flags import TrainerFlags

WINDOWS, QUERIES, REPORTS, IN_FLIGHT, K = 5, 600, 300, 16, 10
"""Repeated measurements; queries, and reports of clicks, in each; how many wait at once; items of a slate."""
IDLE = 1.5
"""Seconds that processes are watched while nothing is asked of them."""
EVENTS, RUN = 10_000_000, "size"
REPLICAS = "replica-0", "replica-1"
"""Two, so that there is one to compare with."""
LOOK = 0.1
"""Seconds between two looks at something that is waited for: looking takes CPU, too."""
CPU_CLOCK = 2
"""Of a process's clocks the one that counts CPU time, as clock_getcpuclockid(3) numbers them on Linux."""
STARTS = 300.0
"""Seconds after which a system that starts has failed to, on a machine with much other work."""


@dataclass(frozen=True)
class Live:
    """What is varied; all else is as the processes' flags have it."""

    entities: int = 10_000
    """Users, and as many items."""
    hash_rows: int = 0
    arms: int = 2
    duplicates: int = 4
    candidates: int = 200
    dim: int = 16
    hidden: tuple[int, ...] = (64, 32)
    generation_events: int = 8_192

    @property
    def trainer_flags(self) -> list[str]:
        """Of the trainer, whose world waits until it is told."""
        given = {
            "users": self.entities,
            "items": self.entities,
            "hash-rows": self.hash_rows,
            "duplicates": self.duplicates,
            "candidates": self.candidates,
            "dim": self.dim,
            "generation-events": self.generation_events,
            "events": EVENTS,
            "rate": 1,  # next to nothing: what is learned is appended here
        }
        words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        arms = ["relu", *(f"smelu:beta={number / 10:g}" for number in range(1, self.arms))]
        return [*words, "--hidden", *map(str, self.hidden), "--arms", *arms]


def cpu(pid: int) -> float:
    """Seconds of all threads, those that have ended too, to the nanosecond."""
    return time.clock_gettime(((~pid) << 3) | CPU_CLOCK)


def memory(pid: int) -> dict[str, int]:
    """Anonymous bytes: now, and at most so far."""
    kib = dict(re.findall(r"^(\w+):\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
    files = int(kib["RssFile"]) + int(kib["RssShmem"])
    return {"now": int(kib["RssAnon"]) << 10, "peak": (int(kib["VmHWM"]) - files) << 10}


def transferred(pid: int) -> dict[int, int]:
    """Bytes sent and received by a process: peer's or own port, whichever it listens at -> how many."""
    said = subprocess.run(["ss", "-tnipOH"], check=True, text=True, capture_output=True).stdout
    found: dict[int, int] = {}
    for line in (line for line in said.splitlines() if f"pid={pid}," in line):
        ports = [int(address.rpartition(":")[2]) for address in line.split()[3:5]]
        moved = sum(map(int, re.findall(r"bytes_(?:sent|received):(\d+)", line)))
        for port in ports:
            found[port] = found.get(port, 0) + moved
    return found


class Spent:
    """CPU seconds of processes over a stretch of work, without what they take anyhow."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        start, began = self._now(), time.monotonic()
        time.sleep(IDLE)
        self.idle = {name: (now - start[name]) / (time.monotonic() - began) for name, now in self._now().items()}
        """CPU seconds per second."""

    def _now(self) -> dict[str, float]:
        return {name: cpu(pid) for name, pid in self._pids.items()}

    def over(self, work: Callable[[], None]) -> dict[str, float]:
        """By process."""
        start, began = self._now(), time.monotonic()
        work()
        seconds = time.monotonic() - began
        return {name: max(0.0, now - start[name] - seconds * self.idle[name]) for name, now in self._now().items()}


class Users:
    """Ask a router, so many at once."""

    def __init__(self, asked: Asked, users: int) -> None:
        self._asked, self._users = asked, users
        self._draws, self._room = generator(0, "scaling live", 0), threading.Semaphore(IN_FLIGHT)

    def ask(self, queries: int) -> None:
        """Queries of users who come at random."""
        users = self._draws.integers(self._users, size=queries)
        numbers = self._draws.integers(2**62, size=queries)
        pairs = zip(numbers, users, strict=True)
        self._all(self._asked.stub.Recommend, (RecommendRequest(query_id=int(n), user=int(u), k=K) for n, u in pairs))

    def report(self, reports: int) -> None:
        """What was clicked of a slate."""
        shown = [ShownItem(item=item, clicked=item == 3) for item in range(K)]
        numbers = self._draws.integers(2**62, size=reports)
        requests = (FeedbackRequest(query_id=int(n), user=1, shown=shown, time=1e9, client="bench") for n in numbers)
        self._all(self._asked.stub.Feedback, requests)

    def _all(self, call: Any, requests: Iterator[Any]) -> None:
        pending = []
        for request in requests:
            self._room.acquire()
            future = call.future(request, timeout=60)
            future.add_done_callback(lambda done: self._room.release())
            pending.append(future)
        for future in pending:
            future.result()


class World:
    """Appends events to the log, a generation at a time, as a feeder of its own would."""

    def __init__(self, setting: Live, store: Store) -> None:
        config = parse(TrainerFlags, "trainer", setting.trainer_flags).config()
        world = open_world(config.world, config.seed, config.model.hash_rows)
        self._events, self._store = world.batches(setting.generation_events), store

    def generation(self) -> None:
        """The events of the next one."""
        self._store.append(next(self._events))


@contextmanager
def running(setting: Live, folder: Path) -> Iterator[tuple[System, World, Asked, Asked]]:
    """The system, the world's events, a router that compares nothing, and one that compares all."""
    with start_server(folder / "store") as server, ExitStack() as stack:
        system = System(server.url, RUN, folder)
        assert server.process is not None, "a store of ours: what FLICKER_REDIS_URL names is not measured"
        system.children["store"] = Child("store", [], folder / "store.log", process=server.process)
        stack.callback(stop, system)
        state = folder / "state"
        system.start("trainer", "-m", "trainer", "--state", state, *setting.trainer_flags)
        store = stack.enter_context(closing(open_store(server.url, run=RUN)))
        world = World(setting, store)
        world.generation()
        until(lambda: store.newest() > 0, "a generation", STARTS)
        system.start_replicas(*REPLICAS)
        plain, comparing = (stack.enter_context(system.router(shadow=share)) for share in (0, 1))
        until(lambda: plain.serves() and comparing.serves(), "routers serve", STARTS)
        yield system, world, plain, comparing


def stop(system: System) -> None:
    """The processes that were started here; the store ends by itself."""
    del system.children["store"]
    system.stop()


def point(setting: Live, folder: Path) -> dict[str, Any]:
    """Lists of what each window took, by process; `rows` of a table, bytes of what travels and waits."""
    with running(setting, folder) as (system, world, plain, comparing):
        processes = {name: child.process for name, child in system.children.items()}
        pids = {name: process.pid for name, process in processes.items() if process is not None}
        spent = Spent(pids)
        said: dict[str, Any] = {"idle": spent.idle, "windows": {}}
        asks = {"queries": Users(plain, setting.entities), "compared": Users(comparing, setting.entities)}
        for name, users in asks.items():
            users.ask(QUERIES)  # whatever the first ones cost more
            at_rest(comparing)
            before = transferred(pids["router-0"]) if name == "queries" else {}
            windows = []
            for _ in range(WINDOWS):
                dropped = comparing.metrics().total("flicker_shadow_dropped_total")
                windows.append(spent.over(lambda users=users: ask_all(users, comparing)))
                windows[-1]["dropped"] = comparing.metrics().total("flicker_shadow_dropped_total") - dropped
            said["windows"][name] = windows
            if before:
                said["bytes"] = moved(before, transferred(pids["router-0"]), plain, system, WINDOWS * QUERIES)
        said["windows"]["refreshes"] = [spent.over(lambda: refresh(world, plain)) for _ in range(WINDOWS)]
        said["samples"] = {name: len(system.metrics(name).samples) for name in ("replica-0", "router-0")}
        said["memory"] = {name: memory(pid) for name, pid in pids.items()}
        with closing(open_store(system.store, run=RUN)) as store:
            said |= about_store(store, system, asks["queries"], spent, setting)
        return said


def ask_all(users: Users, comparing: Asked) -> None:
    """A window of queries, and the comparisons that they bring."""
    users.ask(QUERIES)
    at_rest(comparing)


def at_rest(comparing: Asked) -> None:
    """Wait until nothing is compared any more."""
    before = -1.0
    while (made := comparing.metrics().total("flicker_compared_total")) > before:
        before = made
        time.sleep(5 * LOOK)


def moved(
    before: dict[int, int], after: dict[int, int], plain: Asked, system: System, queries: int
) -> dict[str, float]:
    """Bytes per query at a router: with users, and with the replica."""
    ports = {"users": [plain.address], "replica": [system.ready(name)["address"] for name in REPLICAS]}
    return {
        name: sum(after[port] - before.get(port, 0) for port in map(port_of, addresses)) / queries
        for name, addresses in ports.items()
    }


def port_of(address: str) -> int:
    """Of host:port."""
    return int(address.rpartition(":")[2])


def refresh(world: World, plain: Asked) -> None:
    """The next generation: learned, published, served."""
    before = max(state.generation for state in plain.replicas().values())
    world.generation()
    ends = time.monotonic() + STARTS
    while not all(state.generation > before for state in plain.replicas().values()):
        assert time.monotonic() < ends, "waited in vain: the next generation is served"
        time.sleep(LOOK)
    time.sleep(5 * LOOK)  # the state is saved, the former generation let go


def about_store(store: Any, system: System, users: Users, spent: Spent, setting: Live) -> dict[str, Any]:
    """What is published, what waits in the log while the trainer stands still, and what a report costs a router."""
    trainer = system.children["trainer"].process
    assert trainer is not None
    newest = store.newest()
    sizes = {part: len(store.fetch(newest, part)) for part in ("duplicate/0", "catalog")}
    trainer.send_signal(signal.SIGSTOP)
    try:
        held, waiting = used(system.store), store.waiting()
        reports = [spent.over(lambda: users.report(REPORTS)) for _ in range(WINDOWS)]
        events = store.waiting() - waiting
        per_event = (used(system.store) - held) / events
    finally:
        trainer.send_signal(signal.SIGCONT)
    return {"parts": sizes, "reports": reports, "waiting_bytes": per_event, "waited": events}


def used(url: str) -> int:
    """Bytes that the server holds."""
    import redis

    with redis.Redis.from_url(url) as client:
        return int(client.info("memory")["used_memory"])


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    given["hidden"] = tuple(given["hidden"])
    print(json.dumps({"setting": asdict(Live(**given))} | point(Live(**given), Path(sys.argv[1]))))
