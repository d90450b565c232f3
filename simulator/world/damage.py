"""What to do with a damaged row: stop at the first one with its place, or leave it out and count it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from simulator.errors import DataError

SHOWN = 60
"""Characters of a damaged value that a message shows."""


class Damage:
    """Receives every damaged row of a log, in log order."""

    def __init__(self, bad_rows: Literal["stop", "skip"]) -> None:
        self.skipped = 0
        """Rows left out so far."""
        self._stop = bad_rows == "stop"

    def report(self, path: Path, line: int, fault: str) -> None:
        """Raise DataError for the row at this line (1 is the first), or count it."""
        if self._stop:
            raise DataError(f"{path}:{line}: {fault}; correct the row, or leave damaged rows out with --bad-rows skip")
        self.skipped += 1


def shown(value: object) -> str:
    """A value as a message shows it: on one line and not too long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def decoded(line: bytes) -> str:
    """UTF-8, or else Latin-1 (as the titles of MovieLens 1M are)."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")
