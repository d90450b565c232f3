"""Who asks next on a log, and what they engage with afterwards: one pass over the range and the horizon behind it.

Shapes: Q queries, n engagements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from simulator.types import Ints
from simulator.world.log import Block, Index, Log


@dataclass(frozen=True)
class Asking:
    """Engagements taken as queries, and what came of them."""

    row: Ints
    """[Q] row of the log."""
    query: Block
    """[Q] the engagements at those rows."""
    later: Block
    """[n] what the users who ask engage with, from the first row of the range to the end of the last horizon."""

    def answers(self, number: int, horizon: float) -> Ints:
        """Distinct items that the user of a query engages with in [time, time + horizon] seconds, in log order."""
        user, time = self.query.user[number], self.query.time[number]
        within = (self.later.user == user) & (self.later.time >= time) & (self.later.time <= time + horizon)
        return np.array(list(dict.fromkeys(self.later.item[within].tolist())), np.int64)


def ask(log: Log, index: Index, rows: range, horizon: float, choose: Callable[[int], Ints]) -> Asking:
    """Queries by some engagements of a range of rows; `choose` gets their number and names places among them."""
    ahead = _engagements(log, index, rows.start)
    numbers, parts = [np.empty(0, np.int64)], []
    for number, part, end in ahead:
        numbers.append(number)
        parts.append(part)
        if end >= rows.stop:
            break
    row = np.concatenate(numbers)
    chosen = choose(int(np.searchsorted(row, rows.stop)))
    query = Block.concatenate(parts)[chosen]
    users, until = np.unique(query.user), query.time.max() + horizon
    later = [part[np.flatnonzero(np.isin(part.user, users))] for part in parts]
    for _, part, _ in ahead:
        if len(part) and part.time[0] > until:
            break
        later.append(part[np.flatnonzero(np.isin(part.user, users))])
    return Asking(row[chosen], query, Block.concatenate(later))


def _engagements(log: Log, index: Index, row: int) -> Iterator[tuple[Ints, Block, int]]:
    """Block by block the engagements from a row on: their rows, themselves, and the first row of the next block."""
    first = index.block_of(row)
    read = int(index.rows[first])
    for block in log.blocks(first):
        numbers = read + np.flatnonzero(block.label)
        numbers = numbers[numbers >= row]
        part = block[numbers - read]
        read += len(block)
        yield numbers, part, read
