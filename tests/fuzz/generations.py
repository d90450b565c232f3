"""`make fuzz`: seeded mutations of published generations against a replica's way of taking them; prints counts.

Each is published behind a good one. Nothing served may score otherwise than a good generation of its number, and
something good is served at all times.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
from collections import Counter

import numpy as np
import torch

from tests.serving.generations import about_of, parts_of, stack_of
from tests.serving.replica_under_test import Loading
from tests.store.memory_store import MemoryStore

STACK = stack_of(1)
NAMES = ("duplicate/0", "duplicate/1", "catalog")
KINDS = ("flip", "cut", "swap", "part", "run", "generation", "duplicate", "edit", "json", "reorder", "twice", "missing")


def mutate(store: MemoryStore, number: int, kind: str, draw: random.Random) -> None:
    """Change what is stored of a generation; where a publisher would have, its digests with it."""
    parts, about = parts_of(STACK, number), about_of(STACK, number)
    name = draw.choice(("duplicate/0", "catalog"))
    data = bytearray(parts[name])
    if kind == "flip":
        for _ in range(draw.randint(1, 3)):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    elif kind == "cut":
        del data[draw.randrange(len(data)) :]
    elif kind == "swap":
        data = bytearray(parts["catalog" if name != "catalog" else "duplicate/0"])
    elif kind == "twice":
        data = data + data
    elif kind in ("run", "generation"):
        data = bytearray(
            parts_of(STACK, number - (kind == "generation"), "other" if kind == "run" else "default")[name]
        )
    elif kind == "duplicate":
        name, data = "duplicate/0", bytearray(parts["duplicate/1"])
    changed = parts | {name: bytes(data)}
    if kind == "missing":
        del changed[name]
    published = kind in ("swap", "twice", "run", "generation", "duplicate", "missing")
    store.publish(number, changed if published else parts, about)
    if kind in ("flip", "cut", "part"):  # behind the publisher's back
        store._parts[number][name] = bytes(data) if kind != "part" else parts[draw.choice(NAMES)]
    text = store._manifests[number]
    if kind == "edit":
        place = draw.randrange(len(text))
        text = text[:place] + draw.choice('0123456789{}[]",: eanx') + text[place + draw.randint(0, 2) :]
    elif kind == "json":
        entries = json.loads(text)
        key = draw.choice(sorted(entries["about"]))
        entries["about"][key] = draw.choice([None, 0, -1, 1e300, "relu", [], {}, ["relu", "relu"], True])
        text = json.dumps(entries)
    elif kind == "reorder":
        text = json.dumps(dict(reversed(json.loads(text).items())), indent=draw.choice([None, 1]))
    store._manifests[number] = text


def scores(loading: Loading) -> np.ndarray:
    """Of some users by every arm that is served."""
    current = loading.shelf.current
    assert current is not None, "nothing is served"
    users = np.arange(0, 50, 7)
    context = np.tile(np.array(current.ranges.context_rows(()), np.int32), (len(users), 1))
    items = np.ascontiguousarray(current.candidates[current.segment[users]])
    return np.stack([ranker.scores(users, context, items) for ranker in current.rankers])


def fuzz(mutations: int, seed: int) -> tuple[Counter[str], Counter[str]]:
    """How many mutations were refused by reason, and taken by kind. Raises AssertionError for what must not be."""
    torch.set_num_threads(1)
    draw, taken = random.Random(seed), Counter[str]()
    store = MemoryStore(10)
    store.publish(0, parts_of(STACK, 0), about_of(STACK, 0))
    serving, refused, number = Loading(store), Counter[str](), 0
    assert serving.refresh() == 0
    good = scores(serving)
    for _ in range(mutations):
        kind, number = draw.choice(KINDS), number + 1
        mutate(store, number, kind, draw)
        fresh = Loading(store)  # one that starts must find an older good one
        for one in (serving, fresh):
            served = one.refresh()
            assert served == number or served == number - 1, (kind, served, number)
            np.testing.assert_array_equal(scores(one), good, kind)
        taken[kind] += served == number
        refused += Counter({reason: int(count) for reason, count in fresh.refused().items()})
        if served != number:
            number += 1
            store.publish(number, parts_of(STACK, number), about_of(STACK, number))
            assert serving.refresh() == number, f"not taken after {kind}"
    return refused, taken


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    logging.disable(logging.WARNING)
    by_reason, by_kind = fuzz(flags.mutations, flags.seed)
    print(f"{flags.mutations:,} mutations; refused: {dict(by_reason)}; harmless and taken: {dict(+by_kind)}")
