"""The system of docker-compose.secure.yml as plain processes: its own commands and environment, but other ports."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from simulator.live.processes import Child
from simulator.live.watch import Page
from simulator.process import free_ports
from simulator.security.credentials import Credentials
from simulator.security.pages import fetch
from simulator.store.access import Access
from simulator.store.redis import RedisStore
from tests.composed import make_secrets, secure_services
from tests.integration.system import ONE_THREAD, System

RUN = "secure"
SMALL = (
    "--hidden 32 16 --dim 8 --batch 128 --window 4 --events 200000 --users 500 --items 400 --candidates 100 "
    "--duplicates 2 --rate 1000 --arms relu smelu:beta=1"
).split()
WORLD = '{"users": 500, "items": 400, "events": 200000}'
SERVING = ["-m", "serving"]


class Secured(System):
    """Its processes; each gets what the overlay tells its service, with /secrets as its own folder here."""

    def __init__(self, folder: Path) -> None:
        self.services, self.secrets = secure_services(), folder / "secrets"
        self.secrets.mkdir()
        make_secrets(self.secrets)
        self.store_port, *ports = free_ports(6)
        names = "trainer", "replica-0", "replica-1", "router", "load"
        self.pages = dict(zip(names, ports, strict=True))
        """Port of each process's metrics page."""
        super().__init__(f"rediss://localhost:{self.store_port}/0", RUN, folder)

    def told(self, service: str) -> dict[str, str]:
        """The environment of a service, as a process here can use it."""
        environment = {name: str(value or "") for name, value in self.services[service]["environment"].items()}
        found = {name: self.here(service, value) for name, value in environment.items()}
        return found | {"FLICKER_HOST": "127.0.0.1", "FLICKER_PORT": "0", "FLICKER_RUN": RUN}

    def here(self, service: str, text: str) -> str:
        """What stands in the overlay, for this machine."""
        return text.replace("/secrets/", f"{self.secrets / service}/").replace(
            "@redis:6379", f"@localhost:{self.store_port}"
        )

    def launch(self, name: str, *arguments: object, **settings: str) -> None:
        """A process of the service that its name begins with."""
        service = name.partition("-")[0]
        told = self.told(service) | {"FLICKER_METRICS_PORT": str(self.pages[name])} | settings
        command = [sys.executable, *map(str, arguments)]
        self.children[name] = Child(name, command, self.folder / f"{name}.log", ONE_THREAD | told)
        self.children[name].start()

    def start_store(self) -> None:
        """By the overlay's own command."""
        program, *flags = shlex.split(self.here("redis", self.services["redis"]["command"]))
        flags[flags.index("--tls-port") + 1] = str(self.store_port)
        command = ["/usr/bin/env", program, *flags, "--bind", "127.0.0.1", "--dir", str(self.folder)]
        self.children["redis"] = Child("redis", command, self.folder / "redis.log")
        self.children["redis"].start()

    def start_all(self) -> None:
        """Store, trainer, two replicas, router."""
        self.start_store()
        state = {"FLICKER_STATE": str(self.folder / "state")}
        self.launch("trainer", "-m", "trainer", "--generation-events", 1024, "--head-start", 1024, *SMALL, **state)
        for name in ("replica-0", "replica-1"):
            self.launch(name, *SERVING, "replica", FLICKER_NAME=name)
        spool = {"FLICKER_SPOOL": str(self.folder / "spool")}
        self.launch("router", *SERVING, "router", "--deadline", 60, FLICKER_SHADOW="0.5", **spool)

    def start_load(self) -> None:
        """By the overlay's own command, to the router's port here."""
        flags = shlex.split(self.services["load"]["command"])
        flags[flags.index("--host") + 1] = self.ready("router")["address"]
        flags[flags.index("--users") + 1] = "10"
        told = {"FLICKER_RATE": "20", "FLICKER_TIMEOUT": "60", "FLICKER_EVENTS": "", "FLICKER_WORLD": WORLD}
        self.launch("load", "-m", "locust", "-f", "load/locustfile.py", *flags, **told)

    def start_page(self) -> str:
        """By the overlay's own command, at a port here and to the ports here; returns its address."""
        command = self.here("page", self.services["page"]["command"])
        command = command.replace("dns:///router:50051", self.ready("router")["address"])
        for service in ("trainer", "replica", "router", "load"):
            ports = [port for name, port in self.pages.items() if name.partition("-")[0] == service]
            pages = " ".join(f"https://127.0.0.1:{port}/metrics" for port in ports)
            command = command.replace(f"https://{service}:9100/metrics", pages)
        flags = shlex.split(command.replace("0.0.0.0", "127.0.0.1"))
        port = flags[flags.index("--port") + 1] = str(free_ports(1)[0])
        environment = ONE_THREAD | self.told("page")
        command_line = [sys.executable, "-m", "page", *flags]
        self.children["page"] = Child("page", command_line, self.folder / "page.log", environment)
        self.children["page"].start()
        return f"127.0.0.1:{port}"

    def credentials(self, name: str) -> Credentials:
        """Those of a process's own folder, or of the user's."""
        folder = self.secrets / name
        if name == "user":
            return Credentials(tls_ca=folder / "ca.crt", token_file=folder / "token")
        return Credentials(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")

    def stranger(self) -> Credentials:
        """Of somebody who knows the authority, as everybody may, and no more."""
        return Credentials(tls_ca=self.secrets / "user" / "ca.crt")

    def page(self, name: str) -> Page:
        """A metrics page, as Prometheus reads it; empty while there is none."""
        try:
            return Page(fetch(f"127.0.0.1:{self.pages[name]}", self.credentials("prometheus"), 30.0))
        except OSError:
            return Page()

    def open_store(self, user: str, keys: Callable[[], tuple[bytes, ...]] = tuple, password_of: str = "") -> RedisStore:
        """The store, as one of its users (with another's password)."""
        access = Access(self.stranger(), self.secrets / (password_of or user) / "store.password")
        url = self.store.replace("localhost", f"{user}@localhost")
        return RedisStore(url, run=RUN, capacity=100_000, patience=0.2, access=access, signing_keys=keys)

    def query(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`flicker query`, as somebody without any setting of the environment."""
        command = [sys.executable, "-m", "serving", "query", "--address", self.ready("router")["address"], *arguments]
        plain = {name: value for name, value in os.environ.items() if not name.startswith("FLICKER_")}
        return subprocess.run(command, env=plain, text=True, capture_output=True, timeout=60)

    def all_secrets(self) -> dict[str, bytes]:
        """Every secret in the folder: passwords, tokens, keys; of private keys each line between the first and last."""
        found: dict[str, bytes] = {}
        for file in self.secrets.rglob("*"):
            if file.suffix == ".key" and b"PRIVATE KEY" in file.read_bytes():
                found |= {f"{file} line {n}": line for n, line in enumerate(file.read_bytes().splitlines()[1:-1])}
            elif file.suffix in (".password", ".key") or "token" in file.name:
                found |= {f"{file} line {n}": line for n, line in enumerate(file.read_bytes().splitlines())}
        return found

    def shown(self) -> dict[str, bytes]:
        """What others on this machine can see of the processes: arguments, environment, logs; and their files."""
        found = {}
        for name, child in self.children.items():
            assert child.process is not None
            for kind in ("cmdline", "environ"):
                found[f"{kind} of {name}"] = Path(f"/proc/{child.process.pid}/{kind}").read_bytes()
        for file in self.folder.rglob("*"):
            with suppress(FileNotFoundError, IsADirectoryError):  # a trainer's state comes and goes
                found[str(file)] = b"" if self.secrets in file.parents else file.read_bytes()
        return found


def served_until(credentials: Credentials, address: str) -> str:
    """When the certificate ends that a port shows, as text: another one after it was made anew."""
    host, _, port = address.rpartition(":")
    command = ["openssl", "s_client", "-connect", f"{host}:{port}", "-CAfile", str(credentials.tls_ca)]
    shown = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30).stdout
    found = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", shown, re.DOTALL)
    return found[0] if found else f"nothing at {time.time()}"
