"""`flicker up` under load, on a store of ours, and looks at its processes: what `make endure` and `make soak` share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from simulator.live.watch import Page, scrape
from simulator.store.server import URL_VARIABLE, start_server

ROOT = Path(__file__).parents[2]
MODEL = "--hidden 32 16 --dim 8 --batch 128 --users 500 --items 400 --candidates 100".split()
MODEL += ["--arms", "relu", "smelu:beta=1"]
K = 10
"""Items of a slate, and events of a report."""
REPLICAS, ROUTERS = 3, 2
GENERATION, EVENTS_PER_SECOND = 2_048, 2_500
"""Events of a generation; more events a second than the trainer's world feeds: it must not end before the run does."""
STARTS, ENDS = 90.0, 40.0
"""Seconds after which a system that starts or ends has failed to."""
LOOK = 0.25
"""Seconds between two looks at the system."""


class Broken(Exception):
    """The system did not survive."""


class System:
    """`flicker up` and its store."""

    def __init__(self, folder: Path, rate: float, seconds: float, seed: int) -> None:
        self.out, self._said = folder / "up", folder / "up.txt"
        self.folder = folder / "store"
        self.store = start_server(self.folder)
        events = max(100_000, round(EVENTS_PER_SECOND * (seconds + STARTS)))
        command = [sys.executable, "-m", "simulator", "up", "--no-page", "--out", str(self.out), *MODEL, "--k", str(K)]
        command += ["--routers", str(ROUTERS), "--replicas", str(REPLICAS), "--duplicates", str(REPLICAS)]
        command += ["--window", "4", "--refresh-events", str(GENERATION), "--events", str(events), "--seed", str(seed)]
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

    def running(self, name: str) -> psutil.Process:
        """The same. Raises Broken where it does not run."""
        if (found := self.find(name)) is None:
            raise Broken(f"{name} does not run")
        return found

    def argument(self, name: str, flag: str) -> str:
        """What a process was started with."""
        words = self.running(name).cmdline()
        return str(words[words.index(flag) + 1])

    def begin(self) -> None:
        """Wait until all serve and traffic comes. Raises Broken."""
        self.until(lambda: self.find("load") is not None, "traffic begins", STARTS)
        # where their pages are stays so when they are started again
        names = ["trainer", *names_of("replica"), *names_of("router")]
        self.ports = {name: int(self.argument(name, "--metrics-port")) for name in names}
        self.until(self.serves, "all routers know all replicas", STARTS)

    def page(self, name: str) -> Page:
        """Its metrics page, an empty one while it is away."""
        return scrape({name: self.ports[name]})[name]

    def serves(self) -> bool:
        """Whether every router serves and knows every replica, and sees the store."""
        pages = [self.page(name) for name in names_of("router")]
        healthy = all(page.value("flicker_router_replicas", healthy="true") == REPLICAS for page in pages)
        return healthy and all(page.value("flicker_router_store_up") == 1 for page in pages)

    def look(self) -> None:
        """What is done between two looks. Raises Broken where `flicker up` has ended."""
        if self.up.poll() is not None:
            raise Broken(f"flicker up ended with exit code {self.up.returncode}: {self.last_words()}")

    def until(self, holds: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait for it. Raises Broken where it takes longer, or the system has ended."""
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                raise Broken(f"not within {seconds:.0f} s: {what}")
            self.look()
            time.sleep(LOOK)

    def last_words(self) -> str:
        """The last lines that it said."""
        return " ".join(self._said.read_text(errors="replace").splitlines()[-3:])

    def end(self) -> dict[str, Any]:
        """As Ctrl-C does; the store stays. What its traffic has seen. Raises Broken where it does not end in order."""
        self.up.send_signal(signal.SIGINT)
        try:
            code = self.up.wait(ENDS)
        except subprocess.TimeoutExpired:
            raise Broken(f"it does not end in {ENDS:.0f} s") from None
        if code:
            raise Broken(f"it ended with exit code {code}: {self.last_words()}")
        load: dict[str, Any] = json.loads((self.out / "load.json").read_text())
        return load

    def close(self) -> None:
        """Leave nothing behind: what `flicker up` started ends with it."""
        if self.up.poll() is None:
            self.up.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.up.wait(ENDS)
            self.up.kill()
        self.store.stop()


def names_of(kind: str) -> list[str]:
    """The names of all processes of a kind."""
    count = {"replica": REPLICAS, "router": ROUTERS}.get(kind)
    return [kind] if count is None else [f"{kind}-{n}" for n in range(count)]


def queries(load: dict[str, Any]) -> str:
    """What the traffic has seen, in a line."""
    answered = load["requests"] - sum(load["failures"].values())
    return (
        f"queries   {load['offered'] * load['seconds']:,.0f} offered, {load['requests']:,} asked, "
        f"{answered:,} answered; p50 {load['p50'] * 1e3:.1f} ms, p99 {load['p99'] * 1e3:.1f} ms"
    )
