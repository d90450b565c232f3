"""`make bench-gpu`: the figures of a GPU, in the table of `make bench`; timed with CUDA events, variants in turn.

    make bench-gpu ARGS="--out FILE"

Without a GPU it says so in one line and ends with 2, as every command does that cannot do what it was asked for: who
collects figures must not take silence for success.
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
from plain import PlainLearner, plain_copies
from query_path.model import build
from run import show
from simulator.models.gpu import fused
from simulator.models.gpu.graphs import CudaGraphs
from simulator.models.gpu.scoring import GpuRanker, GpuRankers
from simulator.models.learner import Learner
from sizes import QUICK, Size

from simulator.config import NoiseConfig
from simulator.models.duplicates import Duplicates, parse_arms
from simulator.randomness import generator

DUPLICATES, QUERIES, CANDIDATES = 64, 32, 1_000
ELEMENTS = 1 << 26
"""Floats of the activation: 268 MB, far more than any cache."""
MOVED, COPIED = 20, 8
"""Bytes per float that SmeLU's forward and backward pass move, and that a copy does."""
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
    if fused.problem():
        print(f"device = cuda: {fused.problem()}: run it on a machine with an NVIDIA GPU", file=sys.stderr)
        sys.exit(2)
    size, before = QUICK if given.quick else Size(), machine.load()
    about = machine.describe() | {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    figures = [*measure_smelu(size), *measure_learning(size), *measure_scoring(size)]
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


def measure_smelu(size: Size) -> list[Figure]:
    """SmeLU's two passes, and those of a whole layer behind its matrix product, beside a copy of the same memory."""
    count, width = (1 << 12, 16) if size is QUICK else (ELEMENTS, 128)
    x, grad = torch.randn(1, count, device="cuda"), torch.randn(1, count, device="cuda")
    beta, bias, gain = torch.ones(1, device="cuda"), torch.zeros(1, width, device="cuda"), torch.ones(1, width).cuda()
    there, other = torch.empty_like(x), torch.empty(2 * count, device="cuda")
    product, upstream = (tensor.view(1, -1, width) for tensor in (x, grad))

    def both(number: int) -> None:
        fused.smelu_forward(x, beta)
        fused.smelu_backward(grad, x, beta)

    def layer(number: int) -> None:
        _, mean, scale = fused.layer_forward(product, beta, bias, gain)
        fused.layer_backward(upstream, (product, mean, scale), beta, bias, gain)

    def fill() -> None:  # 0.1 ms or more, and nothing of what is measured is left in the cache
        other.zero_()

    variants: dict[str, Work] = {"copy": lambda number: there.copy_(x), "SmeLU": both, "layer": layer}
    passes = in_turn("SmeLU", variants, size, fill)
    found = [speed("copy", "bytes/s", passes["copy"], COPIED * count, clock="wall")]
    for name in ("SmeLU", "layer"):
        pairs = zip(passes["copy"].wall, passes[name].wall, strict=True)
        shares = [MOVED / COPIED * copied / took for copied, took in pairs]
        unit = "of a copy's bytes/s"
        found.append(single(f"{name} forward + backward, {count:,} floats", unit, shares, "wall"))
    note = f"bound by memory: {MOVED} bytes a float (x read twice, y written, a gradient read and written)"
    return [*found[:1], *(replace(each, note=note) for each in found[1:])]


def measure_learning(size: Size) -> list[Figure]:
    """Many duplicates in one step: against plain models one after another, and against the same code one by one."""
    size = replace(size, duplicates=2 if size is QUICK else DUPLICATES)
    chunks = learning.make_chunks(size)
    data = [(torch.from_numpy(c.features).cuda(), torch.from_numpy(c.label).cuda()) for c in chunks]
    noise = NoiseConfig(window=size.window)
    stacked = learner(size, size.duplicates, noise)
    lone = [learner(size, 1, noise) for _ in range(size.duplicates)]
    plain = [PlainLearner(model.cuda(), size.model) for model in plain_copies(stacked.stack)]
    variants: dict[str, Work] = {
        "stacked": lambda number: stacked.learn(chunks[number % len(chunks)]),
        "one by one": lambda number: [each.learn(chunks[number % len(chunks)]) for each in lone],
        "plain models": lambda number: [each.learn(*data[number % len(data)]) for each in plain],
    }
    passes = in_turn(f"{size.duplicates} duplicates", variants, size)
    examples = size.events * size.duplicates
    note = (
        "plain models wait for their launches; the stacked step for its matrix products, the tables' rows and the "
        "orders that the CPU draws for each duplicate. Against our own steps one by one, which are replayed from a "
        "graph too, the gain is smaller: the next row"
    )
    return [
        replace(
            ratio(f"{size.duplicates} plain models / stacked step", passes, "plain models", "stacked", "wall"),
            note=note,
        ),
        ratio(f"{size.duplicates} stacks of one / stacked step", passes, "one by one", "stacked", clock="wall"),
        speed("stacked step", "model-examples/s", passes["stacked"], examples, clock="wall"),
    ]


def learner(size: Size, duplicates: int, noise: NoiseConfig) -> Learner:
    """Of one SmeLU arm, on the GPU."""
    arms = parse_arms(("smelu:beta=1",))
    stack = Duplicates(
        learning.schema(size), arms, size.model, noise, fleets=1, duplicates=duplicates, seed=0, device="cuda"
    )
    return Learner(stack, noise, seed=0)


def measure_scoring(size: Size) -> list[Figure]:
    """A whole call, from numbers on the host to scores on the host: replayed, and launched one kernel at a time."""
    count = size.candidates if size is QUICK else CANDIDATES
    made, draws = build(size.sized), generator(0, "asked")
    users = draws.integers(0, len(made.encoder.user_rows), QUERIES)
    items = draws.integers(0, len(made.encoder.item_rows), (QUERIES, count))
    slots = sum(field.slots for field in made.schema.fields if field.side == "context")
    context = np.ones((QUERIES, slots), np.int32)
    tensors = {"embedding": made.stack.embedding[:1], "dense": made.stack.dense[:1]}

    def ranker(rankers: GpuRankers) -> GpuRanker:
        rows = made.encoder.user_rows, made.encoder.item_rows
        return rankers(made.schema, ["smelu:beta=1"], made.stack.model, tensors, *rows)

    graphed, launched = ranker(GpuRankers(graphs=CudaGraphs)), ranker(GpuRankers(graphs=lambda: lambda work: work))

    def calls(ranker: GpuRanker) -> Work:
        return lambda number: [ranker.scores(0, users, context, items) for _ in range(CALLS)]

    variants = {"graph": calls(graphed), "launches": calls(launched)}
    name = f"scoring {QUERIES} queries x {count:,} candidates"
    passes = in_turn(name, variants, size)
    note = "from numbers on the host to scores on the host: both copies, launch and waiting included"
    micros = [seconds / CALLS * 1e6 for seconds in passes["graph"].wall]
    return [
        replace(single(name, "us", micros, "wall"), note=note),
        ratio(f"{name}, one launch after another / graph", passes, "launches", "graph", clock="wall"),
    ]


if __name__ == "__main__":
    main()
