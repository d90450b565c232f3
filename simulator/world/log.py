"""A log as numbers: rows in time order, cut into blocks that can be read from any block on.

A log of engagements only holds one row per engagement; a labelled log one row per event, label 1 or 0. Users and
items are numbered by first appearance, so the items seen before a row are 0 to some number.
Shapes: n rows, B blocks, C context slots.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from simulator.types import Columns, Doubles, Floats, Ints, Names, Rows
from simulator.world.features import Encoder

BLOCK = 8_192
"""Rows per block, at most: what is read, numbered and given its negatives at once."""


@dataclass(frozen=True)
class Block(Columns):
    """Adjacent rows of a log."""

    user: Ints
    """[n] user number."""
    item: Ints
    """[n] item number."""
    time: Doubles
    """[n] unix seconds, never decreasing."""
    label: Floats
    """[n] 1 for an engagement, else 0."""
    context: Rows
    """[n, C] table rows of the context slots."""


class Index:
    """What has been read before each block; entry B is the whole log."""

    def __init__(self) -> None:
        self._before: list[tuple[int, int, int]] = [(0, 0, 0)]

    def add(self, rows: int, engagements: int, items: int) -> None:
        """One more block: its rows, its engagements, and the distinct items known at its end."""
        rows_before, engagements_before, _ = self._before[-1]
        self._before.append((rows_before + rows, engagements_before + engagements, items))

    @property
    def rows(self) -> Ints:
        """[B + 1] rows before each block."""
        return np.array(self._before)[:, 0]

    @property
    def engagements(self) -> Ints:
        """[B + 1] engagements before each block."""
        return np.array(self._before)[:, 1]

    @property
    def items(self) -> Ints:
        """[B + 1] distinct items in the rows before each block."""
        return np.array(self._before)[:, 2]

    def size(self, block: int) -> int:
        """Rows of a block."""
        return self._before[block + 1][0] - self._before[block][0]

    def block_of(self, row: int) -> int:
        """The block that holds a row; the number of blocks for a row past the end."""
        return int(np.searchsorted(self.rows, row, side="right")) - 1


class Log(Protocol):
    """A log whose vocabularies are known, and whose rows can be read again and again."""

    @property
    def name(self) -> str:
        """Name of the folder or file."""

    @property
    def encoder(self) -> Encoder:
        """Fields and what is known of each user and item."""

    @property
    def labelled(self) -> bool:
        """Whether rows carry labels; else every row is an engagement."""

    @property
    def index(self) -> Index:
        """What lies before each block."""

    @property
    def skipped_rows(self) -> int:
        """Damaged rows that were left out."""

    @property
    def names(self) -> Names:
        """What it calls its users and items."""

    def blocks(self, first: int) -> Iterator[Block]:
        """The blocks from number `first` on."""


@dataclass(frozen=True)
class MemoryLog:
    """A log held in memory as numbers."""

    name: str
    encoder: Encoder
    labelled: bool
    rows: Block
    skipped_rows: int
    names: Names

    @property
    def index(self) -> Index:
        """What lies before each block."""
        index, items = Index(), 0
        for block in self.blocks(0):
            items = max(items, int(block.item.max()) + 1)
            index.add(len(block), int(block.label.sum()), items)
        return index

    def blocks(self, first: int) -> Iterator[Block]:
        """The blocks from number `first` on, as views."""
        for start in range(first * BLOCK, len(self.rows), BLOCK):
            yield self.rows[start : start + BLOCK]


@dataclass(frozen=True)
class Trail:
    """The engagements that lead up to a row, and what is known by then."""

    user: Ints
    """[n] user number, oldest first."""
    item: Ints
    """[n] item number."""
    items: int
    """Distinct items in all rows before: items 0 to items - 1 are known."""


def trail(log: Log, index: Index, row: int, count: int) -> Trail:
    """The last `count` engagements (fewer near the start) strictly before a row; reads only the blocks they are in."""
    block = index.block_of(row)
    first = max(0, int(np.searchsorted(index.engagements, index.engagements[block] - count, side="right")) - 1)
    items, parts, read = int(index.items[block]), [], int(index.rows[first])
    for part in log.blocks(first):
        if read >= row:
            break
        part = part[: row - read]
        read += len(part)
        items = max(items, int(part.item.max(initial=-1)) + 1)
        parts.append(part[np.flatnonzero(part.label)])
    if not parts:
        return Trail(np.empty(0, np.int64), np.empty(0, np.int64), items)
    return Trail(
        np.concatenate([p.user for p in parts])[-count:], np.concatenate([p.item for p in parts])[-count:], items
    )
