"""Ways for the load client to ask: `connect(address, method)` gives an asynchronous function from query to answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import grpc.aio

from simulator.security.credentials import Credentials

Ask = Callable[[bytes], Awaitable[bytes]]


async def unary(address: str, method: str) -> Ask:
    """A unary gRPC call with raw bytes, all over one connection."""
    channel = grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
    call = channel.unary_unary(method)
    return lambda query: call(query, timeout=30)


async def secured(address: str, method: str) -> Ask:
    """The same by TLS, with the certificates and the token that the environment names."""
    credentials = Credentials.from_environment()
    pem, token = credentials.pem(), credentials.call_metadata(address)
    tls = grpc.ssl_channel_credentials(pem.ca, pem.key, pem.cert)
    channel = grpc.aio.secure_channel(address, tls, [("grpc.use_local_subchannel_pool", 1)])
    call = channel.unary_unary(method)
    return lambda query: call(query, timeout=30, metadata=token)
