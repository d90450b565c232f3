"""Simulated users of the live system, for Locust, run in the project's folder:

    locust -f load/locustfile.py --host 127.0.0.1:PORT --headless -u 25 -t 60s

or without --headless, with Locust's web page (--autostart: the test starts by itself, once the router answers).
Settings are environment variables, see load/settings.py. The rate is FLICKER_RATE for the N users that Locust is
started with (-u), whatever N is, and follows users who come and go on the page: twice as many ask twice as often. What
N limits: a user waits for each answer, so N users have at most N queries in flight (and those asked again), and the
offered rate is achieved as long as a query is answered within N / rate seconds. A user that fell behind makes up for
one second; offered and achieved rates are both reported. Locust ends with exit code 1 when calls failed, see its
--exit-code-on-error.

Users speak gRPC: one channel per process, to all routers, and every call is reported to Locust. gRPC blocks the whole
process unless `init_gevent` comes before its first channel. It is called with that and not on import, since
Locust's `--processes` forks in between.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NoReturn

import grpc
import numpy as np
from grpc.experimental.gevent import init_gevent  # type: ignore[import-not-found]  # the stubs lack it
from locust import User, events, task
from locust.env import Environment
from locust.event import EventHook
from locust.runners import MasterRunner, WorkerRunner
from prometheus_client import CollectorRegistry

from load.people import PlannedQuery
from load.session import CATCH_UP, STOPPING_MESSAGE, USERS_MESSAGE, Session, dial, target
from load.settings import read_settings
from load.tally import FinishedCall, LoadCollector, Repeat, add_report, compare
from protos.recommender_pb2 import FeedbackRequest, RecommendRequest, RecommendResponse, ShownItem
from protos.recommender_pb2_grpc import RecommenderStub
from simulator.errors import FlickerError
from simulator.process import end_on_sigterm, say_ready
from simulator.security.pages import serve_metrics
from simulator.world.open import open_world

ADD: Callable[[EventHook, Callable[..., None]], object] = EventHook.add_listener
"""Locust's method, with a type."""
CLIENT = secrets.token_hex(8)
"""Names this process to the router, which learns feedback that comes twice once."""
GOLDEN = 0.6180339887498949
"""Users' turns are this share of a period apart (mod 1): nearly even for any number of users."""


class Failed(Exception):
    """A call that failed, in one line, so that Locust's list of errors stays short."""

    def __init__(self, problem: grpc.Call) -> None:
        self.code = problem.code().name
        super().__init__(f"{self.code}: {problem.details()}")


