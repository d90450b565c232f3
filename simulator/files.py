"""Files that a crash leaves either old or new, never in between; folders that cannot be written, in one line.

And which Flicker wrote them: on the package index `flicker` is somebody else's, the distribution has a name of its own.
"""

from __future__ import annotations

import csv
import io
import os
import platform
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from simulator.errors import ResultError, SettingError

DISTRIBUTION = "flicker-recsys"
UNITS = {"": 1} | {f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)}
UNITS |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)}


def flicker_version() -> str:
    """The installed version; `unknown` where the source is run without being installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"


def parse_bytes(setting: str, text: str) -> int:
    """How many bytes `20 GB`, `512 MiB` or `1000` are. Raises SettingError where it is no size."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([kmgt]?i?b?)", text.strip().lower())
    unit = UNITS.get(match[2] if match and match[2] in UNITS else f"{match[2]}b") if match else None
    if match is None or unit is None:
        raise SettingError(setting, text, "a size such as 20 GB")
    return int(float(match[1]) * unit)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file as a whole."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def as_csv(rows: Iterable[Iterable[object]]) -> str:
    """Rows as the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file to be written inside, which then replaces `path`: fsync, rename, fsync of the folder."""
    # a process number alone is that of many containers, which may share the folder
    temporary = path.with_name(f".{path.name}.{platform.node()}.{threading.get_native_id()}")
    yield temporary
    flush(temporary)
    os.replace(temporary, path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Make a file, or the names in a folder, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(setting: str, folder: Path) -> Iterator[None]:
    """What is done inside writes to the folder that a setting names: an OSError there becomes a ResultError."""
    try:
        yield
    except OSError as problem:
        reason = problem.strerror or problem
        raise ResultError(f"{setting} = {folder}: {reason}: name a folder that can be written") from None


def require_empty(out: Path, instead: str = "delete it") -> None:
    """Raises ResultError where a folder for results is in use."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ResultError(f"out = {out}: is not empty: name another folder, or {instead}")
