"""From a demand to processes and machines: each part by its law, and the limits that more machines do not lift."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from simulator.config import require
from simulator.size.laws import Laws, Workload, digits, size, span
from simulator.store.protocol import KEPT

DAY = 86_400.0
SLATE = 10
"""Events of a report: those of a slate."""
CONNECTIONS = 4_096
"""That a server takes at most: serving/rpc.py."""
SAMPLE_BYTES, SERIES_BYTES, SCRAPE = 2.0, 4_096.0, 5.0
"""Prometheus: bytes of a sample on disk (its manual says 1 to 2), memory of a series (a rule of thumb), seconds between
scrapes. Not measured here."""
MAX_COUNT = 1e15
"""Of any count: beyond it nothing is a deployment."""


@dataclass(frozen=True)
class SizeFlags:
    """What a deployment takes: processes, machines, memory and network of each part, and what saturates first.

    flicker size --queries-per-second 1e5 --duplicates 1000 --events-per-day 1e9 --items 1e8

    By laws that `make scaling` measured on small systems (docs/scaling.md): beyond what was measured it extrapolates,
    and says so.
    """

    queries_per_second: float = 100.0
    """Queries that users ask, more than 0."""
    duplicates: float = 8.0
    """Models per arm that learn, at least 2."""
    events_per_day: float = 1e6
    """Events that are learned: feedback on results, more than 0."""
    items: float = 1e5
    """Items of the catalogue, at least 1."""
    users: float | None = None
    """Users, at least 1; by default as many as items."""
    arms: int = 2
    """Designs under comparison, at least 1."""
    candidates: int = 200
    """Items ranked per query, at least 2."""
    hash_rows: float = 0.0
    """Table rows for users, and as many for items, that those beyond share; 0 for a row each."""
    dim: int = 16
    """Length of an embedding vector, 1 to 512."""
    hidden: tuple[int, ...] = (64, 32)
    """Widths of the hidden layers, at least one, each 1 to 8,192."""
    weights: Literal["store", "objects"] = "store"
    """Where published weights lie: in the store, or in an object store (--weights of trainer, replica and router)."""
    shadow: float = 0.01
    """Share of the queries that are compared off the user's path, 0 to 1."""
    refresh_every: float = 3_600.0
    """Seconds from one generation to the next, at least 1."""
    outage: float = 3_600.0
    """Seconds of events that the log must hold while trainers are away, 0 or more."""
    cores: float = 16.0
    """Of a machine, at least 1."""
    gib: float = 64.0
    """Memory of a machine in GiB, more than 0."""
    gbit: float = 10.0
    """Network of a machine in Gbit/s, more than 0."""
    use: float = 0.6
    """Share of a core that is planned to be busy, more than 0, at most 1."""
    json: bool = False
    """Print JSON instead of tables."""

    def __post_init__(self) -> None:
        for name in ("queries_per_second", "events_per_day", "gib", "gbit"):
            value = getattr(self, name)
            require(0 < value <= MAX_COUNT, name, f"{value:g}", f"more than 0, at most {MAX_COUNT:g}")
        minima = {"duplicates": 2, "items": 1, "users": 1, "arms": 1, "candidates": 2, "cores": 1, "hash_rows": 0}
        for name, minimum in minima.items():
            value = self.items if (given := getattr(self, name)) is None else given
            require(minimum <= value <= MAX_COUNT, name, f"{value:g}", f"from {minimum} to {MAX_COUNT:g}")
        require(1 <= self.dim <= 512, "dim", self.dim, "from 1 to 512")
        good = bool(self.hidden) and all(1 <= width <= 8_192 for width in self.hidden)
        require(good, "hidden", " ".join(map(str, self.hidden)), "at least one width, each from 1 to 8192")
        require(0 <= self.shadow <= 1, "shadow", self.shadow, "from 0 to 1")
        require(1 <= self.refresh_every <= MAX_COUNT, "refresh_every", f"{self.refresh_every:g}", "at least 1 second")
        require(0 <= self.outage <= MAX_COUNT, "outage", f"{self.outage:g}", "0 seconds or more")
        require(0 < self.use <= 1, "use", self.use, "more than 0, at most 1")

    @property
    def events_per_second(self) -> float:
        """On average over the day."""
        return self.events_per_day / DAY

    @property
    def shape(self) -> Workload:
        """Of one trainer that learns everything."""
        users = self.items if self.users is None else self.users
        return Workload(
            users, self.items, self.hash_rows, self.arms, self.duplicates, self.candidates, self.dim, self.hidden,
            self.events_per_second * self.refresh_every,
        )  # fmt: skip


@dataclass(frozen=True)
class Component:
    """What one kind of process takes."""

    name: str
    processes: float
    cores: float
    """Busy, of all of them."""
    memory: float
    """Bytes of each."""
    network: float
    """Bytes per second, of all of them."""
    machines: float
    driver: str
    """What its cost grows with."""
    law: str


