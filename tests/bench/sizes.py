"""How large the measured work is: as the targets say, or tiny, to see that everything runs."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.config import ModelConfig
from simulator.world.stream import BLOCK


@dataclass(frozen=True)
class Size:
    """Amounts of work; the defaults are those that the targets refer to."""

    rounds: int = 15
    """Timed passes of each variant."""
    warm_up: int = 2
    """Passes before them that do not count."""
    world_events: int = 32 * BLOCK
    """Synthetic events of a pass: whole blocks, so that none is kept from the pass before."""
    ratings: int = 20_000
    """Engagements of the made-up log; each is replayed with four negatives."""
    duplicates: int = 8
    fields: int = 8
    """Single-valued ones."""
    vocabulary: int = 12_500
    """Values of each field: 100,000 table rows in all."""
    model: ModelConfig = ModelConfig(dim=16, hidden=(128, 64, 32), norm="after", batch=512)
    window: int = 16
    """Mini-batches of a pass, and of the shuffle window."""
    queries: int = 500
    """Ranked in a pass, one after the other."""
    candidates: int = 200
    sized: str = "full"
    """Model of the query path: a key of `query_path.model.SIZES`."""
    slices: int = 8
    """Slices of time that each contender of the query path is asked for, at 32 in flight; half of it at other loads."""
    slice_seconds: float = 1.0
    refreshing_seconds: float = 5.0
    """Length of a slice with or without refreshes."""
    snapshots: int = 8
    """Cut and published one by one."""
    overload_seconds: float = 10.0
    """How long each load is offered, three times; 60 is the full form (--overload-seconds)."""
    compare_rows: int = 1_000_000
    """Of each of two logs of predictions; 25 million is what the targets are for (--compare-rows)."""
    ingest_rows: int = 10_000_000
    """Of the logs that are read once; what the targets are for."""
    stack_seconds: float = 15.0
    """How long the live system runs before its memory is read; 0: it is not started."""
    page_seconds: float = 20.0
    """Each of three spans in which the live page's CPU is read, without viewers and with them; 0: it is not started."""

    @property
    def events(self) -> int:
        """Events that every duplicate learns in a pass."""
        return self.window * self.model.batch


QUICK = Size(
    rounds=2,
    warm_up=1,
    world_events=BLOCK,
    ratings=200,
    duplicates=2,
    fields=3,
    vocabulary=50,
    model=ModelConfig(dim=4, hidden=(8, 4), norm="after", batch=32),
    window=2,
    queries=5,
    candidates=20,
    sized="quick",
    slices=2,
    slice_seconds=0.2,
    refreshing_seconds=0.3,
    snapshots=2,
    overload_seconds=0.5,
    compare_rows=2_000,
    ingest_rows=2_000,
    stack_seconds=0.0,
    page_seconds=0.0,
)
"""For the tests: a second or two. Its figures say nothing."""
