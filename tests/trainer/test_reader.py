"""Chunks do not depend on how events were appended, read or waited for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simulator.store.protocol import Entry, StoreAway
from simulator.types import Batch
from tests.store.batches import batch, numbers, same
from tests.store.memory_store import MemoryStore
from trainer.reader import Reader

ALL = replace(batch(0, 120), weight=np.arange(120, dtype=np.float32))


def all_good(entry: Entry, events: int) -> Batch:
    assert len(entry.batch) == events
    return entry.batch


def filled(sizes: list[int]) -> MemoryStore:
    """A log of ALL in entries of these sizes, again and again."""
    log, first = MemoryStore(1_000), 0
    log.join("g")
    while first < len(ALL):
        for size in sizes:
            if first < len(ALL):
                log.append(ALL[first : first + size])
                first += size
    return log


def taken(reader: Reader) -> list[Batch]:
    """All chunks that are complete, each after as many reads as it takes."""
    found, before = list[Batch](), (-1, -1)
    while before != (now := (len(found), reader.ahead)):  # until a read brings nothing
        before = now
        while (chunk := reader.take(0.0)) is not None:
            found.append(chunk)
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.integers(1, 40), st.integers(0, 5))
@example(sizes=[1, 4], chunk=2, stop=0)  # a read and two chunks leave as much ahead as before
def test_chunks_are_the_events_in_order_from_any_place(sizes: list[int], chunk: int, stop: int) -> None:
    log = filled(sizes)
    one = Reader(log, "g", chunk, all_good)
    before = [found for _ in range(2 * stop) if (found := one.take(0.0)) is not None]
    other = Reader(log, "g", chunk, all_good, one.after)
    other.restore(one.state())
    rest = taken(other)
    chunks = [ALL[first : first + chunk] for first in range(0, len(ALL) - chunk + 1, chunk)]
    assert len(before + rest) == len(chunks)
    assert all(same(a, b) for a, b in zip(before + rest, chunks, strict=True))
    assert all(same(a, b) for a, b in zip(taken(one), rest, strict=True))


def test_no_chunk_is_cut_short_by_waiting() -> None:
    log = MemoryStore(1_000)
    log.join("g")
    reader = Reader(log, "g", 10, all_good)
    for first in range(0, 9, 3):
        log.append(batch(first, 3))
        assert reader.take(0.0) is None
        assert (reader.after, reader.ahead) == (f"{first + 3}-0", first + 3)
    log.append(batch(9, 3))
    chunk = reader.take(0.0)
    assert chunk is not None and numbers([chunk]) == list(range(10))
    assert (reader.after, reader.ahead) == ("12-0", 2)


class Flaky(MemoryStore):
    """Away on every other read."""

    reads = 0

    def read(self, group: str, after: str, events: int, wait: float) -> list[Entry]:
        self.reads += 1
        if self.reads % 2:
            raise StoreAway("away: a test said so")
        return super().read(group, after, events, wait)


def test_nothing_is_lost_or_taken_twice_while_the_store_comes_and_goes() -> None:
    log = Flaky(1_000)
    log.join("g")
    for first in range(0, 60, 7):
        log.append(batch(first, 7))
    reader, found = Reader(log, "g", 5, all_good), []
    for _ in range(60):
        try:
            chunk = reader.take(0.0)
        except StoreAway:
            continue
        found += [chunk] if chunk is not None else []
    assert numbers(found) == list(range(60))
