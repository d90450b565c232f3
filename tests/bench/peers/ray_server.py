"""Ray Serve on a Ray of its own: `python -m peers.ray_server SIZED FOLDER`."""

from __future__ import annotations

import json
import signal
import sys

import numpy as np
import ray
from ray import serve

from peers.peer import free_port
from peers.ranking import MOST_AT_ONCE, Ranking
from protos.recommender_pb2 import Item, RecommendRequest, RecommendResponse

SERVICE = "protos.recommender_pb2_grpc.add_RecommenderServicer_to_server"
QUIET = {"enable_access_log": False}
OBJECT_STORE = 100_000_000
"""Bytes; no query comes near it."""


@serve.deployment(max_ongoing_requests=2 * MOST_AT_ONCE, logging_config=QUIET)
class Recommender:
    """One replica; Serve calls the method that a gRPC method is named after."""

    def __init__(self, sized: str) -> None:
        self._ranking = Ranking(sized)

    async def Recommend(self, query: RecommendRequest) -> RecommendResponse:  # noqa: N802
        """The answer to a query."""
        return await self._answers(query)

    @serve.batch(max_batch_size=MOST_AT_ONCE, batch_wait_timeout_s=0)
    async def _answers(self, queries: list[RecommendRequest]) -> list[RecommendResponse]:
        users, contexts = np.array([query.user for query in queries]), np.array([query.context for query in queries])
        slates = self._ranking.slates(users, contexts, [query.k for query in queries])
        answers = []
        for query, found in zip(queries, slates, strict=True):
            places = zip(found.items.tolist(), found.scores.tolist(), strict=True)
            slate = [Item(item=item, score=score) for item, score in places]
            answers.append(RecommendResponse(query_id=query.query_id, slate=slate))
        return answers


def main(sized: str, folder: str) -> None:
    """Serve until a signal comes."""
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE,
        log_to_driver=False,
        _temp_dir=folder,
        _node_ip_address="127.0.0.1",
    )
    port = free_port()
    serve.start(
        http_options={"host": "127.0.0.1", "port": free_port()},
        grpc_options={"port": port, "grpc_servicer_functions": [SERVICE]},
        logging_config=QUIET,
    )
    serve.run(Recommender.bind(sized))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    print(json.dumps({"ready": "ray_serve", "address": f"127.0.0.1:{port}"}), flush=True)
    signal.sigwait([signal.SIGTERM])
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
