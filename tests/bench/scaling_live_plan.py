"""Which points of the live system the laws of `flicker size` are fitted to, and which they are checked on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scaling_live import Live

from simulator.randomness import generator

SEED, CHECKS = 20, 3
"""Of what is drawn, and how many combinations."""
BASE = Live()
WIDTHS = (32, 16), (64, 32), (128, 64), (128, 64, 32), (256, 128)
"""Of hidden layers."""
FITTED = [
    BASE,
    *(replace(BASE, entities=count) for count in (2_000, 50_000, 150_000)),
    replace(BASE, entities=100_000, hash_rows=5_000),
    *(replace(BASE, arms=count) for count in (1, 4)),
    *(replace(BASE, duplicates=count) for count in (2, 8)),
    *(replace(BASE, candidates=count) for count in (50, 800)),
    *(replace(BASE, dim=size) for size in (8, 48)),
    *(replace(BASE, hidden=widths) for widths in WIDTHS if widths != BASE.hidden),
    *(replace(BASE, generation_events=count) for count in (16_384, 32_768)),
    Live(50_000, 0, 3, 6, 400, 32, (128, 64), 16_384),
]
"""One thing at a time, and one combination."""


def drawn(seed: int = SEED) -> list[Live]:
    """Combinations within what was fitted, drawn at random: counts evenly on a scale of ratios."""
    draws = generator(seed, "scaling check", 0)

    def between(low: float, high: float) -> int:
        return round(float(np.exp(draws.uniform(np.log(low), np.log(high)))))

    found = []
    for _ in range(CHECKS):
        entities = between(3_000, 100_000)
        found.append(
            Live(
                entities=entities,
                hash_rows=int(draws.choice([0, 0, entities // 3])),
                arms=between(1, 4),
                duplicates=between(2, 8),
                candidates=between(50, 800),
                dim=int(draws.choice([8, 16, 24, 32, 48])),
                hidden=WIDTHS[draws.integers(len(WIDTHS))],
                generation_events=int(draws.choice([8_192, 16_384, 32_768])),
            )
        )
    return found


if __name__ == "__main__":
    print(*drawn(), sep="\n")
