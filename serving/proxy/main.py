"""`flicker shadow`, `python -m serving shadow`: flags and environment to a running proxy."""

from __future__ import annotations

import threading
from functools import partial

import grpc
from prometheus_client import CollectorRegistry

from serving.metrics import SECONDS, GrpcMetrics, ProxyMetrics
from serving.process import serve_alone
from serving.proxy.channel import SERVICE, open_channel
from serving.proxy.flags import ShadowFlags
from serving.proxy.kept import Kept
from serving.proxy.mirror import Mirror
from serving.proxy.proxy import Proxy
from serving.rpc import FOREVER, Door, GrpcServer, Limits
from simulator.flags import parse_flags

GRACE = 5.0
"""Seconds for what is being answered when the proxy ends."""
WEEKS = 2e6
"""Seconds that a connection may last: none of ours ends a stream."""


class RunningProxy:
    """A proxy's server and threads, in the three verbs of a process."""

    def __init__(self, flags: ShadowFlags, registry: CollectorRegistry, stop: threading.Event) -> None:
        """Raises ResultError for a folder that cannot be written, SettingError for a port that cannot be had."""
        self.name = f"shadow of {flags.first}"
        kept = Kept(flags.keep, flags.keep_bytes, flags.scores_are == "probabilities") if flags.keep else None
        credentials = flags.security.credentials()
        self._first = open_channel(flags.first, flags.message_bytes, flags.towards_servers(), flags.server_name)
        recorder = ProxyMetrics(registry, flags.window)
        self._mirror = Mirror(flags, recorder, kept)
        proxy = Proxy(self._first, self._mirror, flags.streams, credentials.tokens is not None)
        door = Door(limits(flags), GrpcMetrics(registry, SECONDS))
        address = flags.host, flags.port
        self._server = GrpcServer(SERVICE, proxy.handlers(), door, address, proxy.streams(), credentials)
        self.address = self._server.address

    def start(self) -> None:
        """Take calls; healthy while the first server is connected."""
        self._mirror.start()
        self._first.subscribe(self._connected, try_to_connect=True)
        self._server.start()

    def _connected(self, state: grpc.ChannelConnectivity) -> None:
        """A connection that ended is idle, until somebody asks for it: this does."""
        if state is grpc.ChannelConnectivity.IDLE:
            grpc.channel_ready_future(self._first)
        else:
            self._server.serving(state is grpc.ChannelConnectivity.READY)

    def stop(self) -> None:
        """Take nothing new, answer what was taken, write what was kept."""
        self._server.retire()
        self._server.stop(GRACE)
        self._first.unsubscribe(self._connected)  # and not closed: grpcio's thread that watches it would trip over that
        self._mirror.close()


def limits(flags: ShadowFlags) -> Limits:
    """What the proxy holds at once. A slow model is no reason to refuse: its queue is its own."""
    message_bytes = flags.message_bytes
    return Limits(
        flags.in_flight,
        message_bytes,
        deadline_seconds=flags.deadline,
        target_seconds=FOREVER,
        bytes=4 * message_bytes,
        half_open=flags.in_flight,
        half_open_seconds=60.0,
        unread=flags.in_flight,
        unread_bytes=4 * message_bytes,
        unread_seconds=60.0,
        streams=flags.in_flight,  # a gateway in front may bring all of them by one connection
        pending=flags.in_flight,
        pending_seconds=60,
        age_seconds=WEEKS,
    )


def main(arguments: list[str]) -> None:
    """Serve until a signal comes. Raises FlickerError for what the user can mend."""
    flags = parse_flags(ShadowFlags, "flicker shadow", arguments)
    serve_alone("shadow", flags, partial(RunningProxy, flags))
