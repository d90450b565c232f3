"""Locust users that speak gRPC: one channel per process, to all routers, and every call is reported to Locust.

gRPC blocks the whole process unless `init_gevent` comes before its first channel. It is called with the first channel
and not on import, since Locust's `--processes` forks in between.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import grpc
import grpc.experimental.gevent as grpc_gevent  # type: ignore[import-not-found]  # the stubs lack it
from grpc_health.v1 import health_pb2, health_pb2_grpc
from locust import User
from locust.env import Environment

from protos import recommender_pb2_grpc
from protos.channel import router_channel
from simulator.process import retry
from simulator.security.channels import connect
from simulator.security.credentials import Credentials

log = logging.getLogger("load")
HEALTH_TIMEOUT = 2.0
"""Seconds for the router's answer whether it serves."""


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


def dial(address: str) -> grpc.Channel:
    """A channel to the routers, with the certificates and the token that the environment names."""
    return router_channel(address, partial(connect, Credentials.from_environment()))


def open_channel(environment: Environment, address: str) -> grpc.Channel:
    """A channel whose calls are reported to Locust: once each, however often gRPC retried. See `target`."""
    grpc_gevent.init_gevent()
    return grpc.intercept_channel(dial(address), LocustReporter(environment))


class NotServing(Exception):
    """The router cannot answer yet."""


def target(host: str | None) -> str:
    """Address of the routers, in any form that Locust's --host takes: host:port, several with commas, or dns:///name:port."""
    return (host or "").removeprefix("grpc://").removeprefix("http://").rstrip("/")


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

    grpc_gevent.init_gevent()
    retry(check, NotServing, threading.Event(), lambda problem: log.info("waiting for the router at %s", problem))


class GrpcUser(User):
    """A user with a stub of the router."""

    abstract = True
    _stubs: ClassVar[dict[str, recommender_pb2_grpc.RecommenderStub]] = {}

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        address = target(self.host)
        if address not in self._stubs:
            self._stubs[address] = recommender_pb2_grpc.RecommenderStub(open_channel(environment, address))
        self.router = self._stubs[address]
