"""Slices of time for each contender in turn under three loads, and the figures that they give."""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median

from figures import Figure, ratio, single, speed
from interleave import Passes, progress_bar
from sizes import Size

from query_path.client import LoadClient, Slices
from query_path.contender import Contender
from query_path.system import Routed

BUSY = "32 in flight"
"""The load that the targets are stated for."""
LOADS: dict[str, dict[str, float]] = {
    BUSY: {"in_flight": 32},
    "4 in flight": {"in_flight": 4},
    "100 queries/s": {"rate": 100},
}
PUT_OFF = 1.0
"""Seconds in which the last comparisons are made."""
MORE, LONGER = 2, 4
"""So many more and longer slices for what comparisons cost: slices differ by as much as what is looked for, a tenth,
and what is put off is done on idle cores, which is cheaper."""
OURS = ("echo", "naive", "routed")
"""What is measured under every load; whoever else answers is a peer."""


def measure(size: Size, client: LoadClient, contenders: dict[str, Contender]) -> list[Figure]:
    """What a query costs, and how many are answered."""
    found: dict[str, dict[str, Slices]] = {}
    for load, how in LOADS.items():
        found[load] = {name: Slices() for name in contenders}
        rounds = size.slices if load == BUSY else max(1, size.slices // 2)
        with progress_bar(f"query path, {load}", rounds * len(contenders)) as advance:
            for contender in contenders.values():
                client.slice(contender, size.slice_seconds, **how)
            for _ in range(rounds):
                for name, contender in contenders.items():
                    client.measure(found[load][name], contender, size.slice_seconds, **how)
                    advance()
    return [*costs(found), *throughput(found[BUSY])]


def measure_shadow(size: Size, client: LoadClient, plain: Routed, shadow: Routed) -> list[Figure]:
    """What it costs to compare a tenth of the queries; what was put off at the end of a slice counts."""
    rounds, seconds, off, on = MORE * size.slices, LONGER * size.slice_seconds, Slices(), Slices()
    with progress_bar("query path, shadow", 2 * rounds) as advance:
        for contender in (plain, shadow):
            client.slice(contender, seconds, **LOADS[BUSY])
        before = shadow.settle()
        for _ in range(rounds):
            for contender, slices in ((plain, off), (shadow, on)):
                client.measure(slices, contender, seconds, put_off, **LOADS[BUSY])
                advance()
    made, passes = shadow.settle() - before, as_passes({"off": off, "shadow": on})
    note = (
        f"two replicas; {made / len(on.latencies):.3f} comparisons per query, 0.2 are all of a sampled tenth. "
        "Each takes one more ranking (the other side is the user's own answer), which is most of it: the router reads "
        "and compares a sampled query in 65 us alone, in 84 beside users' queries"
    )
    slowest = [over / under for over, under in zip(on.p99, off.p99, strict=True)]
    return [
        replace(ratio("CPU per query, shadow 10 % / off", passes, "shadow", "off"), note=note),
        cost(f"CPU per query, two replicas, {BUSY}", off),
        single(f"p99, shadow 10 % / off, {BUSY}", "x", slowest, "wall"),
    ]


def put_off() -> None:
    """Let the router finish; looking at its metrics meanwhile would cost what is measured."""
    time.sleep(PUT_OFF)


def costs(found: dict[str, dict[str, Slices]]) -> list[Figure]:
    """CPU per query under each load, beside the floor and the naive way."""
    figures = []
    for load, slices in found.items():
        passes = as_passes(slices)
        for under in ("echo", "naive"):
            figures.append(ratio(f"CPU per query, routed / {under}, {load}", passes, "routed", under))
        figures += [cost(f"CPU per query, {name}, {load}", slices[name]) for name in OURS]
    return figures


def throughput(busy: dict[str, Slices]) -> list[Figure]:
    """Answers per second; the client, the same single process for all, takes part of the cores."""
    passes = as_passes(busy)
    return [
        ratio(f"queries/s, routed / echo, {BUSY}", passes, "echo", "routed", clock="wall"),
        *(speed(f"queries/s, {name}, {BUSY}", "queries/s", passes[name], 1, clock="wall") for name in OURS),
    ]


def peers(busy: dict[str, Slices]) -> list[Figure]:
    """Peers in multiples of the routed query; see the package's docstring."""
    passes, figures = as_passes(busy), []
    for name in [name for name in busy if name not in OURS]:
        figures.append(ratio(f"CPU per query, {name} / routed", passes, name, "routed"))
        figures.append(ratio(f"queries/s, routed / {name}", passes, name, "routed", clock="wall"))
        figures.append(cost(f"CPU per query, {name}, {BUSY}", busy[name]))
    return figures


def as_passes(slices: dict[str, Slices]) -> dict[str, Passes]:
    """Seconds per answer as the seconds of a pass."""
    return {name: Passes(each.cpu, each.wall) for name, each in slices.items()}


def cost(name: str, slices: Slices) -> Figure:
    """Microseconds of CPU for each answer."""
    cpu, wall = ([seconds * 1e6 for seconds in each] for each in (slices.cpu, slices.wall))
    medians = {name: Passes(slices.cpu, slices.wall).medians()}
    return Figure(name, median(cpu), "us", min(cpu), max(cpu), "cpu", median(wall), medians)
