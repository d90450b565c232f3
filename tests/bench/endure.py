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
import os
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

import torch

from serving.health import complaint
from simulator.config import require
from simulator.errors import FlickerError
from simulator.live.processes import RUN
from simulator.models.snapshot import read_snapshot
from simulator.randomness import generator
from simulator.store.access import URL_VARIABLE
from simulator.store.protocol import StoreAway, entry_order
from simulator.store.redis import open_store
from simulator.store.server import start_server
from simulator.types import Batch
from tests.bench.machine import describe
from tests.bench.under_load import ENDS, LOOK, ROOT, STARTS, Broken, K, System, names_of, queries

KINDS = ("replica", "trainer", "router", "store")
HEALS = 60.0
"""Seconds after which a system that heals has failed to."""
DOWN = (0.5, 3.0)
"""Seconds that the store is away, at least and at most: nobody restarts it but we."""
GROUP, ENTRY = "endure", 10_000


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


class Tormented(System):
    """A system that is killed, and of whose log nothing is forgotten."""

    def __init__(self, folder: Path, rate: float, seconds: float, seed: int) -> None:
        super().__init__(folder, rate, seconds, seed)
        self.generation = 0.0
        """The newest one that the trainer told of."""
        self.recorder = Recorder(self.store.url)

    def begin(self) -> None:
        super().begin()
        self.addresses = {name: f"127.0.0.1:{self.argument(name, '--port')}" for name in names_of("router")}
        words = self.running("trainer").cmdline()
        self.trainer = words[words.index("-m") :]

    def look(self) -> None:
        super().look()
        self.recorder.read()

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
        victim = self.running(name)
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
            self.store = start_server(self.folder, port=int(self.store.url.rpartition(":")[2].partition("/")[0]))
        return self.store.alive()

    def close(self) -> None:
        self.recorder.store.close()
        super().close()


def torment(system: Tormented, kills: list[Kill], seconds: float) -> dict[str, list[float]]:
    """Kill as planned; the seconds that each kind took to heal. Raises Broken."""
    started, waiting = time.monotonic(), list(kills)
    healing: dict[str, tuple[float, Callable[[], bool]]] = {}
    healed: dict[str, list[float]] = {kill.kind: [] for kill in kills}
    while waiting or healing or time.monotonic() < started + seconds:
        system.look()
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


def learned_alone(system: Tormented, folder: Path, events: int, world: int) -> dict[str, torch.Tensor]:
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
        command[command.index("--state") + 1] = str(folder / "trainer")
        environment = os.environ | {URL_VARIABLE: server.url}
        with open(folder / "trainer.log", "wb") as log:
            trainer = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)
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
        lines += [
            queries(load),
            f"events    {self.appended:,} in the log: {self.world:,} of the world, "
            f"{self.appended - self.world:,} reported ({self.accepted:,} accepted, {self.unsure:,} without an answer)",
            f"learning  {self.learned:,} events learned; {self.tensors} tensors compared",
        ]
        return "\n".join([*lines, *(f"{count:>10}  {what}" for what, count in self.must_be_zero().items())])


def endure(folder: Path, kills: list[Kill], seconds: float, rate: float, seed: int) -> Findings:
    """The whole run. Raises Broken."""
    system = Tormented(folder, rate, seconds, seed)
    try:
        system.begin()
        healed = torment(system, kills, seconds)
        load = system.end()
        system.recorder.read()
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