@dataclass(frozen=True)
class Limit:
    """What more machines of the same kind do not mend."""

    share: float
    """Of what there is, 1 at saturation."""
    what: str
    then: str
    """Which engine takes over."""


@dataclass(frozen=True)
class DeploymentPlan:
    """A demand met."""

    parts: tuple[Component, ...]
    limits: tuple[Limit, ...]
    """The one that saturates first comes first."""
    beyond: tuple[str, ...]
    """Counts that are larger than any that was measured, in words."""


def plan(flags: SizeFlags, laws: Laws) -> DeploymentPlan:
    """Each part by its laws."""
    sizing = Sizing(flags, laws)
    serving = sizing.router(), sizing.replica(), sizing.trainer(), sizing.store()
    watched = sizing.watching(sum(part.processes for part in serving[:3]))
    limits = sorted(sizing.limits(*serving, watched), key=lambda limit: -limit.share)
    objects = [sizing.objects()] if flags.weights == "objects" else []
    parts = *serving, *objects, sizing.comparisons(), watched
    return DeploymentPlan(parts, tuple(limits), tuple(beyond(flags, laws)))


def beyond(flags: SizeFlags, laws: Laws) -> Iterator[str]:
    """What is extrapolated, and how far."""
    for name, maximum in laws.maxima.items():
        value = float(getattr(flags.shape, name))
        if value > maximum:
            yield f"{name.replace('_', ' ')} {digits(value)} (measured up to {digits(maximum)})"


