"""docker-compose.yml, docker-compose.secure.yml and .env, read as Compose reads them, as far as ours need."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
COMPOSE, SECURE, ENV = (
    (ROOT / name).read_text() for name in ("docker-compose.yml", "docker-compose.secure.yml", ".env")
)
SETTINGS = {name: value.strip('"') for name, value in re.findall(r"^(\w+)=(.*)$", ENV, re.MULTILINE)}


class _Loader(yaml.SafeLoader):
    """Knows Compose's own tags."""


_Loader.add_constructor("!override", lambda loader, node: ("!override", loader.construct_mapping(node, deep=True)))  # type: ignore[no-untyped-call]
_Loader.add_constructor("!reset", lambda loader, node: ("!reset", None))  # type: ignore[no-untyped-call]


def interpolated(text: str, **others: str) -> str:
    """A text as Compose reads it with .env: ${A}, ${A:-otherwise} and ${A:+if set}, the inner ones first."""
    values = SETTINGS | others

    def value(match: re.Match[str]) -> str:
        name, sign, word = match.groups(default="")
        found = values.get(name, "")
        return word * bool(found) if sign == ":+" else found or word

    while (done := re.sub(r"\$\{(\w+)(?:(:[-+])([^${}]*))?\}", value, text)) != text:
        text = done
    return text


def read(text: str, **settings: str) -> dict[str, Any]:
    """A file."""
    found: dict[str, Any] = yaml.load(interpolated(text, **settings), _Loader)  # noqa: S506  # a SafeLoader
    return found


def services(**settings: str) -> dict[str, dict[str, Any]]:
    """The services of docker-compose.yml."""
    found: dict[str, dict[str, Any]] = read(COMPOSE, **settings)["services"]
    return found


def secure_services(**settings: str) -> dict[str, dict[str, Any]]:
    """The same with docker-compose.secure.yml over it."""
    merged = services(**settings)
    for name, service in read(SECURE, **settings)["services"].items():
        merged[name] = over(merged.get(name, {}), service)
    return merged


def over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Mappings key by key, lists one behind the other, but for commands; the rest as it is above."""
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, tuple):
            merged[key] = value[1]
            if value[0] == "!reset":
                del merged[key]
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = over(merged[key], value)
        elif isinstance(value, list) and isinstance(merged.get(key), list) and key not in ("test", "command"):
            merged[key] = merged[key] + value
        else:
            merged[key] = value
    return merged


def make_secrets(folder: Path, **settings: str) -> None:
    """What the service `secrets` does, for the user who runs the tests. Raises CalledProcessError."""
    command = [str(ROOT / "deploy/secure/secrets.sh"), str(folder)]
    environment = os.environ | {"OWNERS": str(os.getgid())} | settings
    subprocess.run(command, env=environment, check=True, text=True, capture_output=True)
