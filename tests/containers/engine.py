"""A small client of the Docker Engine's HTTP API, over its socket: what the checks need, with nothing but the library.

https://docs.docker.com/reference/api/engine/version/v1.44/
"""

from __future__ import annotations

import copy
import http.client
import json
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

SOCKET = "/var/run/docker.sock"
VERSION = "v1.44"  # Docker 25, the first with `start_interval`
LABEL = "com.docker.compose."


class _Socket(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(SOCKET)


def ask(method: str, path: str, body: Any = None, **query: Any) -> bytes:
    """The body of the engine's answer. Fails the test where it refuses."""
    connection = _Socket("engine", timeout=60)
    try:
        text = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"}
        connection.request(method, f"/{VERSION}{path}?{urlencode(query)}", text, headers)
        answer = connection.getresponse()
        found = answer.read()
    finally:
        connection.close()
    assert answer.status < 400, f"{method} {path}: {answer.status} {found.decode()}"
    return found


def get(path: str, **query: Any) -> Any:
    """What the engine answers, parsed."""
    return json.loads(ask("GET", path, **query))


def _text(frames: bytes) -> bytes:
    """What a container wrote, of frames of 8 bytes (stream, length) and text."""
    text = b""
    while frames:
        length = struct.unpack(">4xI", frames[:8])[0]
        text, frames = text + frames[8 : 8 + length], frames[8 + length :]
    return text


@dataclass(frozen=True)
class Container:
    """One container, by its id."""

    id: str

    @property
    def host(self) -> str:
        """Its own name in its network, which begins the name of a replica."""
        return self.id[:12]

    @property
    def address(self) -> str:
        """Its own in the project's network, where the service's name stands for all of the service's containers."""
        networks: dict[str, dict[str, Any]] = self.inspect()["NetworkSettings"]["Networks"]
        return str(next(iter(networks.values()))["IPAddress"])

    def inspect(self) -> dict[str, Any]:
        """All that the engine knows of it now."""
        found: dict[str, Any] = get(f"/containers/{self.id}/json")
        return found

    @property
    def service(self) -> str:
        """Its service in the compose file."""
        return str(self.inspect()["Config"]["Labels"][LABEL + "service"])

    def is_healthy(self) -> bool:
        """Whether it runs and its last probe was content."""
        state = self.inspect()["State"]
        return bool(state["Running"] and state["Health"]["Status"] == "healthy")

    def start(self) -> None:
        """Start it."""
        ask("POST", f"/containers/{self.id}/start")

    def remove(self) -> None:
        """End it as `docker compose` does, SIGTERM first, and forget it."""
        ask("POST", f"/containers/{self.id}/stop", t=10)
        ask("DELETE", f"/containers/{self.id}", force=True)

    def run(self, command: str) -> str:
        """What a shell in it prints."""
        how = {"Cmd": ["sh", "-c", command], "AttachStdout": True}
        exec_id = json.loads(ask("POST", f"/containers/{self.id}/exec", how))["Id"]
        return _text(ask("POST", f"/exec/{exec_id}/start", {"Detach": False})).decode()

    def crash(self) -> None:
        """SIGKILL for all that runs in it but its init, which then ends as after any crash, and is restarted.

        The engine's own `kill` would count as stopped by hand.
        """
        before = self.inspect()["State"]["StartedAt"]
        command = ["sh", "-c", "kill -9 -1"]
        exec_id = json.loads(ask("POST", f"/containers/{self.id}/exec", {"Cmd": command}))["Id"]
        ask("POST", f"/exec/{exec_id}/start", {"Detach": True})
        until(lambda: self.inspect()["State"]["StartedAt"] != before, 10, "the container was not restarted")

    def end(self, seconds: float) -> tuple[int, list[str]]:
        """Its exit code and what it said, a line each, once it has ended."""
        until(lambda: not self.inspect()["State"]["Running"], seconds, "the container has not ended")
        return int(self.inspect()["State"]["ExitCode"]), self.logs()

    def logs(self, since: float = 0) -> list[str]:
        """What it said since a unix second."""
        raw = ask("GET", f"/containers/{self.id}/logs", stdout=1, stderr=1, since=f"{since:.9f}")
        return _text(raw).decode().splitlines()

    def memory(self) -> tuple[int, int]:
        """Bytes in use as `docker stats` counts them, without the cache of files; and its limit."""
        stats = get(f"/containers/{self.id}/stats", stream=0, **{"one-shot": 1})["memory_stats"]
        return stats["usage"] - stats["stats"].get("inactive_file", 0), stats["limit"]

    def another(
        self, name: str, command: list[str] | None = None, environment: dict[str, str] | None = None
    ) -> Container:
        """A new container like this one, in its network under its service's name; neither started nor restarted."""
        seen = copy.deepcopy(self.inspect())
        config, host = seen["Config"], seen["HostConfig"]
        for own in ("Hostname", "Domainname", "MacAddress", "ExposedPorts"):
            config.pop(own, None)
        host |= {"PortBindings": {}, "RestartPolicy": {"Name": "no"}}
        if command is not None:
            config["Cmd"] = command
        # a name alone is one that Compose had no value for
        given = (line.split("=", 1) for line in config["Env"] if "=" in line)
        names = dict(given) | (environment or {})
        config["Env"] = [f"{key}={value}" for key, value in names.items()]
        service = config["Labels"][LABEL + "service"]
        config["Labels"][LABEL + "container-number"] = "99"
        networks = {network: {"Aliases": [service]} for network in seen["NetworkSettings"]["Networks"]}
        body = config | {"HostConfig": host, "NetworkingConfig": {"EndpointsConfig": networks}}
        return Container(json.loads(ask("POST", "/containers/create", body, name=name))["Id"])


def project() -> str:
    """The compose project that this very container belongs to."""
    return str(Container(socket.gethostname()).inspect()["Config"]["Labels"][LABEL + "project"])


def containers(service: str = "") -> list[Container]:
    """The project's containers (of one service), without those of `compose run`."""
    labels = [f"{LABEL}project={project()}", f"{LABEL}oneoff=False"]
    labels += [f"{LABEL}service={service}"] if service else []
    return [Container(found["Id"]) for found in get("/containers/json", filters=json.dumps({"label": labels}))]


def until(holds: Any, seconds: float, complaint: str, pause: float = 0.25) -> Any:
    """What `holds` returns as soon as that is true. Fails the test after so many seconds."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, f"{complaint} within {seconds:.0f} s"
        time.sleep(pause)
    return found