class LocustReporter(grpc.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Fires Locust's `request` event for every call that ends, by the method's name, with its error."""

    def __init__(self, environment: Environment) -> None:
        self._fire: Callable[..., None] = environment.events.request.fire

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """The call, once it has ended."""
        start = time.perf_counter()
        call = continuation(details, request)
        problem = call.exception()  # waits, and lets the other users go on meanwhile
        self._fire(
            request_type="grpc",
            name=str(details.method).rpartition("/")[2],
            response_time=1_000 * (time.perf_counter() - start),
            response_length=0 if problem else call.result().ByteSize(),
            exception=Failed(problem) if problem else None,
            context={},
        )
        return call


class Searcher(User):
    """Searches, clicks items of the slate, and now and then repeats the query from another device."""

    session: ClassVar[Session]
    _count: ClassVar[int] = 0
    _stubs: ClassVar[dict[str, RecommenderStub]] = {}

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        address = target(self.host)
        if address not in self._stubs:
            init_gevent()
            self._stubs[address] = RecommenderStub(grpc.intercept_channel(dial(address), LocustReporter(environment)))
        self.router = self._stubs[address]
        Searcher._count += 1
        phase = (Searcher._count * GOLDEN) % 1
        self._due = self.session.work_due() + (phase - 1) * self.session.period
        self._waited = False

    def wait_time(self) -> float:
        """Seconds until this user's next query is due, on a fixed grid: a late query does not shift the next."""
        self._waited = True
        self._due = max(self._due + self.session.period, self.session.work_due(ago=CATCH_UP))
        return self.session.seconds_until(self._due)

    @task
    def search(self) -> None:
        """Ask one query; report its clicks, and repeat it, without delaying the user's next query."""
        # Locust runs the first task at once, but this user's turn is only later; and a user whose wait ends while the
        # test stops is killed in the middle of its call
        if not self._waited or self.session.is_stopping:
            return
        planned = self.session.next_query()
        answer = self._ask(planned, planned.id)
        if answer is None:
            return
        self.session.spawn(partial(self._report, planned, answer))
        delay = self.session.repeat_delay()
        if delay is not None:
            self.session.spawn(partial(self._ask_again, planned, answer), after=delay)

    def _ask(self, planned: PlannedQuery, id: int) -> RecommendResponse | None:
        """The answer; None where there is none, which the interceptor has reported to Locust."""
        settings = self.session.settings
        request = RecommendRequest(
            query_id=id,
            user=planned.query.user,
            context=planned.context,
            candidates=planned.candidates,
            k=settings.k,
            arm=planned.arm,
        )
        try:
            return self.router.Recommend(request, timeout=settings.timeout)
        except grpc.RpcError:
            return None

    def _ask_again(self, planned: PlannedQuery, first: RecommendResponse) -> None:
        """Repeat it for the same user, context and arm, with a new query id: perhaps another replica answers."""
        second = self._ask(planned, planned.id + 1)
        if second is None or second.answered_by.arm != first.answered_by.arm:
            return
        changed, slots = compare([shown.item for shown in first.slate], [shown.item for shown in second.slate])
        same_generation = first.answered_by.generation == second.answered_by.generation
        self.session.counts.repeat(Repeat(first.answered_by.arm, same_generation, changed, slots))

    def _report(self, planned: PlannedQuery, answer: RecommendResponse) -> None:
        items = np.array([shown.item for shown in answer.slate], np.int64)
        try:
            clicks = self.session.clicks(planned, items)
        except IndexError:
            refuse(FlickerError(f"item {items.max()}: not in this world: give the load the same world as the trainer"))
        feedback = FeedbackRequest(
            query_id=answer.query_id,
            user=planned.query.user,
            context=planned.context,
            shown=[ShownItem(item=item, clicked=clicked) for item, clicked in zip(items, clicks, strict=True)],
            answered_by=answer.answered_by,
            time=planned.query.time,
            client=CLIENT,
        )
        try:
            self.router.Feedback(feedback, timeout=self.session.settings.timeout)
        except grpc.RpcError:
            return
        self.session.counts.click(sum(clicks))


def refuse(problem: FlickerError) -> NoReturn:
    """Exit at once, with the error in one line."""
    print(f"load: {' '.join(str(problem).splitlines())}", file=sys.stderr, flush=True)
    os._exit(2)  # Locust logs an exception and goes on


def attach(environment: Environment, **_: Any) -> None:
    """Make this process's session, and let Locust's events reach it."""
    runner = environment.runner
    assert runner is not None
    try:
        session = Searcher.session = Session(SETTINGS, WORLD, environment)
        if not isinstance(runner, WorkerRunner):
            registry = CollectorRegistry()
            LoadCollector(lambda: session.tally, lambda: int(runner.user_count), registry)
            port = serve_metrics(registry, SETTINGS.metrics_port, SETTINGS.host, SETTINGS.security.credentials())
            say_ready("load", name="load", metrics=f"{SETTINGS.host}:{port}")
    except FlickerError as problem:
        refuse(problem)
    options = environment.parsed_options
    if options is not None and options.spawn_rate is None and options.num_users:
        options.spawn_rate = min(100, options.num_users)  # Locust's own default is one user a second
    # queries in flight at the end may finish: they have not failed
    environment.stop_timeout = max(environment.stop_timeout or 0, SETTINGS.timeout)
    listen(environment, session)
    if isinstance(runner, WorkerRunner):
        runner.register_message(USERS_MESSAGE, lambda msg, **_: session.receive_users(int(msg.data["count"])))
        runner.register_message(STOPPING_MESSAGE, lambda msg, **_: session.stopping())


def listen(environment: Environment, session: Session) -> None:
    """Tell the session what Locust does."""

    def on_request(name: str, response_time: float, exception: Exception | None, **_: Any) -> None:
        code = exception.code if isinstance(exception, Failed) else "UNKNOWN" if exception else "OK"
        session.counts.call(FinishedCall(name, code, response_time / 1_000))

    events, add_listener = environment.events, ADD
    add_listener(events.request, on_request)
    add_listener(events.test_start, lambda **_: session.start())
    add_listener(events.spawning_complete, lambda **_: session.send_users())
    add_listener(events.test_stopping, lambda **_: session.stopping())
    add_listener(events.test_stop, lambda **_: session.stopped())
    add_listener(events.quitting, lambda **_: session.send_stopping())
    add_listener(events.report_to_master, lambda client_id, data: data.update(flicker=session.outbox.take()))
    if isinstance(environment.runner, MasterRunner):
        add_listener(events.worker_report, lambda client_id, data: add_report(session.tally, data["flicker"]))
        add_listener(events.quit, lambda **_: session.write_summary())  # the workers' last reports come late


end_on_sigterm()  # until Locust, which is to write its summary then, takes the signal over
try:
    SETTINGS = read_settings(os.environ)
    WORLD = open_world(SETTINGS.world_config(), SETTINGS.seed)
except FlickerError as problem:
    refuse(problem)
ADD(events.init, attach)
