"""Files that a crash leaves either old or new, never in between; folders that cannot be written, in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simulator.errors import ResultError


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file as a whole."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file to be written inside, which then replaces `path`: fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    yield temporary
    for done in (temporary, path.parent):
        opened = os.open(done, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
        if done is temporary:
            os.replace(temporary, path)


@contextmanager
def writing(setting: str, folder: Path) -> Iterator[None]:
    """What is done inside writes to the folder that a setting names: an OSError there becomes a ResultError."""
    try:
        yield
    except OSError as problem:
        reason = problem.strerror or problem
        raise ResultError(f"{setting} = {folder}: {reason}: name a folder that can be written") from None
