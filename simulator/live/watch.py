"""What is known of the running system, second by second: gauges, sums for the summary, memory."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from simulator.live.gauges import Page, joined, scrape

TREND = 8
"""Seconds of swap ratios that are kept to draw."""
BLOCK = 5.0
"""Seconds between the sums that intervals are made from."""
CAUSES = {"duplicate": "swaps", "refresh": "refresh_swaps"}
"""Cause of a live comparison -> what result.json calls its swaps."""
SWAPS = {
    "slot": ("swapped_slots", "compared_slots"),
    "top1": ("swapped_first_items", "compared"),
    "set": ("missing_items", "compared_slots"),
    "pair": ("swapped_pairs", "compared_pairs"),
    "rbo": ("summed_rbo_distance", "compared"),
}
"""Swap measure -> the two counters (flicker_NAME_total of the router) whose quotient it is."""
DIFFERENCES = {
    "pd": ("summed_prediction_difference", "compared_candidates"),
    "pd_ranking": ("summed_prediction_difference_ranking", "compared_candidates"),
}
Sums = dict[tuple[str, str, str], float]
"""(arm, cause, counter) -> its value."""


@dataclass
class Watch:
    """The processes' pages of the last second, and what led there."""

    ports: dict[str, int]
    started: float = field(default_factory=time.monotonic)
    trainer: Page = field(default_factory=Page)
    router: Page = field(default_factory=Page)
    load: Page = field(default_factory=Page)
    replicas: Page = field(default_factory=Page)
    trend: dict[tuple[str, str], deque[float]] = field(default_factory=dict)
    """(arm, cause) -> the live pair-swap ratio of the last seconds."""
    first: dict[str, float] = field(default_factory=dict)
    """What -> seconds from the start until it was first seen: `answer`, `gauge`."""
    memory: int = 0
    """Resident bytes of all processes now."""
    peak_memory: int = 0
    blocks: list[Sums] = field(default_factory=list)
    """The router's sums of comparisons, every BLOCK seconds."""
    refreshes: int = 0
    """Generations published so far after the first."""

    def look(self, pids: list[int]) -> None:
        """Read all pages, and the sizes of these processes, once."""
        pages = scrape(self.ports)
        self.router = pages["router"]
        if pages["trainer"].samples:  # what one that has died said last is still so: its generation is served
            self.trainer = pages["trainer"]
        self.load = pages.get("load", Page())
        self.replicas = joined(page for name, page in pages.items() if name.startswith("replica"))
        generation = self.trainer.value("flicker_generation")
        if not math.isnan(generation):
            self.refreshes = max(self.refreshes, int(generation) - 1)
        for arm in self.arms():
            for cause in ("duplicate", "refresh"):
                ratio = self.router.value("flicker_swap_ratio", arm=arm, cause=cause, measure="pair")
                if not math.isnan(ratio):
                    self.trend.setdefault((arm, cause), deque(maxlen=TREND)).append(ratio)
                    self._seen("gauge")
        if self.router.total("flicker_router_queries_total", code="OK"):
            self._seen("answer")
        if self.seconds() >= BLOCK * len(self.blocks):
            self.blocks.append(self._sums())
        self.memory = sum(map(resident, pids))
        self.peak_memory = max(self.peak_memory, self.memory)

    def arms(self) -> list[str]:
        """Labels of the arms, as soon as the trainer knows how good they are."""
        return self.trainer.labels("flicker_progressive_log_loss", "arm")

    def _sums(self) -> Sums:
        names = {name for pair in (*SWAPS.values(), *DIFFERENCES.values()) for name in pair}
        return {
            (arm, cause, name): self.router.total(f"flicker_{name}_total", arm=arm, cause=cause)
            for arm in self.arms()
            for cause in CAUSES
            for name in names
        }

    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    def _seen(self, what: str) -> None:
        self.first.setdefault(what, self.seconds())


def resident(pid: int) -> int:
    """Resident bytes of a process; 0 where the system does not say."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
