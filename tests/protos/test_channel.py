"""One channel to several routers: all are asked, a lost one costs a retry, and a report is never made twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from protos.channel import ATTEMPTS, REPEATABLE, router_channel, target
from protos.recommender_pb2 import DESCRIPTOR, FeedbackRequest, FeedbackResponse, RecommendRequest, RecommendResponse
from protos.recommender_pb2_grpc import RecommenderServicer, RecommenderStub, add_RecommenderServicer_to_server


class Router(RecommenderServicer):
    """Counts what it is asked; answers, or refuses as long as it is told to."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.refuses = False
        self.server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        add_RecommenderServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def Recommend(self, request: RecommendRequest, context: grpc.ServicerContext) -> RecommendResponse:
        self._count("Recommend", context)
        return RecommendResponse(query_id=request.query_id)

    def Feedback(self, request: FeedbackRequest, context: grpc.ServicerContext) -> FeedbackResponse:
        self._count("Feedback", context)
        return FeedbackResponse()

    def _count(self, method: str, context: grpc.ServicerContext) -> None:
        self.asked[method] += 1
        if self.refuses:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")


@pytest.fixture
def routers() -> Iterator[list[Router]]:
    made = [Router(), Router()]
    yield made
    for router in made:
        router.server.stop(0).wait()


@pytest.fixture
def stub(routers: list[Router]) -> Iterator[RecommenderStub]:
    with router_channel(", ".join(router.address for router in routers)) as channel:
        grpc.channel_ready_future(channel).result(10)
        yield RecommenderStub(channel)


def ask(stub: RecommenderStub, queries: int) -> None:
    for number in range(queries):
        assert stub.Recommend(RecommendRequest(query_id=number), timeout=5).query_id == number


def test_all_are_asked_and_one_that_is_gone_fails_no_query(routers: list[Router], stub: RecommenderStub) -> None:
    ask(stub, 100)
    assert sum(router.asked["Recommend"] for router in routers) == 100
    assert min(router.asked["Recommend"] for router in routers) > 20
    routers[0].server.stop(0)
    ask(stub, 100)


def test_a_router_that_cannot_answer_costs_a_retry(routers: list[Router], stub: RecommenderStub) -> None:
    routers[0].refuses = True
    ask(stub, 20)
    assert routers[0].asked["Recommend"] > 0 and routers[1].asked["Recommend"] == 20


def test_queries_and_reports_are_tried_a_few_times(routers: list[Router], stub: RecommenderStub) -> None:
    for router in routers:
        router.refuses = True
    for call in (
        lambda: stub.Recommend(RecommendRequest(), timeout=5),
        lambda: stub.Feedback(FeedbackRequest(), timeout=5),
    ):
        with pytest.raises(grpc.RpcError) as problem:
            call()
        assert isinstance(problem.value, grpc.Call) and problem.value.code() is grpc.StatusCode.UNAVAILABLE
    asked = routers[0].asked + routers[1].asked
    assert asked == {"Recommend": ATTEMPTS, "Feedback": ATTEMPTS}


@pytest.mark.parametrize(
    ("addresses", "name"),
    [
        ("router:50051", "router:50051"),
        ("dns:///router:50051", "dns:///router:50051"),
        ("127.0.0.1:1, 127.0.0.2:2", "ipv4:127.0.0.1:1,127.0.0.2:2"),
        ("127.0.0.1:1,nobody.invalid:2", "ipv4:127.0.0.1:1"),
        ("nobody.invalid:2,nowhere.invalid:3", "nobody.invalid:2"),
    ],
)
def test_how_grpc_names_them(addresses: str, name: str) -> None:
    assert target(addresses) == name


def test_every_call_of_a_router_may_be_made_again() -> None:
    assert set(REPEATABLE) == set(DESCRIPTOR.services_by_name["Recommender"].methods_by_name)
