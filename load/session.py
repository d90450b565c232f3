"""One process's part in a load test: when queries are due, the next query, the counts, and the summary.

Locust calls it a *test* from start to stop; with its web page there can be several. With `--processes` the workers ask,
each a share, and report what they counted to the master.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import gevent  # type: ignore[import-untyped]
import grpc
from gevent.event import Event  # type: ignore[import-untyped]
from gevent.pool import Group  # type: ignore[import-untyped]
from grpc.experimental.gevent import init_gevent  # type: ignore[import-not-found]  # the stubs lack it
from grpc_health.v1 import health_pb2, health_pb2_grpc
from locust.env import Environment
from locust.runners import MasterRunner, Runner, WorkerRunner

from load.people import POOL, People, PlannedQuery
from load.settings import LoadSettings, due, modified_at, read_settings, work
from load.tally import Outbox, Tally
from protos.channel import router_channel
from simulator.errors import SettingError
from simulator.files import write_atomically
from simulator.process import retry
from simulator.randomness import generator
from simulator.security.channels import connect
from simulator.security.credentials import Credentials
from simulator.store.protocol import Store, StoreError
from simulator.types import World

log = logging.getLogger("load")

FEEDER = "world"
"""The log's writer, whose mark in the store is the event of the world that is due."""
USERS_MESSAGE = "flicker_users"
"""Message of the master to its workers: how many users offer the configured rate."""
STOPPING_MESSAGE = "flicker_stopping"
"""Message of the master to its workers: the test is about to end."""
LAST_CALLS = 1.0
"""Seconds that calls in flight have then: Locust's master waits half a second for the last reports, no longer."""
CATCH_UP = 1.0
"""Seconds of queries that a user makes up for when answers were slow; older ones it never asks."""
HEALTH_TIMEOUT = 2.0
"""Seconds for the router's answer whether it serves."""


class NotServing(Exception):
    """The router cannot answer yet."""


def target(host: str | None) -> str:
    """Address of the routers, in any form that Locust's --host takes: host:port, several with commas, or dns:///name:port."""
    return (host or "").removeprefix("grpc://").removeprefix("http://").rstrip("/")


def dial(address: str) -> grpc.Channel:
    """A channel to the routers, with the certificates and the token that the environment names."""
    return router_channel(address, partial(connect, Credentials.from_environment()))


def wait_until_served(environment: Environment) -> None:
    """Wait until a router at Locust's host, which its page may change meanwhile, says that it serves.

    One without a health service is taken at once.
    """

    def check() -> None:
        address = target(environment.host)
        with dial(address) as channel:
            try:
                request = health_pb2.HealthCheckRequest()
                status = health_pb2_grpc.HealthStub(channel).Check(request, timeout=HEALTH_TIMEOUT).status
            except grpc.RpcError as problem:
                assert isinstance(problem, grpc.Call)
                if problem.code() is grpc.StatusCode.UNIMPLEMENTED:
                    return
                raise NotServing(f"{address}: {problem.code().name}") from None
        if status != health_pb2.HealthCheckResponse.SERVING:
            raise NotServing(f"{address}: {health_pb2.HealthCheckResponse.ServingStatus.Name(status)}")

    init_gevent()
    retry(check, NotServing, threading.Event(), lambda problem: log.info("waiting for the router at %s", problem))


