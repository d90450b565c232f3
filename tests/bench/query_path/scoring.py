"""Scoring alone: the ranker's split first layer against its matrix products, and against the whole network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from figures import Figure, ratio, speed
from interleave import interleave
from plain import plain_copies
from sizes import Size

from protos.recommender_pb2 import RecommendRequest
from query_path.model import build
from simulator.types import Ints, Rows

QUERIES = 8
"""Ranked in one pass where queries are pending."""


def measure(size: Size) -> list[Figure]:
    """One query at a time, and eight that share a pass."""
    figures: list[Figure] = []
    for count in (QUERIES, 1):
        variants = variants_of(size, count)
        name = f"scoring, {count} queries a pass"
        passes = interleave(name, variants, size.rounds, size.warm_up)
        figures.append(ratio(f"{name}, split / its products", passes, "split", "its products"))
        figures.append(ratio(f"{name}, whole network / split", passes, "whole network", "split"))
        figures.append(speed(f"{name}, split", "queries/s", passes["split"], size.queries))
    return figures


def variants_of(size: Size, count: int) -> dict[str, Callable[[int], object]]:
    """Each ranks `size.queries` queries in a call, `count` at a time."""
    made = build(size.sized)
    ranker = made.ranker()
    asked = [RecommendRequest.FromString(raw) for raw in made.queries()[:count]]
    users = np.array([query.user for query in asked], np.int64)
    items: Ints = np.stack([made.candidates(query.user) for query in asked])
    features = [made.features(q.user, list(q.context), i) for q, i in zip(asked, items, strict=True)]
    before = made.encoder.user_rows.shape[1] + made.encoder.item_rows.shape[1]  # slots of users and items
    context: Rows = np.stack([rows[0, before:] for rows in features])
    plain, whole = plain_copies(made.engine)[0], torch.from_numpy(np.concatenate(features))
    widths = (*made.engine.model.hidden, 1)
    weights = [torch.randn(a, b) for a, b in zip(widths, widths[1:], strict=False)]
    inputs = [torch.randn(items.size, width) for width in widths[:-1]]
    query, first = torch.randn(count, made.engine.model.dim * 5), torch.randn(made.engine.model.dim * 5, widths[0])

    def products(number: int) -> None:
        for _ in range(max(1, size.queries // count)):
            torch.mm(query, first)
            for x, weight in zip(inputs, weights, strict=True):
                torch.mm(x, weight)

    def split(number: int) -> None:
        for _ in range(max(1, size.queries // count)):
            ranker.scores(users, context, items)

    def network(number: int) -> None:
        with torch.inference_mode():
            for _ in range(max(1, size.queries // count)):
                plain(whole)

    return {"split": split, "its products": products, "whole network": network}
