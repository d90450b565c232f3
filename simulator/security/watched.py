"""Files that hold secrets or certificates: read when a process starts, and again when they have changed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from simulator.errors import SettingError

log = logging.getLogger(__name__)
Value = TypeVar("Value")
CHECK_INTERVAL = 1.0
"""Seconds between two checks of the files, at least."""
MIN_CHARACTERS = 16
"""Characters of a token or key: shorter ones can be guessed."""


class Watched(Generic[Value]):
    """A value made from files, made again when they change; the old one while they cannot be used."""

    def __init__(self, files: Sequence[Path], make: Callable[[], Value]) -> None:
        """`make` raises SettingError where the files cannot be used, and so does this."""
        self._files, self._make = files, make
        self._stamps, self._due = stamps(files), time.monotonic() + CHECK_INTERVAL
        self._value = make()
        self.version = 0
        """How often it was made again."""

    def __call__(self) -> Value:
        """The value. Any thread may call."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + CHECK_INTERVAL
            if (current := stamps(self._files)) != self._stamps:
                self._renew(current)
        return self._value

    def _renew(self, stamps: object) -> None:
        """A file that is half-written will have another stamp when it is whole."""
        self._stamps = stamps
        names = ", ".join(map(str, self._files))
        try:
            self._value = self._make()
        except SettingError as problem:
            log.error("%s: changed, and not taken over: %s", names, problem)
        else:
            self.version += 1
            log.info("%s: changed, and taken over", names)


def stamps(files: Sequence[Path]) -> object:
    """Stamps of the files, which change when one of them does."""
    all_stamps = []
    for file in files:
        try:
            status = file.stat()
            all_stamps.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except OSError:
            all_stamps.append((0, 0, 0))
    return all_stamps


def read_file(setting: str, path: Path) -> bytes:
    """The bytes of a file. Raises SettingError."""
    try:
        return path.read_bytes()
    except OSError as problem:
        raise SettingError(setting, path, f"{problem.strerror}: name a file that this process may read") from None


def read_secrets(setting: str, path: Path, min_length: int = MIN_CHARACTERS) -> tuple[bytes, ...]:
    """The secrets of a file, one a line, at least one; lines that begin with # are comments.

    Raises SettingError, which never repeats the file's content.
    """
    lines = [line.strip() for line in read_file(setting, path).splitlines()]
    secrets = tuple(line for line in lines if line and not line.startswith(b"#"))
    if not secrets:
        raise SettingError(setting, path, "holds no secret: one a line, such as `openssl rand -hex 32` prints")
    if any(len(line) < min_length or not all(32 < byte < 127 for byte in line) for line in secrets):
        hint = f"a secret has at least {min_length} characters, no spaces: such as `openssl rand -hex 32` prints"
        raise SettingError(setting, path, hint)
    return secrets


def secret_file(setting: str, path: Path, min_length: int = MIN_CHARACTERS) -> Watched[tuple[bytes, ...]]:
    """The secrets of a file, as they are now: the first is used, all of them are accepted. Raises SettingError."""
    return Watched([path], lambda: read_secrets(setting, path, min_length))
