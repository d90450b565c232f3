"""What the processes' metrics pages say, as plain numbers."""

from __future__ import annotations

import math
import urllib.request
from collections.abc import Iterable, Mapping

from prometheus_client.parser import text_string_to_metric_families

Key = tuple[str, frozenset[tuple[str, str]]]
"""Name of a sample and its labels."""


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
        return sum(v for (n, found), v in self.samples.items() if n == name and labels.items() <= dict(found).items())

    def labels(self, name: str, label: str) -> list[str]:
        """The values of a label of this name's samples, sorted."""
        return sorted({dict(found)[label] for n, found in self.samples if n == name and label in dict(found)})


def scrape(ports: Mapping[str, int], seconds: float = 1.0) -> dict[str, Page]:
    """One page per process (name -> port of its metrics on this machine)."""
    pages: dict[str, Page] = {}
    for name, port in ports.items():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=seconds) as answer:
                pages[name] = Page(answer.read().decode())
        except (OSError, ValueError):
            pages[name] = Page()
    return pages


def joined(pages: Iterable[Page]) -> Page:
    """Pages of equal processes as one: equal samples are added."""
    whole = Page()
    for page in pages:
        for key, value in page.samples.items():
            whole.samples[key] = whole.samples.get(key, 0.0) + value
    return whole
