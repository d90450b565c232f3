"""What is known of the running system, second by second: metrics pages as numbers, sums for the summary, memory."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from simulator.security.credentials import PLAIN, Credentials
from simulator.security.pages import fetch

Key = tuple[str, frozenset[tuple[str, str]]]
"""Name of a sample and its labels."""
STARTED: Key = ("process_start_time_seconds", frozenset())
COUNTER_ENDS = ("_total", "_count", "_sum", "_bucket")
"""How the names of samples end that only grow, as long as their process lives."""
TREND = 8
"""Seconds of swap ratios that are kept to draw."""
WINDOW = 60.0
"""Seconds that the live ratios look back."""
BLOCK = 5.0
"""Seconds between the sums that intervals are made from."""
CAUSES = {"duplicate": "swaps", "refresh": "refresh_swaps"}
"""Cause of a live comparison -> what result.json calls its swaps."""
Sums = dict[tuple[str, str, str], tuple[float, float]]
"""(arm, cause, measure) -> numerator and denominator; none where nothing was compared."""


class Page:
    """The samples of one scrape of one process; empty where it did not answer."""

    def __init__(self, text: str = "") -> None:
        self.samples: dict[Key, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.samples[(sample.name, frozenset(sample.labels.items()))] = sample.value

    def value(self, name: str, **labels: str) -> float:
        """The sample with exactly these labels, NaN where there is none."""
        return self.samples.get((name, frozenset(labels.items())), math.nan)

    def total(self, name: str, **labels: str) -> float:
        """Sum of all samples of this name that carry these labels (and perhaps others); 0 where there is none."""
        return sum(v for (n, pairs), v in self.samples.items() if n == name and labels.items() <= dict(pairs).items())

    def labels(self, name: str, label: str) -> list[str]:
        """The values of a label of this name's samples, sorted."""
        return sorted({dict(pairs)[label] for n, pairs in self.samples if n == name and label in dict(pairs)})


def scrape(ports: Mapping[str, int], seconds: float = 1.0, credentials: Credentials = PLAIN) -> dict[str, Page]:
    """One page per process (name -> port of its metrics on this machine)."""
    return {name: read(f"127.0.0.1:{port}", seconds, credentials) for name, port in ports.items()}


def read(address: str, seconds: float = 1.0, credentials: Credentials = PLAIN, name: str = "") -> Page:
    """The metrics page of the process at host:port, whose certificate must bear the name, or else the host."""
    try:
        return Page(fetch(address, credentials, seconds, name))
    except (OSError, ValueError, HTTPException):
        return Page()


class Counters:
    """Counters of equal processes, added up over all of them and over their restarts, after which each begins at 0."""

    def __init__(self) -> None:
        self.page = Page()
        """The sums; processes that are away keep their part."""
        self._last: dict[str, dict[Key, float]] = {}

    def add(self, pages: Mapping[str, Page]) -> None:
        """What these processes (by name) count now."""
        for process, page in pages.items():
            last = self._last.setdefault(process, {})
            if page.samples.get(STARTED) != last.get(STARTED) and page.samples:
                last.clear()
                last[STARTED] = page.samples.get(STARTED, 0.0)
            for key, value in page.samples.items():
                if key[0].endswith(COUNTER_ENDS):
                    before = last.get(key, 0.0)
                    grown = value - before if value >= before else value
                    self.page.samples[key] = self.page.samples.get(key, 0.0) + grown
                    last[key] = value


