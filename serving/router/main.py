"""`python -m serving router`: flags and environment to a running router."""

from __future__ import annotations

import os
import socket
import threading
from functools import partial
from typing import IO

from prometheus_client import CollectorRegistry

from serving.process import serve
from serving.router.feedback import MOST_EVENTS, Feedback, InStore, Keeper, OnDisk
from serving.router.flags import RouterFlags
from serving.router.metrics import SECONDS, RouterMetrics, ShadowMetrics
from serving.router.policies import make_policy
from serving.router.pool import Pool
from serving.router.published import Watch
from serving.router.router import Router
from serving.router.server import REQUEST_BYTES, SERVICE, Methods
from serving.router.spool import Spool
from serving.rpc import Door, GrpcMetrics, GrpcServer, Limits
from serving.shadow import Shadow
from simulator.errors import SettingError
from simulator.flags import parse_flags
from simulator.store.protocol import Store

GRACE = 3.0
"""Seconds for what is being answered when the router ends."""


class RunningRouter:
    """A router's threads and its server, in the three verbs of a process."""

    def __init__(self, flags: RouterFlags, store: Store, registry: CollectorRegistry, stop: threading.Event) -> None:
        """Raises SettingError for a file that cannot be had."""
        self.name = flags.name or f"router-{socket.gethostname()}-{os.getpid()}"
        self._stop = stop
        self._metrics = RouterMetrics(registry, flags.replicas)
        self._pool = Pool(self._metrics, self._say)
        self._watch = Watch(store, self._pool, self._metrics, stop, self._say)
        policy = make_policy(flags.policy, flags.seed)
        router = Router(flags.seed, policy, self._pool, self._watch.current, self._metrics)
        keeper: Keeper = InStore(store, self.name, self._metrics)
        if flags.spool:
            self._metrics.spool_limit.set(flags.spool_bytes)
            keeper = OnDisk(store, Spool(flags.spool, flags.run, flags.spool_bytes), self._metrics)
        self._feedback = Feedback(keeper, self._metrics, min(MOST_EVENTS, store.capacity()))
        recorder = ShadowMetrics(registry, flags.window)
        self._shadow = Shadow(self._pool, recorder, flags.seed, flags.shadow, open_lines(flags))
        limits = Limits(flags.in_flight, REQUEST_BYTES, deadline_seconds=flags.deadline)
        door = Door(limits, GrpcMetrics(registry, SECONDS))
        methods = Methods(router, self._shadow, self._feedback, self._metrics).handlers(door)
        self._listen = partial(GrpcServer, SERVICE, methods, door, (flags.host, flags.port))
        self._server: GrpcServer | None = None
        self.address = ""

    def start(self) -> None:
        """Look at the store, then listen: who listens is asked what others, who know more, could have answered.

        Raises Stopped where the stop flag ends the wait for the store, SettingError for a port that cannot be had.
        """
        self._feedback.start()
        self._shadow.start()
        self._watch.start()
        self._watch.wait_for_a_look()
        self._server = self._listen()
        self._say()
        self._server.start()
        self.address = self._server.address

    def stop(self) -> None:
        """Take nothing new, answer what was taken, hand over the feedback, let go of the replicas."""
        self._stop.set()
        if self._server is not None:
            self._server.retire()
            self._server.stop(GRACE)
        self._shadow.close()
        self._feedback.close()
        self._watch.join(GRACE)
        self._pool.close()

    def _say(self) -> None:
        """Queries can be answered once there is a generation, and while there is a replica."""
        if self._server is not None:
            self._server.serving(self._watch.published is not None and bool(self._pool.healthy))


def open_lines(flags: RouterFlags) -> IO[str] | None:
    """The file for comparisons, where one is named. Raises SettingError where it cannot be written."""
    if flags.comparisons is None:
        return None
    try:
        return flags.comparisons.open("a", encoding="utf-8")
    except OSError as problem:
        hint = f"{problem.strerror}: name a file that can be written"
        raise SettingError("comparisons", flags.comparisons, hint) from None


def main(arguments: list[str]) -> None:
    """Serve until a signal comes. Raises FlickerError for what the user can mend."""
    flags = parse_flags(RouterFlags, "python -m serving router", arguments)
    serve("router", flags, partial(RunningRouter, flags), capacity=flags.log_capacity)
