"""Triton with the tests' model, by pytriton: `python -m tests.serving.real_triton PORT PORT`."""

from __future__ import annotations

import signal
import sys
from typing import Any

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from tests.serving.ranker import scores


def main(grpc_port: str, http_port: str) -> None:
    """Serve `ranker-1` and `ranker-2` until a signal comes."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    host = {"grpc_address": "127.0.0.1", "http_address": "127.0.0.1"}
    triton = Triton(
        config=TritonConfig(grpc_port=int(grpc_port), http_port=int(http_port), allow_metrics=False, **host)
    )
    for version in (1, 2):

        @batch
        def infer(user: Any, items: Any, version: int = version) -> dict[str, Any]:
            return {"output_0": scores(user[:, 0], items, version)}

        triton.bind(
            f"ranker-{version}",
            infer,
            inputs=[Tensor(name="user", dtype=np.int64, shape=(1,)), Tensor(name="items", dtype=np.int64, shape=(-1,))],
            outputs=[Tensor(name="output_0", dtype=np.float32, shape=(-1,))],
            config=ModelConfig(max_batch_size=64, batcher=DynamicBatcher(max_queue_delay_microseconds=1_000)),
            strict=False,
        )
    triton.run()
    signal.sigwait([signal.SIGTERM])
    triton.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
