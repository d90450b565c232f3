"""Candidates for a query, without a model: recent popularity in the user's segment, then overall.

One function for the queries of both worlds and for the trainer's catalogue.
Shapes: n trailing engagements, A items that can be shown, G segments, N candidates.
"""

from __future__ import annotations

import numpy as np

from simulator.types import Ints


def retrieve(segment: Ints, item: Ints, present: Ints, wanted_segments: Ints, count: int) -> Ints:
    """[G, N] for each segment in `asked` [G] the items engaged with most in it, equal ones by engagements of all, then
    by item number; none of them twice. N is `count`, or all that are present where those are fewer.

    `segment` [n] of the user of each trailing engagement, `item` [n] its item; only items `present` [A], ascending, can
    be candidates.
    """
    is_present = np.zeros(max(present[-1:].max(initial=-1), item.max(initial=-1)) + 1, bool)
    is_present[present] = True
    segment, item = segment[is_present[item]], item[is_present[item]]
    overall = np.bincount(item, minlength=len(is_present))
    engaged = np.flatnonzero(overall)
    fill = present[overall[present] == 0][:count]
    ranked = np.concatenate([engaged[np.argsort(-overall[engaged], kind="stable")], fill])
    candidates = np.empty((len(wanted_segments), min(count, len(present))), np.int64)
    for place, wanted in enumerate(wanted_segments):
        of_segment, counts = np.unique(item[segment == wanted], return_counts=True)
        of_segment = of_segment[np.lexsort((of_segment, -overall[of_segment], -counts))][:count]
        candidates[place] = np.concatenate([of_segment, ranked[~np.isin(ranked, of_segment)]])[: candidates.shape[1]]
    return candidates
