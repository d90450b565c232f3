"""Where rows come from: the files of a log as batches of raw columns, in the order of the files, for ingest.py.

`open_source(mapping)` knows the formats (CSV, Parquet, MovieLens `::` files, RecBole atomic files, MIND), folders, globs
and fsspec URLs; columns keep the type that the file gives them (a CSV's are told or inferred over all parts).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Part:
    """One file of a log."""

    path: str
    size: int
    """Bytes."""
    stamp: str
    """Modification time in nanoseconds, or ETag: what tells a changed file."""


@dataclass(frozen=True)
class Place:
    """Where the first row of a batch stands, for messages: FILE:LINE for text, FILE:row N for Parquet."""

    path: str
    row: int
    """Of the batch's first row, from 0, among the rows of its part."""
    first_line: int = 0
    """Line of row 0 where the part is text (2 behind a header); 0: rows have no lines."""

    def of(self, row: int) -> str:
        """The place of row `row` of the batch, as messages write it."""
        number = self.row + row
        return f"{self.path}:{self.first_line + number}" if self.first_line else f"{self.path}: row {number + 1}"


class Source(Protocol):
    """All rows of a log, or of a table beside it."""

    parts: tuple[Part, ...]
    columns: tuple[str, ...]
    """All columns that there are."""

    def batches(self, wanted: Sequence[str]) -> Iterator[tuple[Place, pa.RecordBatch]]:
        """All rows, some ten thousand at a time, with these columns.

        Rows that cannot be taken apart at all (a wrong number of cells, text that is no text) go to `damage` (see
        open_source), and are not among them. DataError where a file is damaged or a part has other types.
        """
