"""What every peer's server does with queries: the ranking code of our replica, without its server."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from query_path.model import build

from simulator.types import Ints, Slate, slate

MOST_AT_ONCE = 32
"""Queries that a peer may rank in one call: as many as are in flight."""


class Ranking:
    """The first duplicate of the measured model, its first layer split, one thread per operation."""

    def __init__(self, sized: str) -> None:
        torch.set_num_threads(1)
        self._made = made = build(sized)
        self._ranker = made.ranker()
        context = [made.schema.first_row(field.name) for field in made.schema.fields if field.side == "context"]
        self._context = np.array(context, np.int32)
        self._at_once = max(1, self._ranker.pairs_at_once // made.sizes.candidates)

    def slates(self, users: Ints, contexts: Ints, k: Sequence[int]) -> list[Slate]:
        """The slates of queries that are pending together: users [Q], contexts [Q, C], lengths [Q]."""
        found: list[Slate] = []
        for start in range(0, len(users), self._at_once):
            part = slice(start, start + self._at_once)
            items = np.stack([self._made.candidates(user) for user in users[part].tolist()])
            context = (self._context + contexts[part]).astype(np.int32)
            scores = self._ranker.scores(users[part].astype(np.int64), context, items)
            found += [slate(*each) for each in zip(scores, items, k[part], strict=True)]
        return found
