"""A small model server that speaks the Open Inference Protocol by gRPC: a deterministic model in NumPy, and faults.

    python -m tests.serving.model_server VERSION      serves until a signal comes, says where

A request has two inputs, `user` [B] INT64 and `items` [N] or [B, N] INT64; the answer `output_0` [B, N] FP32, log-odds.
Versions differ a little; tests bring a `shape` of their own to what is answered.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import numpy as np

from protos import inference_pb2 as pb
from protos.inference_pb2_grpc import GRPCInferenceServiceServicer, add_GRPCInferenceServiceServicer_to_server
from simulator.types import Floats, Ints
from tests.serving.ranker import scores

Shape = Callable[[pb.ModelInferRequest, Floats], pb.ModelInferResponse]


def request(users: Ints, items: Ints, **more: object) -> pb.ModelInferRequest:
    """As tritonclient would ask."""
    tensors = {"user": users, "items": items}
    inputs = [
        pb.ModelInferRequest.InferInputTensor(name=name, datatype="INT64", shape=values.shape)
        for name, values in tensors.items()
    ]
    raw = [values.astype("<i8").tobytes() for values in tensors.values()]
    return pb.ModelInferRequest(model_name="ranker", inputs=inputs, raw_input_contents=raw, **more)


def answer(asked: pb.ModelInferRequest, found: Floats) -> pb.ModelInferResponse:
    """With raw contents."""
    output = pb.ModelInferResponse.InferOutputTensor(name="output_0", datatype="FP32", shape=found.shape)
    raw = [found.astype("<f4").tobytes()]
    return pb.ModelInferResponse(model_name=asked.model_name, id=asked.id, outputs=[output], raw_output_contents=raw)


class ModelServer(GRPCInferenceServiceServicer):
    """Serves one version, whatever a request asks for, but the one that its model's name ends with: `ranker@2`."""

    def __init__(
        self, version: int = 1, port: int = 0, shape: Shape = answer, tls: grpc.ServerCredentials | None = None
    ) -> None:
        self.version, self.shape = version, shape
        self.asked: list[bytes] = []
        """Requests to infer, as they came."""
        self.metadata: list[tuple[str, str]] = []
        self.gate = threading.Event()
        """Calls wait while it is not set."""
        self.gate.set()
        self._server = grpc.server(ThreadPoolExecutor(40))
        add_GRPCInferenceServiceServicer_to_server(self, self._server)
        address = f"127.0.0.1:{port}"
        port = self._server.add_secure_port(address, tls) if tls else self._server.add_insecure_port(address)
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    def infer(self, asked: pb.ModelInferRequest) -> pb.ModelInferResponse:
        """The answer to one request."""
        users, items = (np.frombuffer(raw, "<i8").astype(np.int64) for raw in asked.raw_input_contents[:2])
        _, _, version = asked.model_name.partition("@")
        wide = items.reshape(-1, asked.inputs[1].shape[-1])
        return self.shape(asked, scores(users, wide, int(version or self.version)))

    def ModelInfer(self, asked: pb.ModelInferRequest, context: grpc.ServicerContext) -> pb.ModelInferResponse:  # noqa: N802
        self.asked.append(asked.SerializeToString(deterministic=True))
        self.metadata += context.invocation_metadata()
        assert self.gate.wait(20)
        if not asked.inputs:
            context.set_trailing_metadata((("reason-bin", b"\0none"),))
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "inputs = none: give \u00b5 some")
        context.send_initial_metadata((("served-by", str(self.version)),))
        return self.infer(asked)

    def ModelStreamInfer(  # noqa: N802
        self, asked: Iterator[pb.ModelInferRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.ModelStreamInferResponse]:
        context.send_initial_metadata((("served-by", str(self.version)),))
        for each in asked:
            if not each.inputs:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "inputs = none")
            yield pb.ModelStreamInferResponse(infer_response=self.infer(each))

    def ServerLive(self, asked: object, context: object) -> pb.ServerLiveResponse:  # noqa: N802
        return pb.ServerLiveResponse(live=True)

    def ServerReady(self, asked: object, context: object) -> pb.ServerReadyResponse:  # noqa: N802
        return pb.ServerReadyResponse(ready=True)

    def ModelReady(self, asked: pb.ModelReadyRequest, context: object) -> pb.ModelReadyResponse:  # noqa: N802
        return pb.ModelReadyResponse(ready=asked.name == "ranker")

    def ServerMetadata(self, asked: object, context: object) -> pb.ServerMetadataResponse:  # noqa: N802
        return pb.ServerMetadataResponse(name="of the tests", version=str(self.version), extensions=["sequence"])

    def ModelMetadata(self, asked: pb.ModelMetadataRequest, context: object) -> pb.ModelMetadataResponse:  # noqa: N802
        return pb.ModelMetadataResponse(name=asked.name, versions=[str(self.version)], platform="numpy")

    def stop(self) -> None:
        """As a crash does: connections break."""
        stopped = self._server.stop(None)
        self.gate.set()
        stopped.wait()


@contextmanager
def serving(version: int = 1, shape: Shape = answer) -> Iterator[ModelServer]:
    """One until the end."""
    server = ModelServer(version, shape=shape)
    try:
        yield server
    finally:
        server.stop()


def main(version: str) -> None:
    """Serve until a signal comes."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    server = ModelServer(int(version))
    print(json.dumps({"ready": "model server", "address": server.address}), flush=True)
    signal.sigwait([signal.SIGTERM])
    server.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