class Sizing:
    """The arithmetic."""

    def __init__(self, flags: SizeFlags, laws: Laws) -> None:
        self._flags, self._laws, self._shape = flags, laws, flags.shape
        self._reports = flags.events_per_second / SLATE
        self._capacity = flags.gib * 2**30

    def _law(self, name: str, shape: Workload | None = None) -> float:
        return self._laws[name](shape or self._shape)

    def _machines(self, processes: float, cores: float, memory: float, network: float) -> float:
        """As many as the scarcest of cores, memory and network asks for. What is larger than a machine counts as if it
        could be split: a limit says that it cannot."""
        flags = self._flags
        busy = cores / (flags.cores * flags.use)
        together = self._capacity // max(memory, 1.0)
        held = processes / together if together else processes * math.ceil(memory / self._capacity)
        return math.ceil(max(busy, held, network / (flags.gbit * 1e9 / 8 * flags.use), 1.0))

    def _part(self, name: str, processes: float, cores: float, memory: float, network: float, *words: str) -> Component:
        machines = self._machines(processes, cores, memory, network)
        return Component(name, processes, cores, memory, network, machines, *words)

    def router(self) -> Component:
        """Python on one core each; a query is bytes to it."""
        flags = self._flags
        cores = flags.queries_per_second * self._law("router_query") + self._reports * self._law("router_report")
        cores += flags.queries_per_second * flags.shadow * self._law("router_compared")
        per_query = self._law("user_bytes") + self._law("rank_bytes")
        network = flags.queries_per_second * per_query + self._reports * SLATE * self._law("waiting_bytes")
        law = f"{self._laws['router_query'].words()} a query, {self._laws['router_report'].words()} a report"
        processes = math.ceil(max(cores / flags.use, 2.0))
        return self._part("router", processes, cores, self._law("router_memory"), network, "queries", law)

    def replica(self) -> Component:
        """One duplicate of every arm each."""
        flags = self._flags
        asked = flags.queries_per_second * (1 + 2 * flags.shadow)
        ranking = asked * self._law("replica_query")
        refresh = self._law("replica_refresh") / flags.refresh_every
        # preparing a generation is a share of each core, however few queries it answers
        processes = math.ceil(max(ranking / max(flags.use - refresh, 0.05), 2.0))
        weights = processes * self._law("duplicate_bytes") / flags.refresh_every
        network = asked * self._law("rank_bytes") + weights
        law = f"{self._laws['replica_query'].words()} a query; memory {self._laws['replica_memory'].words()}"
        cores, memory = ranking + processes * refresh, self._law("replica_memory")
        return self._part("replica", processes, cores, memory, network, "queries x candidates; items x arms", law)

    def _shard(self, shards: float) -> Workload:
        return replace(self._shape, duplicates=self._flags.duplicates / shards)

    def trainer(self) -> Component:
        """Shards of whole duplicates, each on one core, that all read the whole log."""
        flags = self._flags
        room = flags.refresh_every * flags.use

        def fits(shards: float) -> bool:
            shape = self._shard(shards)
            learned, memory = self._law("trainer_generation", shape), self._law("trainer_memory", shape)
            return learned <= room and memory <= self._capacity

        shards = smallest_fitting(flags.duplicates, fits)
        shape = self._shard(shards)
        cores = shards * self._law("trainer_generation", shape) / flags.refresh_every
        network = shards * flags.events_per_second * self._law("waiting_bytes")
        network += flags.duplicates * self._law("duplicate_bytes") / flags.refresh_every
        law = self._laws["trainer_generation"].words()
        memory = self._law("trainer_memory", shape)
        return self._part("trainer shard", shards, cores, memory, network, "events x models; models x rows", law)

    def store(self) -> Component:
        """The event log and the registry, one Redis: a process on one core."""
        flags, trainers = self._flags, self.trainer().processes
        waiting = flags.events_per_second * max(flags.outage, flags.refresh_every) * self._law("waiting_bytes")
        cores, memory = self._reports * self._law("store_report"), waiting
        network = flags.events_per_second * self._law("waiting_bytes") * (1 + trainers)
        if flags.weights == "store":
            cores += self._law("store_generation") / flags.refresh_every
            memory += self._generations()
            network += self._moved()
        law = f"{self._laws['waiting_bytes'].words()} an event that waits, {KEPT + 1} generations of weights"
        return self._part("store", 1, cores, memory, network, "events; duplicates x rows", law)

    def _generations(self) -> float:
        """Bytes of those that are kept, and of one that comes."""
        return (KEPT + 1) * (self._flags.duplicates * self._law("duplicate_bytes") + self._law("catalog_bytes"))

    def _moved(self) -> float:
        """Bytes of weights per second, to where they lie and from there."""
        moved = self._flags.duplicates + self.replica().processes
        return moved * self._law("duplicate_bytes") / self._flags.refresh_every

    def objects(self) -> Component:
        """An object store: somebody else's machines."""
        law = f"{KEPT + 1} generations of {self._laws['duplicate_bytes'].words()}"
        return Component("object store", 0, 0, self._generations(), self._moved(), 0, "duplicates x rows", law)

    def comparisons(self) -> Component:
        """A part of routers and replicas, as a row of its own: no machines of theirs."""
        flags = self._flags
        rate = flags.queries_per_second * flags.shadow
        cores = rate * (self._law("router_compared") + 2 * self._law("replica_query"))
        law = f"{self._laws['router_compared'].words()} in the router, two more rankings"
        network = rate * 2 * self._law("rank_bytes")
        return Component("comparisons (within)", 0, cores, 0, network, 0, "compared queries", law)

    def watching(self, processes: float) -> Component:
        """Prometheus; the page reads the same."""
        series = processes * max(self._laws.samples.values())
        network = series / SCRAPE * 100  # bytes of a sample in text
        law = f"{digits(max(self._laws.samples.values()))} series a process, {size(SERIES_BYTES)} each (not measured)"
        return self._part("Prometheus", 1, 0.0, series * SERIES_BYTES, network, "processes", law)

    def limits(
        self, router: Component, replica: Component, trainer: Component, store: Component, watched: Component
    ) -> Iterator[Limit]:
        """What cannot be mended by more of the same."""
        flags, one = self._flags, self._shard(self._flags.duplicates)
        taking = self._law("replica_refresh")
        learning = self._law("trainer_generation", one) / flags.refresh_every
        smallest = self._law("trainer_memory", one)
        index = "retrieval by an index (Faiss, ScaNN) in front, items' parts in shards"
        apart = "weights in an object store (--weights s3://...), events in Kafka"
        for memory, owner, remedy in (
            (replica.memory, "a replica", index),
            (router.memory, "a router", "the catalogue in an index of its own"),
            (smallest, "a trainer of one duplicate", "--hash-rows, or a parameter server"),
            (store.memory, "the store", apart),
            (watched.memory, "Prometheus", "Prometheus in shards, with Thanos or Mimir above"),
        ):
            yield Limit(memory / self._capacity, f"memory of {owner}: {size(memory)}", remedy)
        replicas = f"a replica that takes up a generation in {span(taking)}"
        for busy, owner, remedy in (
            (taking / flags.refresh_every, replicas, "rarer refreshes"),
            (learning, "a trainer of one duplicate", "a GPU per trainer (--device cuda), or arms in runs of their own"),
            (store.cores, "the store", "Kafka behind the event log's protocol"),
        ):
            yield Limit(busy / flags.use, f"the one core of {owner}: {digits(busy)} of it", remedy)
        wire = flags.gbit * 1e9 / 8
        yield Limit(store.network / wire, f"network of the store: {size(store.network)}/s", apart)
        routers = f"{digits(router.processes)} routers that know every replica"
        yield Limit(router.processes / CONNECTIONS, routers, "Envoy in front, which asks a subset")


def smallest_fitting(maximum: float, fits: Callable[[int], bool]) -> int:
    """The smallest whole number of shards from 1 to `maximum` that fits, by bisection; `maximum` where none does."""
    numbers = range(1, math.floor(maximum) + 1)
    return numbers[min(bisect_left(numbers, True, key=fits), len(numbers) - 1)]
