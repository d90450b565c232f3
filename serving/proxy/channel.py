"""How model servers are reached, and what their methods are called."""

from __future__ import annotations

from typing import Any

import grpc

from protos import inference_pb2
from simulator.security.channels import NAME, open_bare
from simulator.security.credentials import PLAIN, Credentials

SERVICE = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
INFER = f"/{SERVICE}/ModelInfer"


def open_channel(address: str, answer_bytes: int, credentials: Credentials = PLAIN, name: str = "") -> grpc.Channel:
    """A connection to a model server, shared with no other channel; its answers have so many bytes at most.

    By TLS where there are authorities, whose certificate bears `name`, or the address where that is empty. No token of
    ours is sent: those that users send pass.
    """
    options = (
        ("grpc.max_receive_message_length", answer_bytes),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),  # one that is back is asked again within a second
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
        ("grpc.enable_http_proxy", 0),
        *(((NAME, name),) if name else ()),
    )
    return open_bare(credentials, address, options)


def unary(channel: grpc.Channel, name: str) -> Any:
    """A method with one request and one answer, as bytes."""
    return channel.unary_unary(f"/{SERVICE}/{name}")  # type: ignore[call-arg]  # without serializers it is bytes


def stream(channel: grpc.Channel, name: str) -> Any:
    """One with streams both ways."""
    return channel.stream_stream(f"/{SERVICE}/{name}")  # type: ignore[call-arg]  # as above