@dataclass
class Watch:
    """The processes' pages of the last second, and what led there."""

    ports: dict[str, int]
    credentials: Credentials = PLAIN
    """What the pages ask for."""
    started: float = field(default_factory=time.monotonic)
    trainer: Page = field(default_factory=Page)
    routers: dict[str, Page] = field(default_factory=dict)
    """By name; an empty page for one that did not answer."""
    load: Page = field(default_factory=Page)
    counters: Counters = field(default_factory=Counters)
    """Of all routers together."""
    recent: deque[tuple[float, Sums]] = field(default_factory=lambda: deque([(0.0, {})]))
    """Seconds since the start, and the routers' sums of comparisons then: now and back to WINDOW ago."""
    trend: dict[tuple[str, str], deque[float]] = field(default_factory=dict)
    """(arm, cause) -> the live pair-swap ratio of the last seconds."""
    first: dict[str, float] = field(default_factory=dict)
    """What -> seconds from the start until it was first seen: `answer`, `gauge`."""
    memory: int = 0
    """Resident bytes of all processes now."""
    peak_memory: int = 0
    blocks: list[Sums] = field(default_factory=list)
    """The routers' sums of comparisons, every BLOCK seconds."""
    refreshes: int = 0
    """Generations published so far after the first."""

    def look(self, pids: list[int]) -> None:
        """Read all pages, and the sizes of these processes, once."""
        self.take(scrape(self.ports, credentials=self.credentials))
        if self.seconds() >= BLOCK * len(self.blocks):
            self.blocks.append(self.recent[-1][1])
        self.memory = sum(map(resident, pids))
        self.peak_memory = max(self.peak_memory, self.memory)

    def take(self, pages: Mapping[str, Page]) -> None:
        """The pages of this moment: `trainer`, `load`, and those of routers, whose names begin with `router`."""
        if pages["trainer"].samples:  # what one that has died said last is still so: its generation is served
            self.trainer = pages["trainer"]
        self.load = pages.get("load", Page())
        self.see({name: page for name, page in pages.items() if name.startswith("router")})
        generation = self.trainer.value("flicker_generation")
        if not math.isnan(generation):
            self.refreshes = max(self.refreshes, int(generation) - 1)
        for arm in self.arms():
            for cause in ("duplicate", "refresh"):
                ratio = self.ratio("pair", arm, cause)
                if not math.isnan(ratio):
                    self.trend.setdefault((arm, cause), deque(maxlen=TREND)).append(ratio)
                    self._seen("gauge")
        if self.router.total("flicker_router_queries_total", code="OK"):
            self._seen("answer")

    def see(self, routers: dict[str, Page]) -> None:
        """The routers' pages of this moment, by name."""
        self.routers = routers
        self.counters.add(routers)
        now = self.seconds()
        self.recent.append((now, self._sums()))
        while self.recent[1][0] < now - WINDOW:
            self.recent.popleft()

    @property
    def router(self) -> Page:
        """Counters alone, added up over all routers."""
        return self.counters.page

    def lowest(self, name: str, **labels: str) -> float:
        """A gauge as that router has it which has the least, of those that answer; NaN where none does."""
        values = [page.value(name, **labels) for page in self.routers.values()]
        return min((value for value in values if not math.isnan(value)), default=math.nan)

    def ratio(self, measure: str, arm: str, cause: str) -> float:
        """One of MEASURES over the last WINDOW seconds and all routers, sum / sum; NaN where nothing was compared."""
        now, before = (sums.get((arm, cause, measure), (0.0, 0.0)) for _, sums in (self.recent[-1], self.recent[0]))
        over, under = now[0] - before[0], now[1] - before[1]
        return over / under if under > 0 else math.nan

    def arms(self) -> list[str]:
        """Labels of the arms, as soon as the trainer knows how good they are."""
        return self.trainer.labels("flicker_progressive_log_loss", "arm")

    def _sums(self) -> Sums:
        """Of all that the routers compared."""
        sums: Sums = {}
        for (name, labels), total in self.router.samples.items():
            if name == "flicker_compared_total":
                values = dict(labels)
                part = self.router.samples.get(("flicker_differences_total", labels), 0.0)
                sums[values["arm"], values["cause"], values["measure"]] = part, total
        return sums

    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    def _seen(self, event: str) -> None:
        self.first.setdefault(event, self.seconds())


def resident(pid: int) -> int:
    """Resident bytes of a process; 0 where the system does not say."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
