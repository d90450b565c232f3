"""Made-up prediction logs, and a slow comparison of two to check against."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simulator.predictions.compare import compare_frames
from simulator.randomness import generator
from simulator.result import Arm

Frame = dict[str, Any]


def frame(seed: int, queries: int = 12, items: int = 7, *, texts: bool = False, ties: bool = False) -> Frame:
    """Scores of one model; the candidates hang on the query alone."""
    draws, shared = generator(seed, "log"), generator(0, "candidates")
    asked = np.repeat(np.arange(queries), items)
    doc = np.concatenate([shared.permutation(40)[:items] for _ in range(queries)])
    logit = shared.normal(size=len(asked)) + 0.7 * draws.normal(size=len(asked))
    logit = np.round(logit) if ties else logit
    columns: Frame = {"q_id": asked, "doc_id": doc, "score": logit}
    columns["label"] = (shared.random(len(asked)) < 0.3).astype(float)
    columns["user"] = asked % 5
    columns["country"] = np.array(["NL", "DE", "FR"])[asked % 3]
    if texts:
        columns |= {"q_id": [f"query {q}" for q in asked], "doc_id": [f"item-number-{d}" for d in doc]}
    return columns


def picked(columns: Frame, rows: Any) -> Frame:
    """Some rows, in the given order."""
    return {name: np.asarray(column)[rows] for name, column in columns.items()}


def write(path: Path, columns: Mapping[str, Any], **options: Any) -> Path:
    """As a Parquet file."""
    pq.write_table(pa.table(dict(columns)), path, **options)
    return path


def measured(*frames: Any, **options: Any) -> dict[str, float]:
    """Means of the only arm."""
    return means(compare_frames(list(frames), **options).arms[0])


def means(arm: Arm) -> dict[str, float]:
    return {name: interval.mean for name, interval in arm.measures.items()}


def rankings(columns: Frame) -> dict[Any, list[Any]]:
    """Query -> items, best first, equal scores by item."""
    found: dict[Any, list[Any]] = {}
    rows = zip(*(np.asarray(columns[name]).tolist() for name in ("q_id", "doc_id", "score")), strict=True)
    for query, item, _ in sorted(rows, key=lambda row: (-row[2], row[1])):
        found.setdefault(query, []).append(item)
    return found


def brute(first: Frame, second: Frame, k: int) -> dict[str, float]:
    """Swap measures with loops."""
    sums = {name: [0.0, 0.0] for name in ("slot", "top1", "set", "pair", "slate", "slate_pair")}
    one, other = rankings(first), rankings(second)
    for query in one.keys() & other.keys():
        a, b = one[query][:k], other[query][:k]
        width = max(len(a), len(b))
        shown = [a[i : i + 1] != b[i : i + 1] for i in range(width)]
        swapped, pairs = _pairs(one[query], other[query])
        inner, inner_pairs = _pairs(a, b)
        for name, part, whole in (
            ("slot", sum(shown), width),
            ("top1", a[0] != b[0], 1),
            ("set", width - len(set(a) & set(b)), width),
            ("pair", swapped, pairs),
            ("slate", any(shown), 1),
            ("slate_pair", inner, inner_pairs),
        ):
            sums[name][0] += part
            sums[name][1] += whole
    return {f"swaps.{name}": part / whole for name, (part, whole) in sums.items() if whole}


def _pairs(a: list[Any], b: list[Any]) -> tuple[int, int]:
    both = [item for item in a if item in b]
    opposite = sum(b.index(x) > b.index(y) for i, x in enumerate(both) for y in both[i + 1 :])
    return opposite, math.comb(len(both), 2)
