"""What the processes' metrics pages say, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http.client import HTTPException

from prometheus_client.parser import text_string_to_metric_families

from simulator.security.credentials import PLAIN, Credentials
from simulator.security.pages import fetch

Key = tuple[str, frozenset[tuple[str, str]]]
"""Name of a sample and its labels."""
STARTED: Key = ("process_start_time_seconds", frozenset())
COUNTER_ENDS = ("_total", "_count", "_sum", "_bucket")
"""How the names of samples end that only grow, as long as their process lives."""


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
