"""What a refresh costs: the slowest answers beside it, and how long a generation takes from its cut to all replicas."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median

from figures import Figure, single
from interleave import progress_bar
from sizes import Size

from query_path.client import LoadClient, Slices
from query_path.contender import Contender
from query_path.system import System

RATE, EVERY = 100.0, 1.0
"""Queries per second, and seconds between generations."""
ROUNDS = 4


def measure_p99(size: Size, client: LoadClient, contender: Contender, system: System) -> list[Figure]:
    """The slowest hundredth of the answers, with refreshes and without, in turn."""
    calm, refreshing, first = Slices(), Slices(), system.generation
    rounds = min(ROUNDS, size.slices)
    # cut before, for the one duplicate that is served: cutting is the trainer's work
    parts = {name: data for name, data in system.cut().items() if name in ("duplicate/0", "catalog")}
    with progress_bar("query path, refreshing", 2 * rounds) as advance:
        for _ in range(rounds):
            client.measure(calm, contender, size.refreshing_seconds, rate=RATE)
            advance()
            with publishing(system, parts):
                client.measure(refreshing, contender, size.refreshing_seconds, rate=RATE)
            advance()
    over, under = p99(refreshing.latencies), p99(calm.latencies)
    pairs = [a / b for a, b in zip(refreshing.p99, calm.p99, strict=True)]
    found = single("p99, refreshing every second / not", "x", pairs, "wall")
    megabytes = len(parts["duplicate/0"]) / 1e6
    note = (
        f"{over:.2f} / {under:.2f} ms, of {len(calm.latencies)} answers each, at {RATE:g} queries/s; "
        f"{system.generation - first} generations of {megabytes:.1f} MB, {system.model.sizes.items:,} items"
    )
    return [replace(found, value=over / under, note=note)]


def measure_delay(size: Size, system: System) -> list[Figure]:
    """From the start of cutting a generation until every replica answers from it; the floor is the way of its bytes."""
    served, moved, parts = list[float](), list[float](), system.cut()
    with progress_bar("query path, snapshots", size.snapshots) as advance:
        for _ in range(size.snapshots):
            moved.append(system.move(parts) * 1_000)
            system.model.learn()
            served.append(system.publish() * 1_000)
            advance()
    found = single("snapshot cut to served by every replica", "ms", served, "wall")
    sizes = ", ".join(f"{name} {len(data) / 1e6:.1f}" for name, data in parts.items())
    note = f"{len(system.replicas)} replicas, median {median(served):.0f} ms; MB: {sizes}"
    floor = single("snapshot through the store and nothing more", "ms", moved, "wall")
    return [replace(found, note=note), floor]


def p99(latencies: list[float]) -> float:
    """Of these, in their unit."""
    return sorted(latencies)[int(0.99 * len(latencies))]


@contextmanager
def publishing(system: System, parts: dict[str, bytes]) -> Iterator[None]:
    """A generation every second while the block lasts, each served before the next and before the block is left."""
    stop = threading.Event()

    def publish() -> None:
        while not stop.is_set():
            left = EVERY - system.publish(parts)
            stop.wait(max(left, 0.0))

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
