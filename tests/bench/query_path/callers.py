"""Ways for the load client to ask: `connect(address, method)` gives an asynchronous function from query to answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import grpc.aio

Ask = Callable[[bytes], Awaitable[bytes]]


async def unary(address: str, method: str) -> Ask:
    """A unary gRPC call with raw bytes, all over one connection."""
    channel = grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
    call = channel.unary_unary(method)
    return lambda query: call(query, timeout=30)
