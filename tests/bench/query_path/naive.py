"""The naive way: an asyncio router that passes each query on as a call of its own to an asyncio replica, which ranks on
its event loop with the model as a PyTorch module.

    python -m query_path.naive replica SIZED
    python -m query_path.naive router SIZED ADDRESS
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc.aio

from protos.recommender_pb2 import Item, RecommendRequest, RecommendResponse
from protos.recommender_pb2_grpc import RecommenderServicer, RecommenderStub, add_RecommenderServicer_to_server
from query_path.contender import Served, pid


class NaiveRouter(RecommenderServicer):
    """Passes queries on."""

    def __init__(self, address: str) -> None:
        self._stub = RecommenderStub(grpc.aio.insecure_channel(address))  # type: ignore[arg-type]

    async def Recommend(self, request: RecommendRequest, context: Any) -> RecommendResponse:  # noqa: N802
        return await self._stub.Recommend(request, timeout=30)


class NaiveReplica(RecommenderServicer):
    """Ranks."""

    def __init__(self, sized: str) -> None:
        import torch
        from plain import plain_copies

        from query_path.model import build

        torch.set_num_threads(1)
        self._torch, self._made = torch, build(sized)
        self._model = plain_copies(self._made.engine)[0].eval()

    async def Recommend(self, request: RecommendRequest, context: Any) -> RecommendResponse:  # noqa: N802
        items = self._made.candidates(request.user)
        features = self._made.features(request.user, list(request.context), items)
        with self._torch.no_grad():
            best = self._torch.topk(self._model(self._torch.from_numpy(features)), request.k)
        places = zip(items[best.indices.numpy()].tolist(), best.values.tolist(), strict=True)
        slate = [Item(item=item, score=score) for item, score in places]
        return RecommendResponse(query_id=request.query_id, slate=slate)


async def serve(role: str, sized: str, address: str = "") -> None:
    """Until a signal comes."""
    servicer = NaiveReplica(sized) if role == "replica" else NaiveRouter(address)
    server = grpc.aio.server()
    add_RecommenderServicer_to_server(servicer, server)  # type: ignore[arg-type]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"ready": role, "address": f"127.0.0.1:{port}"}), flush=True)
    await server.wait_for_termination()


class Naive(Served):
    """Both of them."""

    def __init__(self, sized: str, folder: Path) -> None:
        super().__init__("naive", folder, "query_path.naive", "router", sized)
        self._replica = Served("naive replica", folder, "query_path.naive", "replica", sized)

    def start(self) -> None:
        """See Contender."""
        self._replica.start()
        self.child.command.append(self._replica.address)
        super().start()

    def stop(self) -> None:
        """See Contender."""
        super().stop()
        self._replica.stop()

    def pids(self) -> list[int]:
        """See Contender."""
        return [pid(self.child), *self._replica.pids()]


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
