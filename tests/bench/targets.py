"""What is aimed at, in one place: figures find their target here by name, and one that has no figure is told too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A bound on a figure."""

    bound: float
    at_most: bool = False
    """Whether the figure may not exceed the bound; else it may not fall below it."""
    needs: str = ""
    """What the figure takes that a machine may lack."""

    def met_by(self, value: float) -> bool:
        """Whether the value is on the right side."""
        return value <= self.bound if self.at_most else value >= self.bound

    def __str__(self) -> str:
        number = f"{self.bound:,.0f}" if self.bound >= 100 else f"{self.bound:.3g}"
        return f"{'at most' if self.at_most else 'at least'} {number}"


def at_most(bound: float, needs: str = "") -> Target:
    """A bound from above."""
    return Target(bound, at_most=True, needs=needs)


NATIVE = "the native engine"
TARGETS: dict[str, dict[str, Target]] = {
    "worlds": {"synthetic world": Target(500_000)},
    "learning": {
        "plain models / stacked step": Target(1.7, needs=NATIVE),
        "matrix products alone / stacked step": Target(0.65, needs=NATIVE),
        "smelu:beta=1 step / relu step": at_most(1.05, needs=NATIVE),
        "plain models / PyTorch engine, 2 threads": Target(2),
        "plain models, 2 threads / PyTorch engine, 2 threads": Target(1.2),
        "PyTorch engine / native engine": at_most(5, needs=NATIVE),
        "SmeLU / ReLU kernel, compiled": at_most(1.5, needs=NATIVE),
    },
    "own": {},  # what they cost is told, not aimed at
    "ranking": {"scoring, 8 queries a pass, split / its products": at_most(1.4)},
    "queries": {
        "CPU per query, routed / echo, 32 in flight": at_most(2.2),
        "CPU per query, routed / naive, 32 in flight": at_most(0.33),
        "queries/s, routed / echo, 32 in flight": Target(0.35),
        "CPU per query, shadow 10 % / off": at_most(1.12),
        "p99, refreshing every second / not": at_most(1.25),
        "snapshot cut to served by every replica": at_most(500),
    },
    "security": {},  # what it costs is told, not aimed at
    "shadow": {
        "CPU per query, shadow / echo, 32 in flight": at_most(3.5),
        "CPU per query, shadow, sample 10 % / none": at_most(1.15),
    },
    "overload": {
        "CPU per refusal / echo": at_most(0.5),
        "answered at 0.8 x capacity": Target(1),
        "served / capacity at 1.2 x": Target(0.95),
        "served / capacity less refusals at 2 x": Target(0.9),
        "served / capacity less refusals at 3 x": Target(0.9),
        "p99 of the served at 2 x / at 0.8 x": at_most(3),
        "p99 of the served at 3 x / at 0.8 x": at_most(3),
        "recovery after 3 x": at_most(1),
    },
    "compare": {
        "comparing two logs / reading them, grouped": at_most(6),
        "peak memory of comparing, grouped": at_most(1.5),
        "comparing two logs / reading them, shuffled": at_most(13),
        "peak memory of comparing, shuffled": at_most(1.5),
    },
    "ingest": {
        "ingesting CSV / reading it": at_most(3.5, needs=NATIVE),
        "ingesting Parquet / reading it": at_most(6, needs=NATIVE),
        "ingesting CSV without the native coder / reading it": at_most(6),
        "ingesting Parquet without the native coder / reading it": at_most(12),
        "peak anonymous memory of ingesting CSV": at_most(0.75),
        "peak anonymous memory of ingesting Parquet": at_most(0.75),
        "reading a log back": Target(25_000_000),
    },
    "memory": {"the live system, 2 arms x 3 duplicates": at_most(2.0, needs="full sizes")},
    "page": {
        "the live page, nobody looks": at_most(3, needs="full sizes, chromium"),
        "the live page, 3 browsers look": at_most(15, needs="full sizes, chromium"),
        "the live page in memory": at_most(150, needs="full sizes, chromium"),
    },
    "peers": {
        "CPU per query, ray_serve / routed": Target(8, needs="Ray Serve"),
        "queries/s, routed / ray_serve": Target(5, needs="Ray Serve"),
        "CPU per query, pytriton / routed": Target(1.8, needs="pytriton"),
    },
    "gpu": {
        "64 duplicates one after another / in one step": Target(20, needs="full sizes"),
        "SmeLU forward + backward, 67,108,864 floats": Target(0.85, needs="full sizes"),
        "scoring 32 queries x 1,000 candidates": at_most(300, needs="full sizes"),
    },
}
"""What is measured -> name of a figure -> its target; those of a GPU are for an H200, all others for two CPU cores."""


def target(name: str) -> Target | None:
    """That of a figure, if it has one."""
    return next((found[name] for found in TARGETS.values() if name in found), None)
