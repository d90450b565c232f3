"""Sweep folders as `flicker sweep` leaves them, made up from tests/report/fake_results.py."""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simulator.figures.sweep import Sweep, read_sweep
from tests.report.fake_results import CONFIG, fake_result, spread, write

Json = dict[str, Any]
Arms = dict[str, tuple[float, float]]
"""Spec -> instability against ReLU, log loss."""

PLANE: Arms = {
    "relu": (1.0, 0.4400),
    "smelu:beta=0.5": (0.60, 0.4370),
    "smelu:beta=1": (0.40, 0.4350),
    "smelu:beta=4": (0.30, 0.4380),
    "smelu:beta=100": (0.25, 0.4450),
    "linear": (0.25, 0.4450),
    "gelu": (0.80, 0.4360),
    "swish:beta=1": (0.70, 0.4360),
    "softplus:beta=1": (0.70, 0.4360),
    "gsmelu:alpha=1,beta=2": (0.65, 0.4365),
}
RIVALS = ("gelu", "swish", "softplus", "gsmelu")
SOURCES: dict[str, Json] = {
    "none": {"window": 0},
    "init": {"window": 0, "init": "own"},
    "order": {"window": 16},
    "lost": {"window": 0, "lost": 0.1},
    "delay": {"window": 0, "delay": 4},
    "rounding": {"window": 0, "precision": "bfloat16"},
    "sums": {"window": 0, "reductions": True},
    "together": {"window": 16, "init": "own", "lost": 0.1},
}


def result(arms: Arms, wide: float = 0.05) -> Json:
    """A result whose ratios to the first arm are those of its means, each `wide` to both sides (losses: 0.1 %)."""
    made = fake_result(arms, generations=4, wide=wide)
    base = next(iter(arms.values()))
    for spec, (factor, loss) in arms.items():
        own = made["arms"][spec]
        own["ratio"] = (
            {name: spread(factor / base[0], wide) for name in ("pd", "pair", "refresh_pair")} if base[0] else {}
        )
        own["ratio"] |= {name: spread(loss / base[1], 0.001) for name in ("log_loss", "ranking_loss")}
        for name, top in (("pd_by_score", 0.9), ("pd_by_popularity", 900.0)):
            own[name] = [
                {"low": top * i / 5, "high": top * (i + 1) / 5, "share": 0.2, "pd": spread(factor / (i + 1), wide)}
                for i in range(5)
            ]
        m = int(spec.partition("m=")[2] or 1) if spec.startswith("ensemble") else 1
        own |= {"lookups": 200 * m, "score_seconds": 0.001 * m, "model_bytes": 4_000 * m}
    return made


def cell(folder: Path, name: str, made: Json, world: str = "synthetic", norm: str = "after", **noise: Any) -> None:
    """Put one finished cell into a sweep folder."""
    made["world"]["name"] = world
    config = copy.deepcopy(CONFIG)
    config["config"] |= {"arms": list(made["arms"])}
    config["config"]["noise"] |= noise
    config["config"]["model"] |= {"norm": norm}
    place = folder / "cells" / name
    place.mkdir(parents=True)
    write(place, made, config)
    (folder / "sweep.json").write_text(json.dumps({"command": f"flicker sweep --out {folder.name}", "cells": {}}))


def silent(arms: Arms) -> Json:
    """A result in which duplicates do not differ at all."""
    made = result({spec: (0.0, loss) for spec, (_, loss) in arms.items()})
    return made


def article(folder: Path, plane: Arms | None = None, world: str = "synthetic", nothing: str = "none") -> Path:
    """A sweep with all that the figures need; the source `nothing` makes no difference."""
    plane = plane or PLANE
    both = {spec: plane[spec] for spec in ("relu", "smelu:beta=1")}
    cures: Arms = {"relu": plane["relu"], "ensemble:relu:m=2": (0.8, 0.436), "ensemble:relu:m=3": (0.7, 0.435)}
    cures |= {"ensemble:smelu:beta=1,m=2": (0.3, 0.434), "relu#2": (1.02, 0.44)}
    cures |= {"codistill:relu:m=2": (0.75, 0.4405)}
    smelu = {spec: values for spec, values in plane.items() if spec.partition(":")[0] not in RIVALS}
    others = {spec: values for spec, values in plane.items() if spec == "relu" or spec not in smelu}
    for name, arms in (("smelu", smelu), ("others", others), ("cures", cures)):
        cell(folder, f"grid=plane,activation={name}", result(arms), world)
    for norm in ("after", "none"):
        for init in ("same", "own"):
            for window in (16, 128):
                gone = norm == "none" or init == "own" or window == 128
                made = result(both | {"smelu:beta=1": (1.0, 0.435)} if gone else both)
                cell(folder, f"{norm}-{init}-{window}", made, world, norm, init=init, window=window)
    for name, noise in SOURCES.items():
        made = silent(both) if name in ("none", nothing) else result(both)
        cell(folder, f"grid=noise,source={name}", made, world, **noise)
    return folder


def changed(folder: Path, change: Callable[[Json], Any]) -> Sweep:
    """The sweep after a change to every arm of every result."""
    for path in folder.glob("cells/*/result.json"):
        found = json.loads(path.read_text())
        for arm in [*found["arms"].values(), *(arm for step in found["generations"] for arm in step["arms"].values())]:
            change(arm)
        path.write_text(json.dumps(found))
    return read_sweep(folder)


def rows_of(text: str) -> list[dict[str, str]]:
    """The rows of a CSV file by column."""
    return list(csv.DictReader(text.splitlines()))
