"""The load client: one process that asks as it is told, line by line, on its standard input.

    {"address", "method", "connect", "seconds", "in_flight": n}     closed loop: n askers
    {"address", "method", "connect", "seconds", "rate": q}          open loop: q queries/s at even distances

It answers a line by {"answered", "failed", "seconds", "latencies": milliseconds}; in an open loop they count
from when a query was due.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import sys
import time
from typing import Any

from query_path.callers import Ask
from query_path.model import build


class Client:
    """Keeps its connections, and where it is in the queries."""

    def __init__(self, queries: list[bytes]) -> None:
        self._queries = itertools.cycle(queries)
        self._known: dict[tuple[str, str], Ask] = {}
        self._latencies: list[float] = []
        self._failed = 0

    async def run(self, order: dict[str, Any]) -> dict[str, Any]:
        """Follow one line."""
        key = order["address"], order["method"]
        if key not in self._known:
            module, _, function = order["connect"].partition(":")
            self._known[key] = await getattr(importlib.import_module(module), function)(*key)
        ask, self._latencies, self._failed = self._known[key], [], 0
        start = time.perf_counter()
        if "in_flight" in order:
            await asyncio.gather(*(self._closed(ask, start + order["seconds"]) for _ in range(order["in_flight"])))
        else:
            await self._open(ask, start, order["rate"], order["seconds"])
        return {
            "answered": len(self._latencies),
            "failed": self._failed,
            "seconds": time.perf_counter() - start,
            "latencies": self._latencies,
        }

    async def _closed(self, ask: Ask, end: float) -> None:
        while (now := time.perf_counter()) < end:
            await self._one(ask, now)

    async def _open(self, ask: Ask, start: float, rate: float, seconds: float) -> None:
        asked = []
        for number in range(round(rate * seconds)):
            due = start + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            asked.append(asyncio.create_task(self._one(ask, due)))
        await asyncio.gather(*asked)

    async def _one(self, ask: Ask, since: float) -> None:
        try:
            answer = await ask(next(self._queries))
        except Exception as problem:
            self._failed += 1
            print(f"failed: {problem}", file=sys.stderr)
            await asyncio.sleep(0.01)
            return
        self._latencies.append((time.perf_counter() - since) * 1_000)
        self._failed += not answer


async def main(sized: str) -> None:
    """Until standard input ends."""
    client, loop = Client(build(sized).queries()), asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await client.run(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
