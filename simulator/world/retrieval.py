"""Candidates for a query, without a model: what was engaged with of late in the user's segment, then by everybody.

One function for the queries of both worlds and for the trainer's catalogue.
Shapes: n trailing engagements, A items that can be shown, G segments, N candidates.
"""

from __future__ import annotations

import numpy as np

from simulator.types import Ints


def retrieve(segment: Ints, item: Ints, present: Ints, asked: Ints, count: int) -> Ints:
    """[G, N] for each segment in `asked` [G] the items engaged with most in it, equal ones by engagements of all, then
    by item number; none of them twice. N is `count`, or all that are present where those are fewer.

    `segment` [n] of the user of each trailing engagement, `item` [n] its item; only items `present` [A], ascending, can
    be candidates.
    """
    there = np.zeros(max(present[-1:].max(initial=-1), item.max(initial=-1)) + 1, bool)
    there[present] = True
    segment, item = segment[there[item]], item[there[item]]
    overall = np.bincount(item, minlength=len(there))
    seen = np.flatnonzero(overall)
    rest = present[overall[present] == 0][:count]
    ranked = np.concatenate([seen[np.argsort(-overall[seen], kind="stable")], rest])
    found = np.empty((len(asked), min(count, len(present))), np.int64)
    for place, one in enumerate(asked):
        own, counts = np.unique(item[segment == one], return_counts=True)
        own = own[np.lexsort((own, -overall[own], -counts))][:count]
        found[place] = np.concatenate([own, ranked[~np.isin(ranked, own)]])[: found.shape[1]]
    return found
