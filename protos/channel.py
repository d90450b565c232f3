"""A client's channel to one router or several: they are asked in turn, and what one of them lost is asked again.

Routers keep no state that an answer depends on, so that any of them may take any query.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Sequence
from typing import Any

import grpc

ATTEMPTS = 3
"""Times that a call is made at most: at once, then twice more where it ended UNAVAILABLE."""
REPEATABLE = ("Recommend", "Compare", "Describe", "ListReplicas", "Feedback")
"""Calls that may be made again whatever became of the first attempt: the store knows a report of clicks, by its client
and query id, that a router which died had passed on."""
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "flicker.v1.Recommender", "method": name} for name in REPEATABLE],
            "retryPolicy": {
                "maxAttempts": ATTEMPTS,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
"""https://github.com/grpc/grpc-proto/blob/master/grpc/service_config/service_config.proto"""
OPTIONS = (
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),  # a router that is back is asked again within a second
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),  # and found again where its address is another
)


Connect = Callable[[str, Sequence[tuple[str, Any]]], grpc.Channel]
"""Makes a channel of target and options."""


def router_channel(addresses: str, connect: Connect = grpc.insecure_channel) -> grpc.Channel:
    """A channel to every router of `addresses`: host:port, several of them with commas between, or dns:///name:port.

    `connect` may bring certificates; of several routers all must show the name of the first, as one service's do.
    """
    first, *others = addresses.split(",")
    name = (("grpc.ssl_target_name_override", first.strip().rpartition(":")[0]),) if others else ()
    return connect(target(addresses), OPTIONS + name)


def target(addresses: str) -> str:
    """The same as gRPC names it, which takes several numbers but one name alone: names are looked up here.

    Those that cannot be looked up are left out; where none can, gRPC says so with the first call.
    """
    several = [address.strip() for address in addresses.split(",") if address.strip()]
    if len(several) < 2:
        return addresses.strip().strip(",")
    found = []
    for address in several:
        host, _, port = address.rpartition(":")
        with contextlib.suppress(OSError):
            found.append(f"{socket.gethostbyname(host)}:{port}")
    return f"ipv4:{','.join(found)}" if found else several[0]
