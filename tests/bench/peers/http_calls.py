"""Queries by HTTP/1.1 and JSON on kept connections, with as little work for the client as can be."""

from __future__ import annotations

import asyncio
import json

from query_path.callers import Ask

from protos.recommender_pb2 import RecommendRequest

PROBLEM = 200
"""Bytes of an unexpected answer that an error repeats."""


async def connect(address: str, path: str) -> Ask:
    """See query_path.callers; as many connections as queries in flight, a query's bytes are made once."""
    idle, known = list[tuple[asyncio.StreamReader, asyncio.StreamWriter]](), dict[bytes, bytes]()
    host, _, port = address.partition(":")

    async def ask(query: bytes) -> bytes:
        if query not in known:
            known[query] = request(query, address, path)
        while idle:
            reader, writer = idle.pop()
            if not reader.at_eof():  # servers end connections that rest for some seconds
                break
        else:
            reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(known[query])
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        _, found, length = head.partition(b"\r\ncontent-length:")
        answer = await reader.readexactly(int(length.split(b"\r\n")[0]) if found else 0)
        if not head.startswith(b"http/1.1 200 "):
            raise RuntimeError(f"{head[:PROBLEM]!r} {answer[:PROBLEM]!r}")
        idle.append((reader, writer))
        return answer

    return ask


def request(query: bytes, address: str, path: str) -> bytes:
    """Head and body."""
    asked = RecommendRequest.FromString(query)
    fields = {"query_id": asked.query_id, "user": asked.user, "context": list(asked.context), "k": asked.k}
    body = json.dumps(fields).encode()
    lines = (
        f"POST {path} HTTP/1.1",
        f"Host: {address}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join([*lines, "", ""]).encode() + body
