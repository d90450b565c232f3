"""Calls of Triton's gRPC service, the KServe inference protocol v2, as far as they are needed here.

A query is one tensor, [1, 2 + C] int32: user, k, context. An answer is two, [1, k]: items int32, scores float32.
"""

from __future__ import annotations

import grpc.aio
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from query_path.callers import Ask

from protos.recommender_pb2 import RecommendRequest
from simulator.types import Slate

METHOD, MODEL = "/inference.GRPCInferenceService/ModelInfer", "ranker"
PROTOCOL = """
name: "peers/kserve.proto" package: "peers.kserve" syntax: "proto3"
message_type {
  name: "Tensor"
  field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "datatype" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "shape" number: 3 type: TYPE_INT64 label: LABEL_REPEATED }
}
message_type {
  name: "ModelInferRequest"
  field { name: "model_name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "inputs" number: 5 type: TYPE_MESSAGE type_name: ".peers.kserve.Tensor" label: LABEL_REPEATED }
  field { name: "raw_input_contents" number: 7 type: TYPE_BYTES label: LABEL_REPEATED }
}
message_type {
  name: "ModelInferResponse"
  field { name: "outputs" number: 5 type: TYPE_MESSAGE type_name: ".peers.kserve.Tensor" label: LABEL_REPEATED }
  field { name: "raw_output_contents" number: 6 type: TYPE_BYTES label: LABEL_REPEATED }
}
"""
POOL = descriptor_pool.DescriptorPool()
POOL.Add(text_format.Parse(PROTOCOL, descriptor_pb2.FileDescriptorProto()))
Tensor, ModelInferRequest, ModelInferResponse = (
    message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"peers.kserve.{name}"))
    for name in ("Tensor", "ModelInferRequest", "ModelInferResponse")
)


async def connect(address: str, method: str) -> Ask:
    """See query_path.callers; a query's tensor is made once, the client has the cores to share."""
    channel = grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
    call, known = channel.unary_unary(method), dict[bytes, bytes]()

    async def ask(query: bytes) -> bytes:
        if query not in known:
            known[query] = request(query)
        return bytes(await call(known[query], timeout=30))

    return ask


def request(query: bytes) -> bytes:
    """The call for a query."""
    asked = RecommendRequest.FromString(query)
    values = np.array([asked.user, asked.k, *asked.context], "<i4")
    tensor = Tensor(name="query", datatype="INT32", shape=[1, len(values)])
    return bytes(
        ModelInferRequest(model_name=MODEL, inputs=[tensor], raw_input_contents=[values.tobytes()]).SerializeToString()
    )


def slate_of(answer: bytes) -> Slate:
    """What a call brought."""
    response = ModelInferResponse.FromString(answer)
    found = {each.name: raw for each, raw in zip(response.outputs, response.raw_output_contents, strict=True)}
    return Slate(np.frombuffer(found["items"], "<i4").astype(np.int64), np.frombuffer(found["scores"], "<f4"))
