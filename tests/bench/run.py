"""`make bench`: variants timed in turn, medians and ratios against their targets. It is no test: it ends with 0.

    make bench ARGS="--out FILE"

writes {"figures": [{"name", "value", "unit", "target", "met", ...}], "machine", "load", "quick"}. `value` is measured
in the clock that the figure names: CPU time of the process, the steadier one where other processes share the cores, or
wall time where several threads are compared.

What learning takes is measured with NumPy and PyTorch alone, so also where nothing else is installed, as in the images:

    docker compose run --rm --no-deps -v ./tests/bench:/app/tests/bench:ro -e PYTHONPATH=/app \\
        --entrypoint python trainer tests/bench/run.py --only learning
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy reads it when it is imported: a world's speed is that of one core

import machine
import torch
from figures import Figure, table
from sizes import QUICK, Size
from targets import TARGETS

MEASURED = {
    "worlds": ("worlds:measure",),
    "learning": ("learning:measure_native", "learning:measure_torch", "learning:measure_variants", "kernels:measure"),
    "ranking": ("ranking:measure", "query_path.scoring:measure"),
    "own": ("own:measure_learning", "own:measure_serving"),
    "queries": ("query_path.measure:measure",),
    "security": ("query_path.secured:measure",),
    "shadow": ("query_path.shadowed:measure",),
    "overload": ("overload:measure",),
    "compare": ("predictions:measure",),
    "ingest": ("ingest:measure",),
    "memory": ("query_path.memory:measure",),
    "page": ("live_page:measure",),
}
"""What --only chooses from -> `module:function`s that measure it, imported when they are asked."""


def main() -> None:
    """Measure, print, write."""
    out, size, only = arguments()
    about, before = machine.describe(), machine.load()
    torch.set_num_threads(1)  # of one operation; where two threads are compared, each has models of its own
    figures: list[Figure] = []
    for name in only:
        for place in MEASURED[name]:
            module, _, function = place.partition(":")
            figures += getattr(importlib.import_module(module), function)(size)
    load = {"start": before, "end": machine.load()}
    quick = size.sized == QUICK.sized
    show(figures, only, about, load, quick)
    if out:
        entries = [figure.as_json() for figure in figures]
        results = {"figures": entries, "machine": about, "load": load, "quick": quick}
        out.write_text(json.dumps(results, indent=1) + "\n")


def arguments() -> tuple[Path | None, Size, list[str]]:
    """The file to write, if any, how much to measure, and which of MEASURED."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure speed, print medians and ratios.")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; the figures say nothing")
    parser.add_argument("--only", nargs="+", choices=MEASURED, default=list(MEASURED), help="measure these alone")
    parser.add_argument("--overload-seconds", type=float, metavar="S", help="each load is offered so long (full: 60)")
    parser.add_argument("--compare-rows", type=int, metavar="N", help="rows of each log that is compared (1,000,000)")
    parser.add_argument("--ingest-rows", type=int, metavar="N", help="rows of the logs that are read (10,000,000)")
    given = parser.parse_args()
    if given.out and (given.out.is_dir() or not given.out.absolute().parent.is_dir()):
        parser.error(f"--out = {given.out}: give a file in a folder that exists")
    size = QUICK if given.quick else Size()
    if given.overload_seconds is not None:
        if not 0 < given.overload_seconds <= 3_600:
            parser.error(f"--overload-seconds = {given.overload_seconds}: more than 0, at most 3,600")
        size = replace(size, overload_seconds=given.overload_seconds)
    if given.compare_rows is not None:
        if given.compare_rows < 100:
            parser.error(f"--compare-rows = {given.compare_rows}: at least 100")
        size = replace(size, compare_rows=given.compare_rows)
    if given.ingest_rows is not None:
        if given.ingest_rows < 1_000:
            parser.error(f"--ingest-rows = {given.ingest_rows}: at least 1,000")
        size = replace(size, ingest_rows=given.ingest_rows)
    return given.out, size, given.only


def show(
    figures: list[Figure], kinds: Iterable[str], about: dict[str, object], load: dict[str, float], quick: bool
) -> None:
    """The table, the machine, which figures miss their target, and which targets of these kinds have no figure."""
    print("Medians" + ("; tiny sizes that say nothing about speed" if quick else ""))
    print(table(figures))
    print(
        "value: a ratio is that of the medians, its range that of the single pairs; clock: cpu is CPU time of the "
        "process, wall is wall time"
    )
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(f"load average {load['start']} at the start, {load['end']} at the end")
    for figure in figures:
        if figure.note:
            print(f"{figure.name}: {figure.note}")
    missed = [figure for figure in figures if figure.met is False]
    for figure in missed:
        print(f"outside its target: {figure.name} = {figure.value:.3f}, {figure.target}")
    there = {figure.name for figure in figures}
    absent = {name: goal for kind in kinds for name, goal in TARGETS[kind].items() if name not in there}
    for name, goal in absent.items():
        print(f"not measured: {name}, {goal}{f': needs {goal.needs}' if goal.needs else ''}")
    if not missed and any(figure.target for figure in figures):
        print("every figure that was measured meets its target, if it has one")


if __name__ == "__main__":
    main()
