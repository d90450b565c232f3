"""`flicker shadow --keep FOLDER`: both sides' scores as prediction logs that `flicker compare` reads.

FOLDER/first and FOLDER/second hold CSV files of the same names, each a part of some seconds that appears as a whole: so
both may be read at any time, and a process that is killed loses the last seconds at most. A started one goes on beside
what is there. Nothing but text is written: pyarrow is needed to read, not here.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from simulator.files import as_csv, write_atomically, writing
from simulator.types import Doubles

log = logging.getLogger(__name__)
SIDES = "first", "second"
PART_SECONDS, PART_ROWS = 5.0, 20_000
"""A part ends after so long, or with so many rows of each side."""
Row = tuple[object, ...]


class Kept:
    """The folder, until it holds as much as it may."""

    def __init__(self, folder: Path, limit: int, probabilities: bool) -> None:
        """`limit` bytes of all files; `probabilities`: scores are some, and are said to be.

        Raises ResultError where the folder cannot be written.
        """
        self._folder, self._max_bytes, self._probabilities = folder, limit, probabilities
        self._rows: tuple[list[Row], list[Row]] = [], []
        self._since = 0.0
        with writing("keep", folder):
            for side in SIDES:
                (folder / side).mkdir(parents=True, exist_ok=True)
            self._bytes = sum(file.stat().st_size for file in folder.glob("*/*.csv"))
        # numbers of queries rise from one process to the next: none makes a million of them in a second
        self._numbers = itertools.count(time.time_ns() // 1_000)

    def add(self, ids: Sequence[str], items: NDArray[Any], scores: tuple[Doubles, Doubles]) -> None:
        """Queries [B], as the asker calls them, with items [B, N] and both sides' scores [B, N]."""
        if self._bytes > self._max_bytes:
            return
        self._since = self._since or time.monotonic()
        for query, own in enumerate(ids):
            number, names = next(self._numbers), items[query].tolist()
            for rows, side in zip(self._rows, scores, strict=True):
                values = side[query].tolist()
                columns = (values, values) if self._probabilities else (values,)
                rows += [(number, name, *row, own) for name, *row in zip(names, *columns, strict=True)]
        if len(self._rows[0]) >= PART_ROWS:
            self.end_part()

    def end_part(self, after: float = 0.0) -> None:
        """Write what was added, where the first of it is so many seconds old. What cannot be written ends the keeping,
        not the proxy."""
        if not self._since or time.monotonic() - self._since < after:
            return
        head = ("q_id", "doc_id", "score", *(["probability"] if self._probabilities else []), "request")
        files = [self._folder / side / f"{self._rows[0][0][0]}.csv" for side in SIDES]
        try:
            for file, rows in zip(files, self._rows, strict=True):
                content = as_csv([head, *rows]).encode()
                write_atomically(file, content)
                self._bytes += len(content)
        except OSError as problem:
            with contextlib.suppress(OSError):
                files[0].unlink(missing_ok=True)  # one side alone is no comparison
            log.error("keep = %s: %s: nothing is kept from now on", self._folder, problem.strerror or problem)
            self._max_bytes = -1
        else:
            if self._bytes > self._max_bytes:
                words = "keep = %s: full (--keep-bytes %d): nothing is kept from now on"
                log.warning(words, self._folder, self._max_bytes)
        self._rows, self._since = ([], []), 0.0
