"""`make bench`: variants timed in turn, medians and ratios against their targets. It is no test: it ends with 0.

    make bench ARGS="--out FILE"

writes {"figures": [{"name", "value", "unit", "target", "met", ...}], "machine", "load", "quick"}. `value` is measured
in the clock that the figure names: CPU time of the process, the steadier one where other processes share the cores, or
wall time where several threads are compared.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy reads it when it is imported: a world's speed is that of one core

import learning
import machine
import ranking
import torch
import worlds
from figures import Figure, table
from rich.console import Console
from sizes import QUICK, Size


def main() -> None:
    """Measure, print, write."""
    out, size = arguments()
    about, before = machine.describe(), machine.load()
    torch.set_num_threads(1)  # of one operation; where two threads are compared, each has models of its own
    figures: list[Figure] = []
    for measure in (worlds.measure, learning.measure_stack, learning.measure_variants, ranking.measure):
        figures += measure(size)
    load = {"start": before, "end": machine.load()}
    show(figures, about, load, quick=size is QUICK)
    if out:
        entries = [figure.as_json() for figure in figures]
        results = {"figures": entries, "machine": about, "load": load, "quick": size is QUICK}
        out.write_text(json.dumps(results, indent=1) + "\n")


def arguments() -> tuple[Path | None, Size]:
    """The file to write, if any, and how much to measure."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure speed, print medians and ratios.")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; the figures say nothing")
    given = parser.parse_args()
    if given.out and (given.out.is_dir() or not given.out.absolute().parent.is_dir()):
        parser.error(f"--out = {given.out}: give a file in a folder that exists")
    return given.out, QUICK if given.quick else Size()


def show(figures: list[Figure], about: dict[str, object], load: dict[str, float], quick: bool) -> None:
    """The table, the machine, and which figures miss their target."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    console.print(table(figures, "Medians" + ("; tiny sizes that say nothing about speed" if quick else "")))
    console.print(
        "value: a ratio is that of the medians, its range that of the single pairs; clock: cpu is CPU time of the "
        "process, wall is wall time"
    )
    console.print(", ".join(f"{name} {value}" for name, value in about.items()), highlight=False)
    console.print(f"load average {load['start']} at the start, {load['end']} at the end", highlight=False)
    missed = [figure for figure in figures if figure.met is False]
    for figure in missed:
        console.print(f"[bold red]outside its target:[/] {figure.name} = {figure.value:.3f}, {figure.target}")
    if not missed:
        console.print("every figure with a target meets it")


if __name__ == "__main__":
    main()
