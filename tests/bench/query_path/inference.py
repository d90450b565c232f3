"""The Open Inference Protocol: how the load client asks by it, and a server whose answers cost nothing.

    python -m query_path.inference VERSION      answers every ModelInfer with scores of its own

A query becomes a request for the scores of 200 items; both servers' scores differ a little, and are the same each time.
"""

from __future__ import annotations

import json
import signal
import sys

import grpc.aio
import numpy as np
from prometheus_client import CollectorRegistry

from protos.inference_pb2 import ModelInferRequest, ModelInferResponse
from protos.recommender_pb2 import RecommendRequest
from query_path.callers import Ask
from serving.metrics import GrpcMetrics
from serving.rpc import Door, GrpcServer, Handler, Limits
from simulator.randomness import generator

SERVICE, INFER, ITEMS = "inference.GRPCInferenceService", "/inference.GRPCInferenceService/ModelInfer", 200


async def connect(address: str, method: str) -> Ask:
    """See query_path.callers; a request is made once, the client has the cores to share."""
    channel = grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
    call, known = channel.unary_unary(method), dict[bytes, bytes]()

    async def ask(query: bytes) -> bytes:
        if query not in known:
            known[query] = request(RecommendRequest.FromString(query))
        return bytes(await call(known[query], timeout=30))

    return ask


def request(query: RecommendRequest) -> bytes:
    """A query with items of its own."""
    items = generator(query.query_id, "items").permutation(20_000)[:ITEMS]
    tensors = {"user": np.array([query.user]), "items": items}
    asked = ModelInferRequest(model_name="ranker", id=str(query.query_id))
    for name, values in tensors.items():
        asked.inputs.add(name=name, datatype="INT64", shape=values.shape)
        asked.raw_input_contents.append(values.astype("<i8").tobytes())
    return bytes(asked.SerializeToString())


def answer(version: int) -> bytes:
    """What a server says to everybody."""
    scores = generator(0, "scores").normal(size=ITEMS) + 0.1 * generator(version, "scores").normal(size=ITEMS)
    found = ModelInferResponse(model_name="ranker", raw_output_contents=[scores.astype("<f4").tobytes()])
    found.outputs.add(name="output_0", datatype="FP32", shape=[ITEMS])
    return bytes(found.SerializeToString())


def main(version: str) -> None:
    """Serve until a signal comes."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    told, door = answer(int(version)), Door(Limits(1_024, 1 << 20), GrpcMetrics(CollectorRegistry(), (1.0,)))
    methods = {"ModelInfer": Handler(lambda raw, reply: reply.end(told, None), "server")}
    server = GrpcServer(SERVICE, methods, door, ("127.0.0.1", 0))
    server.start()
    print(json.dumps({"ready": "inference", "address": server.address}), flush=True)
    signal.sigwait([signal.SIGTERM])
    server.stop(1.0)


if __name__ == "__main__":
    main(*sys.argv[1:])
