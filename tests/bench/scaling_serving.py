"""One point of serving, each half in a process of its own. Prints one line of JSON.

    python tests/bench/scaling_serving.py publish FOLDER '{"entities": 10000, ...}'    cuts a generation into FOLDER
    python tests/bench/scaling_serving.py replica FOLDER '{"entities": 10000, ...}'    serves from what is there

Publishing is making the parts and their digests, without the way to the store. The replica refreshes twice: it keeps
the generation before, and prepares the next one beside both. Both work with one thread.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scaling_axes import Setting
from scaling_meter import Meter

from serving.replica.generation import Generation
from simulator.models.engines import Engines
from simulator.models.ranker import Rankers
from simulator.models.specs import parse_arms
from simulator.randomness import generator
from simulator.store.parts import listed, write_manifest
from simulator.types import slate
from simulator.world.open import open_world
from simulator.world.stream import SyntheticWorld
from trainer.publish import CATALOG, Engagements, about, duplicate_part, parts

EVENTS = 20_000
"""From these comes what is popular."""
QUERIES, AT_ONCE = 256, 16
"""Ranked one by one, and so many in one call."""


def publish(setting: Setting, folder: Path) -> dict[str, object]:
    """Cuts a generation of fresh weights; one duplicate's part and the catalogue are left in the folder."""
    config, meter = setting.config, Meter()
    world = open_world(config.world, config.seed, config.model.hash_rows)
    assert isinstance(world, SyntheticWorld)
    config = replace(config, fleets=1)
    engines = Engines(world.schema, parse_arms(config.arms), config)
    engagements = Engagements(EVENTS)
    engagements.add(next(world.batches(EVENTS)))
    announced = about(engines, config, world, {"generation": 1, "events": 0, "published": 0.0, "quality": {}})
    with meter.part("publish"):
        made = parts(engines, config, world, engagements, "default", 1)
        write_manifest("default", 1, listed(made), announced)
    for name in (CATALOG, duplicate_part(0)):
        (folder / Path(name).name).write_bytes(made[name])
    (folder / "about.json").write_text(json.dumps(announced))
    return {
        "rows": world.schema.rows,
        "snapshot": len(made[duplicate_part(0)]),
        "catalog": len(made[CATALOG]),
        "cpu": meter.cpu,
        "peak": meter.peak,
    }


def replica(setting: Setting, folder: Path) -> dict[str, object]:
    """Prepares generations and ranks queries of users who come at random."""
    meter, kept, make = Meter(), list[Generation](), Rankers()
    announced = json.loads((folder / "about.json").read_text())
    for name in ("first", "refresh", "refresh"):
        with meter.part(name):
            parts = (folder / Path(duplicate_part(0)).name, folder / CATALOG)
            weights, catalog = (bytearray(part.read_bytes()) for part in parts)
            kept = [Generation.of("default", 1, 0, "replica", announced, weights, catalog, make), *kept][:2]
            del weights, catalog
    for name, at_once in (("one", 1), ("many", AT_ONCE)):
        rank(kept[0], setting.candidates, at_once, QUERIES // 8)  # whatever the first ones cost more
        with meter.part(name):
            rank(kept[0], setting.candidates, at_once, QUERIES)
    meter.cpu |= {name: meter.cpu[name] / QUERIES for name in ("one", "many")} | {"refresh": meter.cpu["refresh"] / 2}
    return {"cpu": meter.cpu, "peak": meter.peak}


def rank(generation: Generation, candidates: int, at_once: int, queries: int) -> None:
    """Scores and sorts; arms take turns."""
    draws = generator(0, "scaling queries", at_once)
    context = np.tile(np.array(generation.ranges.context_rows(()), np.int32), (at_once, 1))
    for number in range(queries // at_once):
        users = draws.integers(generation.ranges.users, size=at_once)
        items = generation.candidates[generation.segment[users], :candidates]
        scores = generation.rankers[number % len(generation.rankers)].scores(users, context, items)
        for query in range(at_once):
            slate(scores[query], items[query], k=10)


if __name__ == "__main__":
    torch.set_num_threads(1)  # as `flicker up` starts its processes
    half = {"publish": publish, "replica": replica}[sys.argv[1]]
    print(json.dumps(half(Setting(**json.loads(sys.argv[3])), Path(sys.argv[2]))))
