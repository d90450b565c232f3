"""`make bench-gpu`: the figures of a GPU, in the table of `make bench`; timed with CUDA events, variants in turn.

    make bench-gpu ARGS="--out FILE"

It takes a few minutes. Without a GPU it says so in one line and ends with 2, as every command does that cannot do what
it was asked for: who collects figures must not take silence for success.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import learning
import machine
import numpy as np
import torch
from figures import Figure, ratio, single, speed
from interleave import Passes, progress_bar
from query_path.model import build
from run import show
from sizes import QUICK, Size

from simulator.config import NoiseConfig
from simulator.errors import SettingError
from simulator.models.activations import activation
from simulator.models.engine import check_device
from simulator.models.torch_engine import TorchEngine
from simulator.randomness import generator

SMELU = "smelu:beta=1"
ROUNDS, DUPLICATES, QUERIES, CANDIDATES = 7, 64, 32, 1_000
ELEMENTS = 1 << 26
"""Floats of the activation: 268 MB, far more than any cache."""
MOVED, COPIED = 20, 8
"""Bytes per float that SmeLU's forward and backward pass have to move, and that a copy does."""
CALLS = 20
"""Calls of a pass of scoring, one after another: one alone would find the caches cold after the progress bar's work."""
Work = Callable[[int], object]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="make bench-gpu", description="Measure speed on a GPU.")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; the figures say nothing")
    given = parser.parse_args()
    if given.out and (given.out.is_dir() or not given.out.absolute().parent.is_dir()):
        parser.error(f"--out = {given.out}: give a file in a folder that exists")
    try:
        check_device("cuda")
    except SettingError:
        print("nothing measured: no GPU is visible to PyTorch here; run it where there is one", file=sys.stderr)
        sys.exit(2)
    size, before = QUICK if given.quick else replace(Size(), rounds=ROUNDS), machine.load()
    about = machine.describe() | {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    figures = [*measure_learning(size), *measure_smelu(size), *measure_scoring(size)]
    load = {"start": before, "end": machine.load()}
    show(figures, ["gpu"], about, load, quick=given.quick)
    if given.out:
        entries = [figure.as_json() for figure in figures]
        results = {"figures": entries, "machine": about, "load": load, "quick": given.quick}
        given.out.write_text(json.dumps(results, indent=1) + "\n")


def nothing() -> None:
    """Work that takes no time."""


def in_turn(
    label: str, variants: dict[str, Work], size: Size, before: Callable[[], object] = nothing
) -> dict[str, Passes]:
    """As `interleave`, but wall time is that between two events on the GPU's own clock.

    `before` keeps the GPU busy while the host launches what is measured, if its launches are not to be measured too.
    """
    passes = {name: Passes() for name in variants}
    with progress_bar(label, (size.warm_up + size.rounds) * len(variants)) as advance:
        for number in range(size.warm_up + size.rounds):
            for name, work in variants.items():
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
                cpu = time.process_time()
                before()
                start.record()
                work(number)
                end.record()
                end.synchronize()
                if number >= size.warm_up:
                    passes[name].cpu.append(time.process_time() - cpu)
                    passes[name].wall.append(start.elapsed_time(end) / 1_000)
                advance()
    return passes


def measure_learning(size: Size) -> list[Figure]:
    """Many duplicates in one step, against the same engine with one model at a time."""
    size = replace(size, duplicates=2 if size is QUICK else DUPLICATES)
    chunks, noise, one = learning.make_chunks(size), NoiseConfig(window=size.window), replace(size, duplicates=1)
    stacked = learning.sized_engine(TorchEngine, size, SMELU, noise, device="cuda")
    lone = [learning.sized_engine(TorchEngine, one, SMELU, noise, device="cuda") for _ in range(size.duplicates)]
    variants: dict[str, Work] = {
        "in one step": lambda number: stacked.learn(chunks[number % len(chunks)]),
        "one by one": lambda number: [each.learn(chunks[number % len(chunks)]) for each in lone],
    }
    passes = in_turn(f"{size.duplicates} duplicates", variants, size)
    name, examples = f"{size.duplicates} duplicates one after another / in one step", size.events * size.duplicates
    return [
        ratio(name, passes, "one by one", "in one step", clock="wall"),
        speed(f"{size.duplicates} duplicates in one step", "model-examples/s", passes["in one step"], examples, "wall"),
    ]


def measure_smelu(size: Size) -> list[Figure]:
    """SmeLU's two passes beside a copy of the same memory: as PyTorch runs the formula, and made one kernel by it."""
    count = 1 << 12 if size is QUICK else ELEMENTS
    x, grad = torch.randn(count, device="cuda", requires_grad=True), torch.randn(count, device="cuda")
    there, other, function = torch.empty_like(grad), torch.empty(2 * count, device="cuda"), activation(SMELU)

    def both(function: Callable[[torch.Tensor], torch.Tensor]) -> Work:
        return lambda number: torch.autograd.grad(function(x), x, grad)

    variants: dict[str, Work] = {
        "copy": lambda number: there.copy_(grad),
        "compiled": both(torch.compile(function)),
        "as it runs": both(function),
    }
    # what is set to zero takes 0.1 ms or more, and leaves nothing of what is measured in the cache
    passes = in_turn("SmeLU", variants, size, lambda: other.zero_())
    name, unit, figures = f"SmeLU forward + backward, {count:,} floats", "of a copy's bytes/s", list[Figure]()
    least = f"bound by memory: {MOVED} bytes a float (x read twice, y written, a gradient read and written)"
    notes = {
        "compiled": f"{least}; the formula through torch.compile, which the engine leaves out",
        "as it runs": f"{least}; PyTorch's operations one by one, as in the engine, move 3 times as much",
    }
    for variant, note in notes.items():
        pairs = zip(passes["copy"].wall, passes[variant].wall, strict=True)
        shares = [MOVED / COPIED * copied / took for copied, took in pairs]
        full = name if variant == "compiled" else f"{name}, {variant}"
        figures.append(replace(single(full, unit, shares, "wall"), note=note))
    return [*figures, speed("copy", "bytes/s", passes["copy"], COPIED * count, clock="wall")]


def measure_scoring(size: Size) -> list[Figure]:
    """A whole call, from numbers on the host to scores on the host."""
    count = size.candidates if size is QUICK else CANDIDATES
    made, draws = build(size.sized), generator(0, "asked")
    users = draws.integers(0, len(made.encoder.user_rows), QUERIES)
    items = draws.integers(0, len(made.encoder.item_rows), (QUERIES, count))
    slots = sum(field.slots for field in made.schema.fields if field.side == "context")
    context, ranker = np.ones((QUERIES, slots), np.int32), made.ranker("cuda", SMELU)

    def calls(number: int) -> None:
        for _ in range(CALLS):
            ranker.scores(users, context, items)

    name = f"scoring {QUERIES} queries x {count:,} candidates"
    passes = in_turn(name, {"scoring": calls}, size)
    note = "from numbers on the host to scores on the host: both copies, launches and waiting included"
    return [replace(single(name, "us", [took / CALLS * 1e6 for took in passes["scoring"].wall], "wall"), note=note)]


if __name__ == "__main__":
    main()
