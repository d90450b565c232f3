"""A router in this process with a real server, and ways to ask it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from prometheus_client import CollectorRegistry

from protos.recommender_pb2_grpc import RecommenderStub
from serving.router.main import RouterFlags, RunningRouter
from simulator.store.protocol import Store


@dataclass(frozen=True)
class Asked:
    """A running router."""

    stub: RecommenderStub
    channel: grpc.Channel
    registry: CollectorRegistry
    address: str

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric, 0 where there is none yet."""
        return self.registry.get_sample_value(name, labels) or 0.0


@contextmanager
def running(store: Store, **settings: object) -> Iterator[Asked]:
    """A router of this store until the end."""
    flags = RouterFlags(**({"store": "redis://127.0.0.1:1", "name": "router", "shadow": 0.0} | settings))  # type: ignore[arg-type]
    registry = CollectorRegistry()
    router = RunningRouter(flags, store, registry, threading.Event())
    router.start()
    try:
        with grpc.insecure_channel(router.address) as channel:
            yield Asked(RecommenderStub(channel), channel, registry, router.address)
    finally:
        router.stop()


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for it; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)  # a look at all metrics may take as long


def healthy(asked: Asked, count: int) -> None:
    """Wait until so many replicas are in the pool."""
    until(lambda: asked.metric("flicker_router_replicas", healthy="true") == count)


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """Status and message of a call that must fail."""
    try:
        call()
    except grpc.RpcError as problem:
        assert isinstance(problem, grpc.Call)
        return problem.code(), problem.details() or ""
    raise AssertionError("it was answered")
