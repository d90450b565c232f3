"""Which processes the live system has: their commands, environment, ports and logs."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from simulator.errors import FlickerError
from simulator.flags import values
from simulator.live.children import Child
from simulator.live.controls import TOKEN
from simulator.live.flags import UpFlags
from simulator.models.factories import ALLOWED, factories_of
from simulator.process import free_ports
from simulator.security.credentials import Credentials
from simulator.store.access import URL_VARIABLE

RUN = "up"
"""Name of the run in the store, which is its own."""
USERS_PER_RATE = 0.5
"""Simulated users for each query per second: each asks every two seconds, so that a slow answer delays few."""


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
    trainers = trainer_names(flags.trainers)
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
    servers = [
        _child(name, [*command, "--metrics-port", str(metrics[name])], out, store, {} if name in routers else models)
        for name, command in commands.items()
    ]
    address, summary = ",".join(f"127.0.0.1:{port}" for port in router_ports.values()), out / "load.json"
    scheme = Credentials.from_environment().scheme
    made = LivePlan(servers, [], metrics, address, summary, router_ports, scheme=scheme)
    if flags.no_load:
        return made
    settings, page = out / "load-settings.json", next(free) if flags.load_page else 0
    settings.write_text(json.dumps(_load_settings(flags, made), indent=1))
    load = [_load(flags, settings, store, address, page)]
    return replace(made, load=load, load_settings=settings, load_page=f"http://127.0.0.1:{page}/" if page else "")


def trainer_names(count: int) -> list[str]:
    """Of so many trainers; the first, which feeds the world and tells how good all are, is always called the same."""
    return ["trainer", *(f"trainer-{number}" for number in range(1, count))]


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


def _child(name: str, arguments: list[str], out: Path, store: str, environment: dict[str, str]) -> Child:
    # a URL may hold a password, which no argument may
    return child(name, arguments, out, {URL_VARIABLE: store} | environment)


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


def _load(flags: UpFlags, settings: Path, store: str, address: str, page: int) -> Child:
    """`page`: port of Locust's page, 0 for none."""
    package = importlib.util.find_spec("load")
    if package is None or package.origin is None:
        raise FlickerError("package load = nowhere: run in the project's folder, or use --no-load")
    users = str(max(1, round(flags.rate * USERS_PER_RATE)))
    command = ["-m", "locust", "-f", str(Path(package.origin).parent / "locustfile.py")]
    command += ["--autostart", "--web-host", "127.0.0.1", "--web-port", str(page)] if page else ["--headless"]
    command += ["--host", address, "-u", users, "-r", users]
    return _child("load", command, settings.parent, store, {"FLICKER_LOAD_CONFIG": str(settings)})


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
