"""The gRPC server of router and replica: raw bytes in and out, health and reflection beside them, what it counts."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Sequence

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from serving.calls import DirectPool, Reply
from serving.codec import Refusal
from simulator.errors import SettingError
from simulator.process import instruments

log = logging.getLogger(__name__)
End = Callable[[bytes, Refusal | None], None]
"""Ends a call: with the answer's bytes, or a refusal."""


class GrpcMetrics:
    """What every gRPC server counts, under the names of go-grpc-prometheus, whose dashboards fit them."""

    def __init__(self, registry: CollectorRegistry, buckets: Sequence[float]) -> None:
        """`buckets`: upper ends of those of a call's seconds."""
        counter, _, histogram = instruments(registry)
        labels = ["grpc_type", "grpc_service", "grpc_method"]
        self._started = counter("grpc_server_started", "Calls begun", labels)
        self._handled = counter("grpc_server_handled", "Calls ended", [*labels, "grpc_code"])
        seconds = "From begin to end of a call"
        self._seconds = histogram("grpc_server_handling_seconds", seconds, labels, buckets=buckets)

    def method(self, service: str, name: str) -> Callable[[], Callable[[grpc.StatusCode], None]]:
        """To be called where a call of this method begins; what it returns, with the code that the call ends with."""
        labels = ("unary", service, name)
        handled = {code: self._handled.labels(*labels, spelled(code)) for code in grpc.StatusCode}
        started, seconds = self._started.labels(*labels), self._seconds.labels(*labels)

        def begin() -> Callable[[grpc.StatusCode], None]:
            started.inc()
            start = time.perf_counter()

            def end(code: grpc.StatusCode) -> None:
                handled[code].inc()
                seconds.observe(time.perf_counter() - start)

            return end

        return begin


def spelled(code: grpc.StatusCode) -> str:
    """As the metrics of other gRPC servers spell it: `InvalidArgument`, `OK`."""
    return "OK" if code is grpc.StatusCode.OK else code.name.title().replace("_", "")


def as_refusal(problem: Exception, who: str) -> Refusal:
    """What a caller is told of an error: where it is no refusal, that it is a fault of the router or replica."""
    if isinstance(problem, Refusal):
        return problem
    log.error("a call failed", exc_info=problem)
    return Refusal(grpc.StatusCode.INTERNAL, f"a fault of the {who}; its log says more")


def ending(reply: Reply, ended: Callable[[grpc.StatusCode], None]) -> End:
    """Ends a call, once it is counted."""

    def end(answer: bytes, refusal: Refusal | None) -> None:
        ended(refusal.code if refusal else grpc.StatusCode.OK)
        if refusal is None:
            reply.answer(answer)
        else:
            reply.refuse(refusal.code, refusal.message)

    return end


class GrpcServer:
    """Listens, and says whether it is healthy: at first it is not."""

    def __init__(
        self,
        service: str,
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]],
        address: tuple[str, int],
        threads: int,
        most_calls: int,
    ) -> None:
        """`threads` for what is not answered at once; beyond `most_calls` gRPC answers RESOURCE_EXHAUSTED itself.

        Raises SettingError where host and port cannot be had.
        """
        options = [("grpc.so_reuseport", 0)]  # two servers on one port are a mistake, not a balance
        pool = DirectPool(threads, thread_name_prefix="call")
        self._service = service
        self._server = grpc.server(pool, options=options, maximum_concurrent_rpcs=most_calls)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (service, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self.serving(False)
        check_free(*address)
        self.port = self._server.add_insecure_port(f"{address[0]}:{address[1]}")
        self.address = f"{address[0]}:{self.port}"

    def serving(self, ready: bool) -> None:
        """Answer health checks so from now on, for the whole server and for its service."""
        status = HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING
        for name in ("", self._service):
            self._health.set(name, status)

    def start(self) -> None:
        """Take calls."""
        self._server.start()

    def retire(self) -> None:
        """Answer still, but ask not to be sent any more."""
        self._health.enter_graceful_shutdown()

    def stop(self, grace: float) -> None:
        """Take no more calls; returns when those at work are done, after `grace` seconds at the latest."""
        self._server.stop(grace).wait()


def check_free(host: str, port: int) -> None:
    """Raises SettingError where a server could not listen; gRPC would say so too, but in lines of its own."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, port), family=family).close()
    except OSError as problem:
        hint = f"{problem.strerror}: name an address of this machine and a free port, or 0 for any"
        raise SettingError("host:port", f"{host}:{port}", hint) from None
