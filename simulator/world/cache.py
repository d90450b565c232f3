"""The cache of coded logs: a folder for each, named by a digest of its sources and settings.

`FLICKER_CACHE` names the cache (default: flicker in the user's cache folder), `FLICKER_CACHE_LIMIT` how large it may
grow (default 20 GB): the logs that were not opened for longest go. A log is made beside its place under a lock, then
renamed: other processes wait for it, and the remnants of a killed process are never taken for a log.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from simulator.files import parse_bytes, writing
from simulator.world import archive
from simulator.world.clicklog import ClickLog

CACHE, LIMIT = "FLICKER_CACHE", "FLICKER_CACHE_LIMIT"
DEFAULT_LIMIT = "20 GB"
LOG_NAMES = re.compile(r"[0-9a-f]{32}|\.[0-9a-f]{32}\.\d+")
"""Names of logs, and of those in the making; no other files in the folder are touched."""


def cached(key: str, make: Callable[[Path], None]) -> ClickLog:
    """The log of a key; `make` writes it into an empty folder where it is not there yet.

    ResultError where the cache cannot be written or is full, SettingError for a limit that is none.
    """
    folder, limit = cache_folder(), size_limit()
    with writing(CACHE, folder):
        if (log := opened(folder / key)) is not None:
            return log
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, key):
            if (log := opened(folder / key)) is not None:
                return log  # by somebody else, meanwhile
            for remnant in (*folder.glob(f".{key}.*"), *folder.glob(key)):
                shutil.rmtree(remnant)
            making = folder / f".{key}.{os.getpid()}"
            making.mkdir()
            try:
                make(making)
                os.rename(making, folder / key)
            finally:
                shutil.rmtree(making, ignore_errors=True)
            log = archive.read(folder / key)
        evict(folder, limit, key)
    return log


def opened(place: Path) -> ClickLog | None:
    """The log at its place, if it is whole; it counts as used now. No lock: a log that is there does not change."""
    try:
        log = archive.read(place) if archive.is_whole(place) else None
    except FileNotFoundError:  # evicted in between
        return None
    with suppress(OSError):  # somebody else's, to be read alone
        os.utime(place)
    return log


def cache_folder() -> Path:
    """FLICKER_CACHE, or the platform's."""
    if configured := os.environ.get(CACHE, "").strip():
        return Path(configured).expanduser()
    default = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(default).expanduser() / "flicker"


def size_limit() -> int:
    """Bytes that FLICKER_CACHE_LIMIT allows."""
    return parse_bytes(LIMIT, os.environ.get(LIMIT, "").strip() or DEFAULT_LIMIT)


@contextmanager
def locked(folder: Path, key: str, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a log; the system releases it when a process ends, however that happens.

    BlockingIOError where another process holds it, unless we `wait`. A lock is shared by a 256th of all logs.
    """
    with (folder / f"{key[:2]}.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            print(f"{CACHE}: another process reads a log into {folder}; waiting for it ...", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def evict(folder: Path, limit: int, keep: str) -> None:
    """Remove remnants of killed processes, and least recently used logs until the others are within the limit (LRU)."""
    logs = []
    for path in folder.iterdir():
        if not LOG_NAMES.fullmatch(path.name) or not (path.name[0] == "." or (path / archive.META).is_file()):
            continue
        with suppress(OSError):  # others evict, too
            size = sum(file.stat().st_size for file in path.rglob("*"))
            logs.append((path.name[0] != ".", path.stat().st_mtime_ns, size, path))
    total = sum(size for _, _, size, _ in logs)
    for is_log, _, size, path in sorted(logs):
        key = path.name if is_log else path.name.split(".")[1]
        if key != keep and (total > limit or not is_log):
            with suppress(OSError), locked(folder, key, wait=False):
                shutil.rmtree(path)
                total -= size