class Session:
    """The state that the users of one process share."""

    def __init__(self, settings: LoadSettings, world: World, environment: Environment) -> None:
        """Made before Locust's page can change its options."""
        assert environment.runner is not None
        self.settings, self._world, self._environment = settings, world, environment
        self._runner: Runner = environment.runner
        self._users_at_start = getattr(environment.parsed_options, "num_users", None)
        self._users = 0  # who offer the configured rate together
        self._worker = isinstance(self._runner, WorkerRunner)
        self._is_sending = not isinstance(self._runner, MasterRunner)
        self.tally, self.outbox = Tally(), Outbox()
        self._store: Store | None = settings.open_store() if settings.store else None
        self._people: People | None = None
        self._started, self._counted, self._modified_at = 0.0, 0.0, modified_at(os.environ)
        self._stopping, self._refilled, self._refilling = Event(), Event(), False
        self._spawned = Group()
        self._stopping.set()

    @property
    def is_stopping(self) -> bool:
        """Whether no test is running (any more)."""
        return bool(self._stopping.is_set())

    @property
    def counts(self) -> Tally | Outbox:
        """Where this process counts."""
        return self.outbox if self._worker else self.tally

    # the course of a test

    def start(self) -> None:
        """A test starts, once the router answers: count from 0, with queries at hand."""
        if not self._worker:
            wait_until_served(self._environment)
            self._users = self._users_at_start or self._runner.target_user_count
        self.tally, self.outbox = Tally(), Outbox()
        if self._is_sending and self._people is None:
            index = max(0, getattr(self._runner, "worker_index", 0))
            self._rng = generator(self.settings.seed, "load repeats", index)
            self._people = People(self._world, self.settings.arms, index)
            self._people.refill(self._position())
        self._started = self._counted = time.perf_counter()
        self._stopping.clear()
        if not self._worker:
            gevent.spawn(self._tick_every_second, self._stopping)
        self.send_users()

    def stopping(self) -> None:
        """No new queries: time is up."""
        if not self._stopping.is_set():
            self._tick()
            self._stopping.set()

    def send_stopping(self) -> None:
        """The master's, before all end: no new queries, so that the workers' last reports find it listening."""
        if isinstance(self._runner, MasterRunner):
            self._runner.send_message(STOPPING_MESSAGE)
            gevent.sleep(LAST_CALLS)

    def stopped(self) -> None:
        """All users have stopped: wait for what is still in flight, and write the summary."""
        self._spawned.join(timeout=self.settings.timeout)
        self.write_summary()

    def write_summary(self) -> None:
        """Write what was counted so far, where the settings name a file: all of it or nothing."""
        path = self.settings.summary
        if path is None or self._worker:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(self.tally.summary(), indent=1) + "\n").encode())

    # the offered rate

    def send_users(self) -> None:
        """The master's: send the workers how many users offer the configured rate, which sets a user's pace."""
        if isinstance(self._runner, MasterRunner):
            self._runner.send_message(USERS_MESSAGE, {"count": self._users})

    def receive_users(self, count: int) -> None:
        """A worker's: take the number of users that offer the configured rate."""
        self._users = count

    @property
    def period(self) -> float:
        """Seconds at the full rate from one query of a user to its next, repeated ones aside.

        Every user keeps this pace, so that the rate grows with users who are added on Locust's page: as many as Locust
        was started with (-u, LOCUST_USERS), or else as the test was, offer the configured rate.
        """
        return self._full_rate_users * (1 + self.settings.repeat) / self.settings.rate

    @property
    def _full_rate_users(self) -> int:
        return max(1, self._users or self._runner.target_user_count)

    def work_due(self, ago: float = 0.0) -> float:
        """Work due by now, or some seconds `ago`, in seconds at the full rate."""
        return self._work(max(0.0, time.perf_counter() - self._started - ago))

    def seconds_until(self, amount: float) -> float:
        """Seconds from now until so much work is due, 0 where it is already."""
        at = due(self.settings.shape, amount, self.settings.shape_seconds)
        return max(0.0, self._started + at - time.perf_counter())

    def _work(self, seconds: float) -> float:
        return work(self.settings.shape, seconds, self.settings.shape_seconds)

    def _offered(self, seconds: float) -> float:
        """Queries due by then from all users; those asked again are due as much later as they wait on average."""
        delay = (self.settings.repeat_after + self.settings.repeat_before) / 2
        done = self._work(seconds) + self.settings.repeat * self._work(max(0.0, seconds - delay))
        return self.settings.rate / (1 + self.settings.repeat) * done

    def _tick(self) -> None:
        now = time.perf_counter()
        share = self._runner.user_count / self._full_rate_users
        offered = self._offered(now - self._started) - self._offered(self._counted - self._started)
        self.tally.tick(now - self._counted, offered * share)
        self._counted = now

    def _tick_every_second(self, stopping: Event) -> None:
        while not stopping.wait(1.0):
            self._tick()
            if self._is_sending:
                self._reload_settings()

    def _reload_settings(self) -> None:
        """Offer the rate of the settings' file where that has changed, by more or fewer users."""
        modified = modified_at(os.environ)
        if modified == self._modified_at:
            return
        self._modified_at = modified
        try:
            rate = read_settings(os.environ).rate
        except SettingError as problem:
            return log.warning("%s", problem)
        users = max(1, round(self._full_rate_users * rate / self.settings.rate))
        log.info("%g queries per second instead of %g, by %d users", rate, self.settings.rate, users)
        self.settings, self._users = replace(self.settings, rate=rate), users
        self._runner.start(users, spawn_rate=max(users, self._runner.user_count))

    # who asks

    def next_query(self) -> PlannedQuery:
        """The next query; waits where none is ready."""
        assert self._people is not None
        while True:
            if len(self._people) < POOL // 2 and not self._refilling:
                self._refilling = True
                self._refilled.clear()
                gevent.spawn(self._refill, self._people)
            if len(self._people):
                return self._people.next()
            self._refilled.wait()

    def repeat_delay(self) -> float | None:
        """Seconds after which the next query is repeated; None for most queries."""
        chance, fraction = self._rng.random(2)
        if chance >= self.settings.repeat:
            return None
        return float(self.settings.repeat_after + fraction * (self.settings.repeat_before - self.settings.repeat_after))

    def clicks(self, planned: PlannedQuery, items: Any) -> list[bool]:
        """[K] whether the user clicks each of the items [K]."""
        assert self._people is not None
        return self._people.clicks(planned, items)

    def spawn(self, work: Callable[[], None], after: float = 0.0) -> None:
        """Run `work` in a greenlet, `after` seconds from now, unless the test stops before."""

        def run_when_due() -> None:
            if after == 0 or not self._stopping.wait(after):
                work()

        self._spawned.spawn(run_when_due)

    def _refill(self, people: People) -> None:
        position = self._position()
        try:  # in a real thread: the world's work must not keep the users from asking
            gevent.get_hub().threadpool.apply(people.refill, (position,))
        finally:
            self._refilling = False
            self._refilled.set()

    def _position(self) -> int | None:
        """The event of the world that is due, where the store has it."""
        if self._store is None:
            return None
        try:
            mark = self._store.mark(FEEDER)
        except StoreError as problem:
            log.warning("%s", problem)
            return None
        return int(mark) if mark.isdecimal() else None
