"""A real server and a real router of a few lines: generated stubs, coalesced raw bytes, health and reflection."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from protos import recommender_pb2, recommender_pb2_grpc
from tests.protos.filled import UNKNOWN

SERVICES = tuple(service.full_name for service in recommender_pb2.DESCRIPTOR.services_by_name.values())
RECOMMEND = "/flicker.v1.Recommender/Recommend"


class TinyRecommender(recommender_pb2_grpc.RecommenderServicer):
    """Feedback and replicas; Recommend is the raw handler below, as in a router."""

    def Feedback(
        self, request: recommender_pb2.FeedbackRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.FeedbackResponse:
        if not request.shown:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "shown = 0 items: 1 to 1,000")
        return recommender_pb2.FeedbackResponse(accepted=len(request.shown))

    def ListReplicas(
        self, request: recommender_pb2.ListReplicasRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.ListReplicasResponse:
        return recommender_pb2.ListReplicasResponse(replicas=[recommender_pb2.ReplicaState(name="a", arms=["relu"])])


class TinyReplica(recommender_pb2_grpc.ReplicaServicer):
    """Ranks the candidates as they come; an even user is an error. An answer carries a field of a later version."""

    def Rank(self, request: recommender_pb2.RankRequest, context: grpc.ServicerContext) -> recommender_pb2.RankResponse:
        response = recommender_pb2.RankResponse()
        for index, raw in enumerate(request.queries):
            query = recommender_pb2.RecommendRequest.FromString(raw)
            if query.user % 2 == 0:
                response.failures.add(index=index, code=3, message=f"user = {query.user}: odd")
                response.answers.append(b"")
                continue
            answer = recommender_pb2.RecommendResponse(query_id=query.query_id)
            answer.slate.extend(recommender_pb2.Item(item=item, score=-item) for item in query.candidates)
            answer.answered_by.MergeFrom(recommender_pb2.AnsweredBy(replica="a", arm=query.arm))
            echoed = UNKNOWN if UNKNOWN in query.SerializeToString() else b""
            response.answers.append(answer.SerializeToString() + echoed)
        return response


def passing_on(address: str) -> tuple[grpc.GenericRpcHandler, grpc.Channel]:
    """A handler for Recommend that hands bytes on to a replica and its answer back, unread."""
    channel = grpc.insecure_channel(address)
    replica = recommender_pb2_grpc.ReplicaStub(channel)

    def recommend(raw: bytes, context: grpc.ServicerContext) -> bytes:
        decided = recommender_pb2.RecommendRequest(query_id=9, arm="relu").SerializeToString()
        ranked = replica.Rank(recommender_pb2.RankRequest(queries=[raw + decided]), timeout=10)
        for failure in ranked.failures:
            status = next(code for code in grpc.StatusCode if code.value[0] == failure.code)
            context.abort(status, failure.message)
        return ranked.answers[0]

    service, method = RECOMMEND[1:].split("/")
    handlers = {method: grpc.unary_unary_rpc_method_handler(recommend)}  # no serialisers: bytes in, bytes out
    return grpc.method_handlers_generic_handler(service, handlers), channel


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """host:port of a server with everything: the replica too, so that the router's hop is a real call."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    port = server.add_insecure_port("127.0.0.1:0")
    passing, channel = passing_on(f"127.0.0.1:{port}")
    server.add_generic_rpc_handlers((passing,))
    recommender_pb2_grpc.add_RecommenderServicer_to_server(TinyRecommender(), server)
    recommender_pb2_grpc.add_ReplicaServicer_to_server(TinyReplica(), server)
    condition = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(condition, server)
    for service in SERVICES:
        condition.set(service, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        channel.close()
        server.stop(grace=0).wait()


@pytest.fixture
def channel(address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address) as channel:
        yield channel


def test_stubs_talk_to_servicers(channel: grpc.Channel) -> None:
    stub = recommender_pb2_grpc.RecommenderStub(channel)
    shown = [recommender_pb2.ShownItem(item=item, clicked=item == 2) for item in (1, 2, 3)]
    assert stub.Feedback(recommender_pb2.FeedbackRequest(user=1, shown=shown), timeout=10).accepted == 3
    assert [r.name for r in stub.ListReplicas(recommender_pb2.ListReplicasRequest(), timeout=10).replicas] == ["a"]


def test_a_query_passes_through_as_bytes(channel: grpc.Channel) -> None:
    query = recommender_pb2.RecommendRequest(user=1, candidates=[3, 5])
    answer = recommender_pb2_grpc.RecommenderStub(channel).Recommend(query, timeout=10)
    assert answer == recommender_pb2.RecommendResponse(
        query_id=9,
        slate=[recommender_pb2.Item(item=3, score=-3), recommender_pb2.Item(item=5, score=-5)],
        answered_by=recommender_pb2.AnsweredBy(replica="a", arm="relu"),
    )


def test_fields_of_a_later_version_pass_through_both_ways(channel: grpc.Channel) -> None:
    call = channel.unary_unary(RECOMMEND)
    assert call(recommender_pb2.RecommendRequest(user=1).SerializeToString() + UNKNOWN, timeout=10).endswith(UNKNOWN)
    assert not call(recommender_pb2.RecommendRequest(user=1).SerializeToString(), timeout=10).endswith(UNKNOWN)


def test_a_failed_query_is_its_own_users_error_only(channel: grpc.Channel) -> None:
    queries = [recommender_pb2.RecommendRequest(user=user).SerializeToString() for user in (1, 2, 3)]
    ranked = recommender_pb2_grpc.ReplicaStub(channel).Rank(recommender_pb2.RankRequest(queries=queries), timeout=10)
    assert [bool(answer) for answer in ranked.answers] == [True, False, True]
    assert [failure.index for failure in ranked.failures] == [1]
    with pytest.raises(grpc.RpcError) as error:
        recommender_pb2_grpc.RecommenderStub(channel).Recommend(recommender_pb2.RecommendRequest(user=2), timeout=10)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.details() == "user = 2: odd"


@pytest.mark.parametrize("service", ["", *SERVICES])
def test_standard_probes_are_answered(channel: grpc.Channel, service: str) -> None:
    request = health_pb2.HealthCheckRequest(service=service)
    answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_tells_a_stranger_the_whole_proto(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert set(SERVICES) <= set(database.get_services())
    pool = DescriptorPool(database)
    service = pool.FindServiceByName("flicker.v1.Recommender")
    assert [m.name for m in service.methods] == ["Recommend", "Compare", "Feedback", "Describe", "ListReplicas"]
    assert [f.name for f in service.methods[0].input_type.fields] == list(
        recommender_pb2.RecommendRequest.DESCRIPTOR.fields_by_name
    )
