"""LitServe with one worker: `python -m peers.lit_server SIZED FOLDER`."""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.request
from typing import Any

import litserve
import numpy as np
from fastapi import Response

from peers.peer import free_port
from peers.ranking import MOST_AT_ONCE, Ranking

Query = dict[str, Any]


class Api(litserve.LitAPI):
    """Its methods are what LitServe calls in the worker; batches are lists."""

    def __init__(self, sized: str) -> None:
        super().__init__(max_batch_size=MOST_AT_ONCE, batch_timeout=0.0)
        self._sized = sized

    def setup(self, device: str) -> None:
        """Once."""
        self._ranking = Ranking(self._sized)

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe would read a body for its annotation
        """The JSON of a request, parsed."""
        return request

    def batch(self, inputs: list[Query]) -> list[Query]:
        """Nothing to stack."""
        return inputs

    def predict(self, queries: list[Query]) -> list[Query]:
        """Rank."""
        users, contexts = np.array([q["user"] for q in queries]), np.array([q["context"] for q in queries])
        slates = self._ranking.slates(users, contexts, [q["k"] for q in queries])
        return [
            {"query_id": query["query_id"], "items": found.items.tolist(), "scores": found.scores.tolist()}
            for query, found in zip(queries, slates, strict=True)
        ]

    def unbatch(self, output: list[Query]) -> list[Query]:
        """Nothing to take apart."""
        return output

    def encode_response(self, output: Query) -> Response:
        """Made here: FastAPI would walk through every value first."""
        return Response(json.dumps(output), media_type="application/json")


def main(sized: str) -> None:
    """Serve until a signal comes."""
    port = free_port()
    threading.Thread(target=tell, args=(f"127.0.0.1:{port}",), daemon=True).start()
    server = litserve.LitServer(Api(sized), accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run("127.0.0.1", port, num_api_servers=1, generate_client_file=False, log_level="warning", access_log=False)


def tell(address: str) -> None:
    """Say that it is ready as soon as it is."""
    while True:
        try:
            urllib.request.urlopen(f"http://{address}/health", timeout=1.0)
            break
        except OSError:
            time.sleep(0.1)
    print(json.dumps({"ready": "litserve", "address": address}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
