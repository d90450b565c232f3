"""What each part of the live system takes: sums of counts, each times a coefficient that was measured.

The counts stand here, once for the fit (tests/bench/scaling_size.py) and for its predictions; the coefficients in
laws.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

FIELDS, OTHER_ROWS = 10, 109
"""Of the synthetic world: fields of an event, and table rows of those that are neither users nor items."""
FLOAT = 4
"""Bytes."""


@dataclass(frozen=True)
class Workload:
    """What decides how much a process has to do, and to keep."""

    users: float
    items: float
    hash_rows: float = 0
    """Table rows for users, and as many for items; 0 for one each."""
    arms: int = 2
    duplicates: float = 4
    """That are learned, here by one trainer."""
    candidates: float = 200
    dim: int = 16
    hidden: tuple[int, ...] = (64, 32)
    events: float = 8_192
    """Of a generation."""

    @property
    def entities(self) -> float:
        """Users and items."""
        return self.users + self.items

    @property
    def rows(self) -> float:
        """Of a model's table."""
        limit = self.hash_rows or float("inf")
        return min(self.users, limit) + min(self.items, limit) + OTHER_ROWS

    @property
    def models(self) -> float:
        """That are learned."""
        return self.arms * self.duplicates

    @property
    def late(self) -> float:
        """Products per candidate: of all layers but the first, which is made beforehand."""
        return float(sum(a * b for a, b in zip(self.hidden, (*self.hidden[1:], 1), strict=True)))

    @property
    def dense(self) -> float:
        """Products per event in all layers."""
        return FIELDS * self.dim * self.hidden[0] + self.late

    @property
    def published(self) -> float:
        """Bytes of the weights of one duplicate of every arm."""
        return FLOAT * self.arms * (self.rows * self.dim + self.dense)

    @property
    def kept(self) -> float:
        """Bytes of the weights and optimiser states of all models."""
        return FLOAT * self.models * (self.rows * (self.dim + 1) + 2 * self.dense)

    @property
    def prepared(self) -> float:
        """Bytes of the first layer's part of every item, of all arms."""
        return FLOAT * self.arms * self.items * self.hidden[0]


@dataclass(frozen=True)
class Term:
    """One count, in words."""

    words: str
    count: Callable[[Workload], float]


@dataclass(frozen=True)
class Form:
    """The terms that a law adds up, and the cost that they add up to."""

    title: str
    unit: str
    """s or B."""
    terms: tuple[Term, ...]

    def counts(self, shape: Workload) -> list[float]:
        """In the order of the terms."""
        return [term.count(shape) for term in self.terms]


ONE = Term("", lambda s: 1.0)
ENTITIES = Term("(users + items)", lambda s: s.entities)
CANDIDATES = Term("candidates", lambda s: s.candidates)
PUBLISHED = Term("published bytes", lambda s: s.published)
PREPARED = Term("item parts' bytes", lambda s: s.prepared)
KEPT = Term("bytes of weights and optimisers", lambda s: s.kept)

FORMS: dict[str, Form] = {
    "router_query": Form("router: CPU of a query", "s", (ONE,)),
    "router_compared": Form("router: CPU of a query that is compared, more", "s", (ONE, CANDIDATES)),
    "router_report": Form("router: CPU of a report of 10 events", "s", (ONE,)),
    "router_memory": Form("router: memory", "B", (ONE, ENTITIES, CANDIDATES)),
    "replica_query": Form(
        "replica: CPU of a query",
        "s",
        (ONE, CANDIDATES, Term("candidates x late products", lambda s: s.candidates * s.late)),
    ),
    "replica_refresh": Form("replica: CPU to take up a generation", "s", (ONE, ENTITIES, PUBLISHED, PREPARED)),
    "replica_memory": Form("replica: memory", "B", (ONE, ENTITIES, PUBLISHED, PREPARED)),
    "trainer_generation": Form(
        "trainer: CPU of a generation",
        "s",
        (
            ONE,
            ENTITIES,
            Term("events", lambda s: s.events),
            Term("events x models", lambda s: s.events * s.models),
            Term("events x models x products", lambda s: s.events * s.models * s.dense),
            Term("events x models x dim", lambda s: s.events * s.models * s.dim),
            KEPT,
        ),
    ),
    "trainer_memory": Form("trainer: memory", "B", (ONE, ENTITIES, KEPT)),
    "store_report": Form("store: CPU of a report of 10 events", "s", (ONE,)),
    "store_generation": Form(
        "store: CPU of a generation",
        "s",
        (ONE, Term("published bytes x duplicates", lambda s: s.published * s.duplicates)),
    ),
    "duplicate_bytes": Form("store: bytes of a published duplicate", "B", (ONE, PUBLISHED)),
    "catalog_bytes": Form("store: bytes of a catalogue", "B", (ONE, ENTITIES)),
    "waiting_bytes": Form("store: bytes of an event that waits", "B", (ONE,)),
    "user_bytes": Form("network: users and router, per query", "B", (ONE,)),
    "rank_bytes": Form("network: router and replicas, per query", "B", (ONE,)),
}
"""Name -> what it is a sum of. Times are CPU seconds of all threads; memory is anonymous, at its most."""


@dataclass(frozen=True)
class Law:
    """A form with its coefficients."""

    form: Form
    coefficients: tuple[float, ...]
    worst: float
    """Largest error of the points that it was fitted to, as a share."""

    def __call__(self, shape: Workload) -> float:
        """Seconds or bytes."""
        return sum(c * n for c, n in zip(self.coefficients, self.form.counts(shape), strict=True))

    def words(self) -> str:
        """The terms that are not zero, such as `150 µs + 0.2 µs x candidates`."""
        quantity = quantity_of(self.form.unit)
        pairs = zip(self.coefficients, self.form.terms, strict=True)
        terms = [f"{quantity(c)}{' x ' + term.words if term.words else ''}" for c, term in pairs if c > 0]
        return " + ".join(terms) or "0"


@dataclass(frozen=True)
class Laws:
    """What was measured, when and where."""

    date: str
    machine: str
    laws: dict[str, Law]
    samples: dict[str, float]
    """Samples on the metrics page of a process, by kind."""
    maxima: dict[str, float]
    """The largest value of each count of a Workload that was measured: beyond it is extrapolation."""

    def __getitem__(self, name: str) -> Law:
        return self.laws[name]


@cache
def read_laws() -> Laws:
    """Those of laws.json beside this file."""
    return parsed(json.loads(files("simulator.size").joinpath("laws.json").read_text()))


def parsed(content: Mapping[str, Any]) -> Laws:
    """Of what `make scaling` writes."""
    laws = {name: Law(FORMS[name], tuple(one["coefficients"]), one["worst"]) for name, one in content["laws"].items()}
    return Laws(content["date"], content["machine"], laws, content["samples"], content["most"])


def quantity_of(unit: str) -> Callable[[float], str]:
    """How seconds or bytes are written."""
    return span if unit == "s" else size


def digits(value: float) -> str:
    """Three that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def span(seconds: float) -> str:
    """With the unit that suits it."""
    steps = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
    scale, unit = next((step for step in steps if seconds >= step[0]), (1e-12, "ps"))
    return f"{digits(seconds / scale)} {unit}"


def size(number: float) -> str:
    """Bytes, with the unit that suits them."""
    steps = ((2.0**50, "PiB"), (2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))
    scale, unit = next((step for step in steps if number >= step[0]), (1.0, "B"))
    return f"{digits(number / scale)} {unit}"
