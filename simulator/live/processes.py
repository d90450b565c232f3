"""The processes of the live system: which there are, with their commands, environment, ports and logs; and each of them
supervised: started with its output in a log file, watched, restarted when it dies, stopped by its process id.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from simulator.errors import FlickerError
from simulator.flags import values
from simulator.live.controls import TOKEN
from simulator.live.flags import UpFlags
from simulator.models.factories import ALLOWED, factories_of
from simulator.process import free_ports, last_line, launched, wait_or_kill
from simulator.security.credentials import Credentials
from simulator.store.access import URL_VARIABLE

RESTARTS, RESTART_SPAN = 3, 60.0
"""A process that dies more often than this within so many seconds is dead for good."""
BAD_SETTING = 2
"""Exit code of a process that cannot run with its settings: starting it again would not help."""
RUN = "up"
"""Name of the run in the store, which is its own."""
USERS_PER_RATE = 0.5
"""Simulated users for each query per second: each asks every two seconds, so that a slow answer delays few."""


@dataclass
class Child:
    """One process of the live system."""

    name: str
    command: list[str]
    """Program and arguments; the program is a path."""
    log: Path
    """Where its standard output and error go; what was there stays."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables beside those of this process."""
    may_end: bool = False
    """Whether it may end by itself with exit code 0, as timed traffic does."""
    process: subprocess.Popen[bytes] | None = None
    struck: bool = False
    """Whether `kill` ended it: a death that counts for nothing."""
    bad_setting: bool = False
    """Whether it ended because it cannot run with its settings."""
    deaths: list[float] = field(default_factory=list)
    """When it died, on the monotonic clock."""

    def start(self) -> None:
        """Start it in a session of its own: Ctrl-C reaches this process alone, and the order of ending is ours."""
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(
                launched(self.command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | self.environment,
                start_new_session=True,
            )

    def watch(self) -> str | None:
        """Restart it where it died; returns why it is dead for good, or None."""
        code = None if self.process is None else self.process.poll()
        if code is None or (code == 0 and self.may_end):
            return None
        if self.struck:
            self.struck = False
            self.start()
            return None
        now = time.monotonic()
        self.deaths = [death for death in self.deaths if now - death < RESTART_SPAN] + [now]
        self.bad_setting = code == BAD_SETTING
        if self.bad_setting or len(self.deaths) > RESTARTS:
            return f"{self.name}: ended with {_ending(code)}: {self.last_words()} (log: {self.log})"
        self.start()
        return None

    def ended(self) -> bool:
        """Whether it is not running."""
        return self.process is None or self.process.poll() is not None

    def kill(self) -> None:
        """SIGKILL, where it still runs, to see what follows: `watch` starts it again, however often."""
        if not self.ended():
            assert self.process is not None
            self.struck = True
            self.process.kill()

    def ask_to_stop(self) -> None:
        """SIGTERM, where it still runs."""
        if not self.ended():
            assert self.process is not None
            self.process.send_signal(signal.SIGTERM)

    def stop(self, seconds: float) -> None:
        """End it in order, or after `seconds` at once."""
        self.ask_to_stop()
        self.finish(seconds)

    def finish(self, seconds: float) -> None:
        """Wait until it has ended after it was asked to; after `seconds` end it at once."""
        if self.process is not None:
            wait_or_kill(self.process, max(seconds, 0.1))

    def last_words(self) -> str:
        """The last line of its log."""
        try:
            return last_line(self.log.read_text(errors="replace")) or "no message"
        except OSError:
            return "no log"


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


@dataclass(frozen=True)
class LivePlan:
    servers: list[Child]
    load: list[Child]
    """The traffic, which begins when every replica serves; empty where there is none."""
    metrics: dict[str, int]
    """Port of each process's metrics page."""
    address: str
    """host:port of the router; of several, with commas between."""
    load_summary: Path
    """What the traffic leaves when it ends."""
    routers: dict[str, int] = field(default_factory=dict)
    """Port of each router."""
    load_settings: Path | None = None
    """Settings of the traffic, reloaded when they change; None without traffic."""
    load_page: str = ""
    """Address of Locust's page, empty where there is none."""
    scheme: str = "http"
    """Of metrics pages and the live page."""

    @property
    def pages(self) -> dict[str, str]:
        """Address of each process's metrics page."""
        return {name: f"{self.scheme}://127.0.0.1:{port}/metrics" for name, port in self.metrics.items()}


def plan(flags: UpFlags, store: str, out: Path) -> LivePlan:
    """All processes of a run whose results go to `out` and whose store is at the URL `store`, but for its page."""
    replicas = [f"replica-{number}" for number in range(flags.replicas)]
    routers = [f"router-{number}" for number in range(flags.routers)]
    # the first, which feeds the world and tells how good all are, is always called the same
    trainers = ["trainer", *(f"trainer-{number}" for number in range(1, flags.trainers))]
    names = [*trainers, *replicas, *routers, *([] if flags.no_load else ["load"])]
    free = iter(free_ports(len(names) + len(routers) + 1))
    metrics = {name: next(free) for name in names}
    router_ports = {name: flags.port + number if flags.port else next(free) for number, name in enumerate(routers)}
    wiring = ["--run", RUN, *(["--weights", flags.weights] if flags.weights else [])]
    commands = {
        name: [*_trainer(flags, out / name, f"{number}/{flags.trainers}"), *wiring]
        for number, name in enumerate(trainers)
    } | {
        name: ["-m", "serving", "replica", *wiring, "--name", name, "--device", flags.compare.device]
        for name in replicas
    }
    commands |= {
        name: ["-m", "serving", "router", *wiring, "--name", name, "--port", str(port)]
        + ["--seed", str(flags.compare.seed), "--shadow", str(flags.shadow), "--replicas", str(flags.replicas)]
        + ["--policy", flags.policy, "--spool", str(out / "spool")]
        for name, port in router_ports.items()
    }
    # who types an arm trusts it: these factories may be imported and no others, whatever the environment allowed before
    models = {ALLOWED: ",".join(factories_of(flags.compare.arms))}
    url = {URL_VARIABLE: store}  # it may hold a password, which no argument may
    servers = [
        child(name, [*command, "--metrics-port", str(metrics[name])], out, url if name in routers else url | models)
        for name, command in commands.items()
    ]
    address, summary = ",".join(f"127.0.0.1:{port}" for port in router_ports.values()), out / "load.json"
    scheme = Credentials.from_environment().scheme
    made = LivePlan(servers, [], metrics, address, summary, router_ports, scheme=scheme)
    if flags.no_load:
        return made
    settings, page = out / "load-settings.json", next(free) if flags.load_page else 0
    settings.write_text(json.dumps(_load_settings(flags, made), indent=1))
    load = [_load(flags, settings, url, address, page)]
    return replace(made, load=load, load_settings=settings, load_page=f"http://127.0.0.1:{page}/" if page else "")


def _trainer(flags: UpFlags, state: Path, shard: str) -> list[str]:
    pace = ["--for", str(flags.for_)] if flags.data is not None and flags.for_ is not None else []
    size = str(flags.refresh_events or 2 * flags.compare.chunk_events)
    command = ["-m", "trainer", "--shard", shard, "--state", str(state), *pace]
    return [*command, "--generation-events", size, "--head-start", size, *flags.learning_arguments()]


def page_of(made: LivePlan, port: int, runs: list[Path], controls: Path, token: str, out: Path) -> Child:
    """The live page of a plan, at this port, with these folders of results and the socket of the controls."""
    command = ["-m", "page", "--port", str(port), "--router", made.address, "--controls", str(controls)]
    command += ["--metrics", *made.pages.values(), "--runs", *map(str, runs)]
    return child("page", command, out, {TOKEN: token})


def child(name: str, arguments: list[str], out: Path, environment: dict[str, str] | None = None) -> Child:
    """One of our own processes, with its log in `out`."""
    # one thread per operation: the processes share the cores
    variables = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    # a trainer.py of the user's must not be taken for ours: the working directory comes last, see factories.py
    root = str(Path(__file__).parents[2])
    variables |= {
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
    }
    return Child(name, [sys.executable, *arguments], out / f"{name}.log", variables | (environment or {}))


def _load(flags: UpFlags, settings: Path, url: dict[str, str], address: str, page: int) -> Child:
    """`page`: port of Locust's page, 0 for none."""
    package = importlib.util.find_spec("load")
    if package is None or package.origin is None:
        raise FlickerError("package load = nowhere: run in the project's folder, or use --no-load")
    users = str(max(1, round(flags.rate * USERS_PER_RATE)))
    command = ["-m", "locust", "-f", str(Path(package.origin).parent / "locustfile.py")]
    command += ["--autostart", "--web-host", "127.0.0.1", "--web-port", str(page)] if page else ["--headless"]
    command += ["--host", address, "-u", users, "-r", users]
    return child("load", command, settings.parent, url | {"FLICKER_LOAD_CONFIG": str(settings)})


def _load_settings(flags: UpFlags, made: LivePlan) -> dict[str, Any]:
    world = values(flags.synthetic if flags.data is None else flags.replay)
    world.pop("path", None)
    return {
        "rate": flags.rate,
        "k": flags.compare.k,
        "seed": flags.compare.seed,
        "data": None if flags.data is None else str(flags.data.resolve()),
        "world": world,
        "run": RUN,
        "metrics_port": made.metrics["load"],
        "summary": str(made.load_summary),
    }
