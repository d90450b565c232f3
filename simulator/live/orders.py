"""What each order of the live page does to a running system; see controls.py."""

from __future__ import annotations

import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from simulator.config import require
from simulator.errors import FlickerError
from simulator.files import write_atomically
from simulator.live.controls import Order, Orders, done, number_of
from simulator.live.flags import UpFlags
from simulator.live.processes import Child, LivePlan, child
from simulator.live.watch import scrape
from simulator.models.factories import factories_of

KILLABLE = ("replica", "router", "trainer")
"""What may be killed: each is started again, and nothing is lost."""
MIN_RATE, MAX_RATE = 0.1, 5_000.0
"""Queries per second that may be asked for."""
MIN_EVENTS, MAX_EVENTS, EVENTS = 5_000, 1_000_000, 20_000
"""Events of an experiment; what it has where the order does not say."""
SETTINGS_SECONDS = 30.0
"""Seconds in which an experiment has looked at its settings."""
STOP_SECONDS = 3.0
"""Seconds for an experiment to end in."""


class Operator:
    """Carries out orders, each in the thread that brings it; those that change something one at a time."""

    def __init__(self, flags: UpFlags, plan: LivePlan, out: Path) -> None:
        self.flags, self.plan, self.out = flags, plan, out
        self.rate = flags.rate
        """Queries per second that the load was last set to offer."""
        self.experiments: list[Child] = []
        self._lock = threading.Lock()
        # a child ends with the thread that starts it (process.launched), and those of orders end with their client
        self._starter = ThreadPoolExecutor(1, "experiments")

    @property
    def orders(self) -> Orders:
        """What it knows."""
        can = {"state": self._state, "kill": self._kill, "refresh": self._refresh, "experiment": self._experiment}
        return can if self.plan.load_settings is None else can | {"rate": self._change_rate}

    def stop(self) -> None:
        """End what it has started."""
        for one in self.experiments:
            one.stop(STOP_SECONDS)
        self._starter.shutdown()

    def _state(self, order: Order) -> dict[str, Any]:
        return {
            "processes": [self._about(one) for one in [*self.plan.servers, *self.plan.load]],
            "rate": self.rate if self.plan.load else None,
            "can": [name for name in self.orders if name != "state"],
            "experiments": [{"name": one.name, "running": not one.ended()} for one in self.experiments],
        }

    def _about(self, one: Child) -> dict[str, Any]:
        port = self.plan.routers.get(one.name)
        return {
            "name": one.name,
            "pid": one.process.pid if one.process else None,
            "address": f"127.0.0.1:{port}" if port else "",
            "metrics": self.plan.pages[one.name],
            "alive": not one.ended(),
        }

    def _kill(self, order: Order) -> dict[str, Any]:
        name = order.get("name")
        able = {one.name: one for one in self.plan.servers if one.name.startswith(KILLABLE)}
        require(isinstance(name, str) and name in able, "name", str(name)[:40], f"one of {', '.join(able)}")
        with self._lock:
            require(not able[str(name)].ended(), "name", name, "it is not running: it is being started again")
            able[str(name)].kill()
        return done(f"{name} was killed; it is started again at once, and is there in a few seconds")

    def _change_rate(self, order: Order) -> dict[str, Any]:
        """The load looks at its settings once a second; one that is started again finds them there."""
        rate = number_of(order, "queries", MIN_RATE, MAX_RATE, "queries per second")
        path = self.plan.load_settings
        assert path is not None
        with self._lock:
            settings = json.loads(path.read_bytes())
            write_atomically(path, json.dumps(settings | {"rate": rate}, indent=1).encode())
            self.rate = rate
        return done(f"users offer {rate:,g} queries per second from the next second on")

    def _refresh(self, order: Order) -> dict[str, Any]:
        """A generation is cut after a fixed number of events, never by the clock: so these events come at once."""
        with self._lock:
            (trainer,) = (one for one in self.plan.servers if one.name == "trainer")
            page = scrape({"trainer": self.plan.metrics["trainer"]})["trainer"]
            if trainer.process is None or trainer.ended() or not page.samples:
                raise FlickerError("the trainer is not up: once it is, ask again")
            if page.value("flicker_world_ended") == 1:
                raise FlickerError("the log has ended: only what users click is still learned")
            trainer.process.send_signal(signal.SIGUSR1)
        return done("the next generation's events are fed at once: it is cut, and served, as soon as it is learned")

    def _experiment(self, order: Order) -> dict[str, Any]:
        events = EVENTS if order.get("events") is None else order["events"]
        events = int(number_of({"events": events}, "events", MIN_EVENTS, MAX_EVENTS, "events"))
        arms = order.get("arms") or list(self.flags.compare.arms)
        good = isinstance(arms, list) and all(isinstance(arm, str) and arm and arm[0] != "-" for arm in arms)
        require(good, "arms", str(arms)[:80], 'a list of arms, such as ["relu", "smelu:beta=0.25"]')
        strange = [name for name in factories_of(arms) if name not in factories_of(self.flags.compare.arms)]
        require(not strange, "arms", ", ".join(strange), "name it in --arms of `flicker up`: only those run code")
        with self._lock:
            running = [one.name for one in self.experiments if not one.ended()]
            require(not running, "experiment", ", ".join(running), "still runs: one at a time")
            one = self._begin(f"experiment-{len(self.experiments) + 1}", events, arms)
        folder, deadline = self.out / one.name, time.monotonic() + SETTINGS_SECONDS
        while not one.ended() and not (folder / "config.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        if one.ended() and not (folder / "result.json").exists():
            raise FlickerError(f"{one.name} has ended: {one.last_words().removeprefix('flicker: ')}")
        does = "learns" if (folder / "config.json").exists() else "has not looked at its settings yet; it is to learn"
        return done(f"{one.name} {does} {events:,} events; its result will be in {folder}")

    def _begin(self, name: str, events: int, arms: list[str]) -> Child:
        command = ["-m", "simulator", "run", *self.flags.learning_arguments(), "--out", str(self.out / name)]
        command += ["--k", str(self.flags.compare.k), "--arms", *arms]
        command += ["--events" if self.flags.data is None else "--limit", str(events)]  # of two the last counts
        one = child(name, command, self.out)
        self.experiments.append(one)
        self._starter.submit(one.start).result()
        return one
