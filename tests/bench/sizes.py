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
)
"""For the tests: a second or two. Its figures say nothing."""
