"""`make endure`: a real system under load while its processes are killed, and what that cost.

`flicker up` runs with several routers, replicas and traffic that reports clicks, on a store of ours. Replicas, routers,
the trainer and the store are sent SIGKILL at random times, in an order that the seed decides; each kind again only once
it has healed, since a system with one router left cannot lose it. At the end, all of these must be 0:

- queries that failed, as their users saw it;
- events lost: reports that were accepted, but are not in the log; and those that are there twice. A report whose router
  died before it answered may be either: such are counted apart;
- events learned twice or passed over: the trainer's count against its place in the log; and what it learned against a
  trainer that learns the same log on a store of its own, undisturbed: every tensor, to the last bit.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch

from serving.health import complaint
from simulator.config import require
from simulator.errors import FlickerError
from simulator.live.gauges import Page, scrape
from simulator.live.plan import RUN
from simulator.models.snapshot import read_snapshot
from simulator.randomness import generator
from simulator.store.open import open_store
from simulator.store.protocol import StoreAway, entry_order
from simulator.store.server import URL_VARIABLE, start_server
from simulator.types import Batch
from tests.bench.machine import describe

ROOT = Path(__file__).parents[2]
KINDS = ("replica", "trainer", "router", "store")
MODEL = "--hidden 32 16 --dim 8 --batch 128 --users 500 --items 400 --candidates 100 --arms relu smelu:beta=1".split()
K = 10
"""Items of a slate, and events of a report."""
REPLICAS, ROUTERS = 3, 2
EVENTS_PER_SECOND = 2_500
"""More than the trainer's world feeds: it must not end before the run does."""
STARTS, HEALS, ENDS = 90.0, 60.0, 40.0
"""Seconds after which a system that starts, heals or ends has failed to."""
LOOK = 0.25
"""Seconds between two looks at the system."""
DOWN = (0.5, 3.0)
"""Seconds that the store is away, at least and at most: nobody restarts it but we."""
GROUP, ENTRY = "endure", 10_000


class Broken(Exception):
    """The system did not survive."""


@dataclass(frozen=True)
class Kill:
    """SIGKILL for one of a kind."""

    at: float
    """Seconds after the start of traffic, at the earliest."""
    kind: str
    draw: float
    """0 to 1: which of its kind, or how long the store is away."""


def schedule(kinds: tuple[str, ...], kills: int, seconds: float, seed: int) -> list[Kill]:
    """`kills` of each kind: one at a random time of each of as many equal parts of the time."""
    found = []
    for number, kind in enumerate(kinds):
        draws = generator(seed, "kills", number).random((kills, 2))
        found += [Kill((n + at) * seconds / kills, kind, draw) for n, (at, draw) in enumerate(draws.tolist())]
    return sorted(found, key=lambda kill: kill.at)


@dataclass
class Recorder:
    """All that ever was in the log, in its order."""

    url: str
    batches: list[Batch] = field(default_factory=list)
    last: str = ""

    def __post_init__(self) -> None:
        self.store = open_store(self.url, run=RUN)
        self.store.join(GROUP)

    def read(self) -> None:
        """What is new; nothing while the store is away."""
        with suppress(StoreAway):
            while entries := self.store.read(GROUP, self.last, 20 * ENTRY, 0.0):
                self.batches += [entry.batch for entry in entries]
                self.last = entries[-1].id
                self.store.acknowledge(GROUP, self.last)


