"""Triton with the model in a Python process beside it: `python -m peers.triton_server SIZED FOLDER`."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from peers.peer import free_port
from peers.ranking import MOST_AT_ONCE, Ranking
from peers.triton_calls import MODEL

DELAY = 1_000
"""Microseconds that a batch waits for more queries: no change at 32 in flight, a third less CPU at 4."""


def main(sized: str, folder: str) -> None:
    """Serve until a signal comes."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    ranking, host, port = Ranking(sized), "127.0.0.1", free_port()

    @batch
    def infer(query: np.ndarray) -> dict[str, np.ndarray]:
        slates = ranking.slates(query[:, 0], query[:, 2:], query[:, 1].tolist())
        items, scores = np.stack([each.items for each in slates]), np.stack([each.scores for each in slates])
        return {"items": items.astype(np.int32), "scores": scores}

    addresses = {"http_address": host, "http_port": free_port(), "grpc_address": host, "grpc_port": port}
    triton = Triton(config=TritonConfig(**addresses, allow_metrics=False), workspace=Path(folder) / "triton")
    triton.bind(
        MODEL,
        infer,
        inputs=[Tensor(name="query", dtype=np.int32, shape=(-1,))],
        outputs=[
            Tensor(name="items", dtype=np.int32, shape=(-1,)),
            Tensor(name="scores", dtype=np.float32, shape=(-1,)),
        ],
        config=ModelConfig(max_batch_size=MOST_AT_ONCE, batcher=DynamicBatcher(max_queue_delay_microseconds=DELAY)),
        strict=False,  # spares a check of every answer's types
    )
    triton.run()
    print(json.dumps({"ready": "pytriton", "address": f"{host}:{port}"}), flush=True)
    signal.sigwait([signal.SIGTERM])
    triton.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
