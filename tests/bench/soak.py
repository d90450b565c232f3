"""`make soak`: a real system under load for a long time, with a refresh a second, and how much its processes grow.

`flicker up` runs with several routers, replicas and traffic that reports clicks, on a store of ours. After a warm-up a
line is fitted through what the processes of each kind hold: resident memory, open files, threads. None may grow by more
than 1 % of what it was from the end of the warm-up to the end of the run, and no query or report may fail.

The store remembers the keys of reports for an hour, as it is meant to: that memory is taken off, and said.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import redis

from simulator.config import require
from simulator.errors import FlickerError
from simulator.live.processes import RUN
from tests.bench.machine import describe
from tests.bench.under_load import Broken, System, names_of, queries

KINDS = ("router", "replica", "trainer", "store")
HELD = ("megabytes", "files", "threads")
"""What a process holds; the first is its resident memory less what it is meant to remember."""
MOST = 0.01
"""Growth that is allowed, as a share."""
WARM_UP = 0.4
"""Share of the run that does not count: caches fill, and allocators find out how much they need at once."""
EVERY = 1.0
"""Seconds between two samples."""


@dataclass(frozen=True)
class Growth:
    """A line through samples."""

    start: float
    """Its value where the warm-up ends."""
    per_hour: float
    """Its slope, as a share of `start`."""
    over_run: float
    """How much it grew from the end of the warm-up to the end, as a share of `start`."""

    @staticmethod
    def of(seconds: Sequence[float], values: Sequence[float]) -> Growth:
        """Least squares through the samples after the warm-up."""
        at, value = np.array(seconds), np.array(values)
        kept = at >= at[0] + WARM_UP * (at[-1] - at[0])
        at, value = at[kept] - at[kept][0], value[kept]
        slope = 0.0 if len(at) < 2 else np.polyfit(at, value, 1)[0]
        start = float(value.mean() - slope * at.mean())
        share = float(slope) / start if start else 0.0
        return Growth(start, 3_600 * share, float(at[-1]) * share)


@dataclass
class Samples:
    """What all processes of a kind held together, at these seconds."""

    seconds: list[float] = field(default_factory=list)
    held: dict[tuple[str, str], list[float]] = field(
        default_factory=lambda: {(kind, what): [] for kind in KINDS for what in HELD}
    )
    remembered: list[float] = field(default_factory=list)
    """Megabytes of the store that hold the keys of reports."""

    def take(self, at: float, processes: dict[str, list[psutil.Process]], remembered: float) -> None:
        """One sample. Raises Broken where a process has ended."""
        self.seconds.append(at)
        self.remembered.append(remembered)
        for kind, several in processes.items():
            try:
                megabytes = sum(one.memory_info().rss for one in several) / 1e6
                self.held[kind, "megabytes"].append(megabytes - remembered * (kind == "store"))
                self.held[kind, "files"].append(sum(one.num_fds() for one in several))
                self.held[kind, "threads"].append(sum(one.num_threads() for one in several))
            except psutil.Error as problem:
                raise Broken(f"a {kind} has ended: {problem}") from None


@dataclass
class Findings:
    """What came of it."""

    samples: Samples
    load: dict[str, Any]
    refreshes: float
    """Generations that were published while samples were taken."""

    def growth(self) -> dict[tuple[str, str], Growth]:
        """Of each kind of process, what it holds."""
        return {key: Growth.of(self.samples.seconds, values) for key, values in self.samples.held.items()}

    def failures(self) -> list[str]:
        """What must not be, a line each."""
        grown = [
            f"{kind}: {what} grew by {growth.over_run:.2%}"
            for (kind, what), growth in self.growth().items()
            if growth.over_run > MOST
        ]
        failed = {"queries": self.load["failures"], "reports": self.load["feedback"]["failures"]}
        return grown + [f"{sum(codes.values())} {what} failed: {codes}" for what, codes in failed.items() if codes]

    def table(self) -> str:
        """For LOG.md."""
        machine, samples = describe(), self.samples
        seconds = samples.seconds[-1] - samples.seconds[0]
        lines = [
            f"{datetime.now():%Y-%m-%d %H:%M}, {machine['cpu']}, {machine['cores']} cores, {seconds:.0f} s, of which "
            f"the last {(1 - WARM_UP) * seconds:.0f} s count; a refresh each {seconds / max(1, self.refreshes):.1f} s"
        ]
        for (kind, what), growth in self.growth().items():
            slope = f"{growth.per_hour:+8.2%} an hour, {growth.over_run:+7.2%} over what counts"
            lines.append(f"{kind:<10}{growth.start:9.1f} {what:<11}{slope}")
        lines.append(f"the store remembers reports in {samples.remembered[-1]:.1f} MB, which are not in its figure")
        return "\n".join([*lines, queries(self.load), *(self.failures() or ["nothing grew, nothing failed"])])


def soak(folder: Path, seconds: float, rate: float, seed: int) -> Findings:
    """The whole run. Raises Broken."""
    system, samples = System(folder, rate, seconds, seed), Samples()
    try:
        system.begin()
        processes = {kind: [system.running(name) for name in names_of(kind)] for kind in KINDS if kind != "store"}
        assert system.store.process is not None
        processes["store"] = [psutil.Process(system.store.process.pid)]
        started, first = time.monotonic(), system.page("trainer").value("flicker_generation")
        with redis.Redis.from_url(system.store.url) as client:
            while (now := time.monotonic() - started) < seconds:
                system.look()
                samples.take(now, processes, remembered(client))
                time.sleep(EVERY)
        refreshes = system.page("trainer").value("flicker_generation") - first
        return Findings(samples, system.end(), refreshes)
    finally:
        system.close()


def remembered(client: redis.Redis) -> float:
    """Megabytes of the keys of reports."""
    names = (f"flicker:{RUN}:log:keys", f"flicker:{RUN}:log:keys:before")
    return sum(client.memory_usage(name, samples=5) or 0 for name in names) / 1e6


def main() -> None:
    """Exit code 1 where something grew or failed, or the system broke."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="under load (default: 30)")
    parser.add_argument("--rate", type=float, default=50.0, help="queries per second (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of world and traffic (default: 0)")
    flags = parser.parse_args()
    try:
        require(0.25 <= flags.minutes < float("inf"), "minutes", flags.minutes, "at least 0.25")
    except FlickerError as problem:
        parser.error(str(problem))
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        try:
            findings = soak(Path(folder), 60 * flags.minutes, flags.rate, flags.seed)
        except Broken as problem:
            sys.exit(f"soak: {problem}")
    print(findings.table())
    sys.exit(bool(findings.failures()))


if __name__ == "__main__":
    main()