class System:
    """`flicker up` and its store."""

    def __init__(self, folder: Path, rate: float, seconds: float, seed: int) -> None:
        self.out, self._said = folder / "up", folder / "up.txt"
        self._folder = folder / "store"
        self.store = start_server(self._folder)
        self.generation = 0.0
        """The newest one that the trainer told of."""
        self.recorder = Recorder(self.store.url)
        events = max(100_000, round(EVENTS_PER_SECOND * (seconds + STARTS)))
        command = [sys.executable, "-m", "simulator", "up", "--out", str(self.out), *MODEL, "--k", str(K)]
        command += ["--routers", str(ROUTERS), "--replicas", str(REPLICAS), "--duplicates", str(REPLICAS)]
        command += ["--window", "4", "--refresh-events", "2048", "--events", str(events), "--seed", str(seed)]
        command += ["--rate", str(rate)]
        with open(self._said, "wb") as said:
            environment = os.environ | {URL_VARIABLE: self.store.url}
            self.up = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said)

    def find(self, name: str) -> psutil.Process | None:
        """A process by the name that `flicker up` gives it; None while it does not run."""
        words = {"trainer": ["-m", "trainer"], "load": ["-m", "locust"]}.get(name, ["--name", name])
        with suppress(psutil.Error):
            for child in psutil.Process(self.up.pid).children():
                with suppress(psutil.Error):
                    if set(words) <= set(child.cmdline()):
                        return child
        return None

    def argument(self, name: str, flag: str) -> str:
        """What a process was started with."""
        child = self.find(name)
        words = child.cmdline() if child else []
        if flag not in words:
            raise Broken(f"{name} does not run")
        return str(words[words.index(flag) + 1])

    def learn_names(self) -> None:
        """Once all run: where their pages are, which stays so when they are started again."""
        names = ["trainer", *names_of("replica"), *names_of("router")]
        self.ports = {name: int(self.argument(name, "--metrics-port")) for name in names}
        self.addresses = {name: f"127.0.0.1:{self.argument(name, '--port')}" for name in names_of("router")}
        trainer = self.find("trainer")
        assert trainer is not None
        words = trainer.cmdline()
        self.trainer = words[words.index("-m") :]

    def page(self, name: str) -> Page:
        """Its metrics page, an empty one while it is away."""
        return scrape({name: self.ports[name]})[name]

    def serves(self) -> bool:
        """Whether every router serves and knows every replica, and sees the store."""
        pages = [self.page(name) for name in names_of("router")]
        healthy = all(page.value("flicker_router_replicas", healthy="true") == REPLICAS for page in pages)
        return healthy and all(page.value("flicker_router_store_up") == 1 for page in pages)

    def until(self, holds: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait for it. Raises Broken where it takes longer, or the system has ended."""
        end = time.monotonic() + seconds
        while not holds():
            self.require_running()
            if time.monotonic() > end:
                raise Broken(f"not within {seconds:.0f} s: {what}")
            self.recorder.read()
            time.sleep(LOOK)

    def require_running(self) -> None:
        """Raises Broken where `flicker up` has ended."""
        if self.up.poll() is not None:
            raise Broken(f"flicker up ended with exit code {self.up.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        """The last lines that it said."""
        return " ".join(self._said.read_text(errors="replace").splitlines()[-3:])

    def kill(self, kill: Kill) -> Callable[[], bool]:
        """Kill one, and return what holds once the system has healed. Raises Broken where it does not run."""
        self._learns(self.generation)
        generation = self.generation
        if kill.kind == "store":
            process = self.store.process
            assert process is not None
            process.kill()
            process.wait()
            back = time.monotonic() + DOWN[0] + kill.draw * (DOWN[1] - DOWN[0])
            return lambda: self._store_is_back(back) and self.serves() and self._learns(generation)
        names = names_of(kill.kind)
        name = names[int(kill.draw * len(names))]
        victim = self.find(name)
        if victim is None:
            raise Broken(f"{name} does not run")
        victim.kill()
        if kill.kind == "trainer":
            return lambda: self._is_another(name, victim.pid) and self._learns(generation)
        if kill.kind == "router":
            return lambda: self._is_another(name, victim.pid) and complaint(self.addresses[name], "", 1.0) == ""
        return lambda: self._is_another(name, victim.pid) and self._ranks(name) and self.serves()

    def _is_another(self, name: str, pid: int) -> bool:
        child = self.find(name)
        return child is not None and child.pid != pid

    def _ranks(self, replica: str) -> bool:
        return self.page(replica).value("flicker_generation") >= 1

    def _learns(self, since: float) -> bool:
        seen = self.page("trainer").value("flicker_generation")  # NaN while it is away
        self.generation = max(self.generation, seen if seen > 0 else 0)
        return self.generation > since

    def _store_is_back(self, due: float) -> bool:
        if not self.store.alive() and time.monotonic() >= due:
            self.store = start_server(self._folder, port=int(self.store.url.rpartition(":")[2].partition("/")[0]))
        return self.store.alive()

    def end(self) -> None:
        """As Ctrl-C does; the store stays. Raises Broken where it does not end in order."""
        self.up.send_signal(signal.SIGINT)
        try:
            code = self.up.wait(ENDS)
        except subprocess.TimeoutExpired:
            raise Broken(f"it does not end in {ENDS:.0f} s") from None
        if code:
            raise Broken(f"it ended with exit code {code}: {self.last_words()}")
        self.recorder.read()

    def close(self) -> None:
        """Leave nothing behind: what `flicker up` started ends with it."""
        if self.up.poll() is None:
            self.up.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.up.wait(ENDS)
            self.up.kill()
        self.recorder.store.close()
        self.store.stop()


def names_of(kind: str) -> list[str]:
    """The names of all processes of a kind."""
    return (
        [f"{kind}-{n}" for n in range({"replica": REPLICAS, "router": ROUTERS}[kind])] if kind != "trainer" else [kind]
    )


def torment(system: System, kills: list[Kill], seconds: float) -> dict[str, list[float]]:
    """Kill as planned; the seconds that each kind took to heal. Raises Broken."""
    started, waiting = time.monotonic(), list(kills)
    healing: dict[str, tuple[float, Callable[[], bool]]] = {}
    healed: dict[str, list[float]] = {kill.kind: [] for kill in kills}
    while waiting or healing or time.monotonic() < started + seconds:
        system.require_running()
        system.recorder.read()
        for kind, (since, holds) in list(healing.items()):
            if holds():
                healed[kind].append(time.monotonic() - since)
                del healing[kind]
            elif time.monotonic() - since > HEALS:
                raise Broken(f"{kind} has not healed within {HEALS:.0f} s of kill {len(healed[kind]) + 1}")
        due = [kill for kill in waiting if kill.at <= time.monotonic() - started and kill.kind not in healing]
        for kill in due[:1]:
            waiting.remove(kill)
            healing[kill.kind] = (time.monotonic(), system.kill(kill))
        time.sleep(LOOK)
    return healed


def learned_alone(system: System, folder: Path, events: int, world: int) -> dict[str, torch.Tensor]:
    """The tensors of a trainer that learns the first `events` events of the log on a store of its own, undisturbed."""
    whole = Batch.concatenate(system.recorder.batches)[:events]
    command = [sys.executable, *system.trainer]
    with start_server(folder / "store") as server:
        store = open_store(server.url, run=RUN, capacity=2 * events)
        for first in range(0, events, ENTRY):
            store.append(whole[first : first + ENTRY])
        store.append(
            whole[:1], writer="world", mark=str(world)
        )  # never learned; the world has ended, nothing else comes
        store.close()
        for flag, value in (("--store", server.url), ("--state", str(folder / "trainer"))):
            command[command.index(flag) + 1] = value
        with open(folder / "trainer.log", "wb") as log:
            trainer = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            end = time.monotonic() + STARTS + events / 1_000
            while system.page("trainer").total("flicker_events_learned_total") < events:
                if trainer.poll() is not None or time.monotonic() > end:
                    raise Broken(f"the undisturbed trainer did not learn {events:,} events (log: {folder})")
                time.sleep(LOOK)
        finally:
            trainer.terminate()
            trainer.wait(ENDS)
    return read_snapshot(newest(folder / "trainer"))[0]


def newest(state: Path) -> Path:
    """The trainer's last saved state."""
    return max((entry for entry in state.iterdir() if entry.name.isdecimal()), key=lambda entry: int(entry.name))


@dataclass
class Findings:
    """What came of it."""

    kills: dict[str, int]
    healed: dict[str, list[float]]
    load: dict[str, Any]
    appended: int
    """Events of the log."""
    world: int
    """Events of them that the world fed."""
    learned: int
    """Events that the trainer counts."""
    place: int
    """Events of the log up to the trainer's place in it."""
    tensors: int
    """Tensors of the trainer's state."""
    different: list[str]
    """Those that are not the ones of an undisturbed trainer."""

    @property
    def accepted(self) -> int:
        """Events of reports that were answered."""
        reports = self.load["feedback"]
        return int(K * (int(reports["requests"]) - sum(reports["failures"].values())))

    @property
    def unsure(self) -> int:
        """Events of reports without an answer: whether they are in the log, nobody was told."""
        return K * int(sum(self.load["feedback"]["failures"].values()))

    def must_be_zero(self) -> dict[str, int]:
        """What -> how many."""
        reported = self.appended - self.world
        return {
            "queries failed": sum(self.load["failures"].values()),
            "events lost": max(0, self.accepted - reported),
            "events twice in the log": max(0, reported - self.accepted - self.unsure),
            "events learned twice or passed over": abs(self.learned - self.place),
            "tensors unlike those without kills": len(self.different),
            "kills not healed": sum(self.kills.values()) - sum(map(len, self.healed.values())),
        }

    def table(self) -> str:
        """For LOG.md."""
        load, machine = self.load, describe()
        lines = [
            f"{datetime.now():%Y-%m-%d %H:%M}, {machine['cpu']}, {machine['cores']} cores, {load['seconds']:.0f} s"
        ]
        for kind, times in self.healed.items():
            heal = f"healed after {median(times):.1f} s, at most {max(times):.1f} s" if times else "none healed"
            lines.append(f"{kind:<10}{self.kills[kind]:>4} kills   {heal}")
        answered = load["requests"] - sum(load["failures"].values())
        lines += [
            f"queries   {load['offered'] * load['seconds']:,.0f} offered, {load['requests']:,} asked, "
            f"{answered:,} answered; p50 {load['p50'] * 1e3:.1f} ms, p99 {load['p99'] * 1e3:.1f} ms",
            f"events    {self.appended:,} in the log: {self.world:,} of the world, "
            f"{self.appended - self.world:,} reported ({self.accepted:,} accepted, {self.unsure:,} without an answer)",
            f"learning  {self.learned:,} events learned; {self.tensors} tensors compared",
        ]
        return "\n".join([*lines, *(f"{count:>10}  {what}" for what, count in self.must_be_zero().items())])


def endure(folder: Path, kills: list[Kill], seconds: float, rate: float, seed: int) -> Findings:
    """The whole run. Raises Broken."""
    system = System(folder, rate, seconds, seed)
    try:
        system.until(lambda: system.find("load") is not None, "traffic begins", STARTS)
        system.learn_names()
        system.until(system.serves, "all routers know all replicas", STARTS)
        healed = torment(system, kills, seconds)
        system.end()
        load = json.loads((system.out / "load.json").read_text())
        tensors, about = read_snapshot(newest(system.out / "trainer"))
        state, world = about["state"], int(system.recorder.store.mark("world"))
        folder = folder / "alone"
        folder.mkdir()
        alone = learned_alone(system, folder, state["events"], about["settings"]["config"]["world"]["events"])
        # what was read and not learned yet depends on the size of entries, which is another there
        held = len(tensors.get("reader.user", ()))
        tensors, alone = (
            {name: tensor for name, tensor in each.items() if not name.startswith("reader.")}
            for each in (tensors, alone)
        )
        same = {name for name in tensors.keys() & alone.keys() if torch.equal(tensors[name], alone[name])}
        return Findings(
            kills={kind: sum(kill.kind == kind for kill in kills) for kind in healed},
            healed=healed,
            load=load,
            appended=entry_order(system.recorder.last),
            world=world,
            learned=state["events"],
            place=entry_order(state["after"]) - held,
            tensors=len(tensors),
            different=sorted((tensors.keys() | alone.keys()) - same),
        )
    finally:
        system.close()


def main() -> None:
    """Exit code 1 where anything is not 0, or the system broke."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25, help="of each kind (default: 25)")
    parser.add_argument("--minutes", type=float, default=25.0, help="under load (default: 25)")
    parser.add_argument("--rate", type=float, default=50.0, help="queries per second (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of when and whom (default: 0)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="who is killed (default: all)")
    parser.add_argument("--out", type=Path, help="folder for logs, which is to be new (default: a temporary one)")
    flags = parser.parse_args()
    try:
        require(flags.kills >= 1, "kills", flags.kills, "at least 1")
        require(0 < flags.minutes < float("inf"), "minutes", flags.minutes, "more than 0")
        part = 60 * flags.minutes / flags.kills
        # what dies more often than three times in a minute is dead for good, says `flicker up`
        require(flags.kills <= 3 or part >= 30, "kills", flags.kills, f"one in 30 s: at most {2 * flags.minutes:.0f}")
    except FlickerError as problem:
        parser.error(str(problem))
    seconds = 60 * flags.minutes
    with tempfile.TemporaryDirectory(prefix="endure-", ignore_cleanup_errors=True) as temporary:
        folder = flags.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=flags.out is None)
        try:
            kills = schedule(tuple(flags.kinds), flags.kills, seconds, flags.seed)
            findings = endure(folder, kills, seconds, flags.rate, flags.seed)
        except Broken as problem:
            sys.exit(f"endure: {problem}")
    print(findings.table())
    sys.exit(any(findings.must_be_zero().values()))


if __name__ == "__main__":
    main()
