"""Flicker as a contender: a store, replicas and a router, started as users start them."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import grpc

from protos.recommender_pb2 import RankRequest, RankResponse, RecommendRequest
from query_path.contender import RECOMMEND, pid, process, ready
from query_path.model import Model
from simulator.live.watch import Page, scrape
from simulator.security.channels import connect
from simulator.security.credentials import PLAIN, Credentials
from simulator.store.arrays import label
from simulator.store.redis import open_store
from simulator.store.server import StoreServer

RANK = "/flicker.v1.Replica/Rank"


def credentials_flags(credentials: Credentials) -> list[str]:
    """As a process is given them."""
    named = {field.name: getattr(credentials, field.name) for field in fields(credentials) if field.init}
    return [text for name, path in named.items() if path for text in (f"--{name.replace('_', '-')}", str(path))]


def relabelled(part: bytes, whose: dict[str, str]) -> bytes:
    """A part that says that it is another."""
    begin = 8 + int.from_bytes(part[:8], "little")
    header = json.dumps(json.loads(part[8:begin]) | {"__metadata__": whose}).encode()
    header += b" " * (-len(header) % 8)  # the numbers stay aligned
    return b"".join([len(header).to_bytes(8, "little"), header, memoryview(part)[begin:]])


class System:
    """Replicas of one run in a store, with generations to publish; routers are contenders in front of it."""

    def __init__(
        self, store: StoreServer, run: str, replicas: int, model: Model, folder: Path, credentials: Credentials = PLAIN
    ) -> None:
        """`credentials`: of all of its processes."""
        self.server, self.run, self.model, self.folder, self.generation = store, run, model, folder, -1
        self.credentials, self.wiring = (
            credentials,
            ["--store", store.url, "--run", run, *credentials_flags(credentials)],
        )
        self.store = open_store(store.url, run=run)
        self.replicas = [
            process(name, folder, "-m", "serving", "replica", *self.wiring, "--name", name)
            for name in (f"{run}-{number}" for number in range(replicas))
        ]
        self._ranks: list[grpc.UnaryUnaryMultiCallable[bytes, bytes]] = []

    def start(self) -> None:
        """Publish three generations and wait until they are served: from then on memory is used again."""
        for replica in self.replicas:
            replica.start()
        addresses = [ready(child)["address"] for child in self.replicas]
        self._ranks = [connect(self.credentials, address).unary_unary(RANK) for address in addresses]
        for _ in range(3):
            self.publish()

    def stop(self) -> None:
        """End all replicas."""
        for replica in self.replicas:
            replica.ask_to_stop()
        for replica in self.replicas:
            replica.finish(10.0)
        self.store.close()

    def publish(self, parts: dict[str, bytes] | None = None) -> float:
        """Cut a generation and publish it; returns the seconds until every replica serves it.

        With `parts` cut before it is only published.
        """
        self.generation += 1
        labels = {name: label(self.run, self.generation, name) for name in parts or {}}
        cut = {name: relabelled(data, labels[name]) for name, data in (parts or {}).items()}
        started = time.perf_counter()
        self.store.publish(self.generation, cut or self.cut(), self.model.about(self.generation))
        for rank in self._ranks:
            while not self.serves(rank):
                assert time.perf_counter() < started + 60, f"generation {self.generation} is not served"
                time.sleep(0.005)
        return time.perf_counter() - started

    def cut(self) -> dict[str, bytes]:
        """The parts of this generation."""
        return self.model.parts(self.run, self.generation)

    def move(self, parts: dict[str, bytes]) -> float:
        """Seconds to put parts into the store and to get out what each replica needs, one replica after the other."""
        with closing(open_store(self.server.url, run=f"{self.run} floor")) as store:
            started = time.perf_counter()
            store.publish(self.generation, parts, self.model.about(self.generation))
            for number in range(len(self.replicas)):
                store.fetch(self.generation, f"duplicate/{number}")
                store.fetch(self.generation, "catalog")
            return time.perf_counter() - started

    def serves(self, rank: grpc.UnaryUnaryMultiCallable[bytes, bytes]) -> bool:
        """Whether a replica answers from the newest generation."""
        query = RecommendRequest(arm="relu", generation=self.generation).SerializeToString()
        try:
            response = RankResponse.FromString(rank(RankRequest(queries=[query]).SerializeToString(), timeout=5))
        except grpc.RpcError:  # nothing served yet
            return False
        return not response.failures


class Routed:
    """A router in front of a system."""

    method, connect = RECOMMEND, "query_path.callers:unary"

    def __init__(self, name: str, system: System, *flags: str) -> None:
        self.name, self.address, self._system, self._metrics = name, "", system, 0
        self.child = process(name, system.folder, "-m", "serving", "router", *system.wiring, *flags)

    def start(self) -> None:
        """See Contender."""
        self.child.start()
        said = ready(self.child)
        self.address, self._metrics = said["address"], int(said["metrics"].rpartition(":")[2])
        healthy = len(self._system.replicas)
        while self.page().total("flicker_router_replicas", healthy="true") < healthy:
            time.sleep(0.05)

    def stop(self) -> None:
        """See Contender."""
        self.child.stop(10.0)

    def pids(self) -> list[int]:
        """See Contender: router, replicas and store."""
        store = self._system.server.process
        return [pid(self.child), *map(pid, self._system.replicas), *([store.pid] if store else [])]

    def page(self) -> Page:
        """The router's metrics."""
        return scrape({self.name: self._metrics}, 10.0, self._system.credentials)[self.name]

    def settle(self) -> float:
        """Waits until no comparison is under way; returns how many were made since the start."""
        made, again = -1.0, 0.0
        while made != again:
            made = again
            time.sleep(1.0)  # longer than comparisons wait for each other
            page = self.page()
            compared = page.total("flicker_compared_total", measure="slate")
            again = compared + page.total("flicker_comparisons_failed_total")
        return compared
