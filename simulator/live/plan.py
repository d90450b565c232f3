"""Which processes the live system has: their commands, environment, ports and logs."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from simulator.errors import FlickerError
from simulator.flags import values
from simulator.live.children import Child
from simulator.live.flags import UpFlags
from simulator.models.factories import ALLOWED, factories_of
from simulator.process import free_ports
from simulator.store.access import URL_VARIABLE

RUN = "up"
"""Name of the run in the store, which is its own."""
USERS_PER_RATE = 0.5
"""Simulated users for each query per second: each asks every two seconds, so that a slow answer delays few."""


@dataclass(frozen=True)
class Plan:
    servers: list[Child]
    load: list[Child]
    """The traffic, which begins when every replica serves; empty where there is none."""
    metrics: dict[str, int]
    """Port of each process's metrics page."""
    address: str
    """host:port of the router; of several, with commas between."""
    load_summary: Path
    """What the traffic leaves when it ends."""


def plan(flags: UpFlags, store: str, out: Path) -> Plan:
    """All processes of a run whose results go to `out` and whose store is at the URL `store`."""
    replicas = [f"replica-{number}" for number in range(flags.replicas)]
    routers = [f"router-{number}" for number in range(flags.routers)]
    names = ["trainer", *replicas, *routers, "load"]
    free = free_ports(len(names) + len(routers))
    metrics = dict(zip(names, free, strict=False))
    router_ports = [flags.port + number for number in range(len(routers))] if flags.port else free[len(names) :]
    wiring = ["--run", RUN]
    pace = ["--for", str(flags.for_)] if flags.data is not None and flags.for_ is not None else []
    size = flags.refresh_events or 2 * flags.compare.chunk_events
    generation = ["--generation-events", str(size), "--head-start", str(size)]
    commands = {
        "trainer": ["-m", "trainer", *wiring, "--state", str(out / "trainer"), *pace, *generation]
        + flags.learning_arguments(),
    }
    commands |= {
        name: ["-m", "serving", "replica", *wiring, "--name", name, "--device", flags.compare.device]
        for name in replicas
    }
    commands |= {
        name: ["-m", "serving", "router", *wiring, "--name", name, "--port", str(port)]
        + ["--seed", str(flags.compare.seed), "--shadow", str(flags.shadow), "--replicas", str(flags.replicas)]
        + ["--policy", flags.policy, "--spool", str(out / "spool")]
        for name, port in zip(routers, router_ports, strict=True)
    }
    # who types an arm trusts it: these factories may be imported and no others, whatever the environment allowed before
    models = {ALLOWED: ",".join(factories_of(flags.compare.arms))}
    servers = [
        _child(name, [*command, "--metrics-port", str(metrics[name])], out, store, {} if name in routers else models)
        for name, command in commands.items()
    ]
    address, summary = ",".join(f"127.0.0.1:{port}" for port in router_ports), out / "load.json"
    load = [] if flags.no_load else [_load(flags, store, out, address, metrics["load"], summary)]
    return Plan(servers, load, metrics, address, summary)


def _child(name: str, arguments: list[str], out: Path, store: str, environment: dict[str, str]) -> Child:
    # one thread per operation: the processes share the cores; a URL may hold a password, which no argument may
    variables = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", URL_VARIABLE: store}
    # a trainer.py of the user's must not be taken for ours: the working directory comes last, see factories.py
    root = str(Path(__file__).parents[2])
    variables |= {
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
    }
    return Child(name, [sys.executable, *arguments], out / f"{name}.log", variables | environment)


def _load(flags: UpFlags, store: str, out: Path, address: str, metrics_port: int, summary: Path) -> Child:
    package = importlib.util.find_spec("load")
    if package is None or package.origin is None:
        raise FlickerError("package load = nowhere: run in the project's folder, or use --no-load")
    users = str(max(1, round(flags.rate * USERS_PER_RATE)))
    command = ["-m", "locust", "-f", str(Path(package.origin).parent / "locustfile.py"), "--headless"]
    command += ["--host", address, "-u", users, "-r", users]
    world = values(flags.synthetic if flags.data is None else flags.replay)
    world.pop("path", None)
    settings = {
        "rate": flags.rate,
        "k": flags.compare.k,
        "seed": flags.compare.seed,
        "data": None if flags.data is None else str(flags.data.resolve()),
        "world": world,
        "run": RUN,
        "metrics_port": metrics_port,
        "summary": str(summary),
    }
    file = out / "load-settings.json"
    file.write_text(json.dumps(settings, indent=1))
    return _child("load", command, out, store, {"FLICKER_LOAD_CONFIG": str(file)})
