"""A real trainer behind a router and two replicas: from nothing published, through a kill, to the next generations."""

from __future__ import annotations

from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.recommender_pb2 import CompareRequest, FeedbackRequest, RecommendRequest, ShownItem
from tests.integration.conftest import StoreProcess
from tests.integration.system import Asked, System, refusal, until
from tests.integration.traffic import Traffic

SMALL = (
    "--hidden 32 16 --dim 8 --batch 128 --window 4 --events 200000 --users 500 --items 400 --candidates 100 "
    "--duplicates 2 --rate 1500"
).split()
"""A generation is two windows, 1,024 events: two in three seconds."""
NOT_SERVING, SERVING = health_pb2.HealthCheckResponse.NOT_SERVING, health_pb2.HealthCheckResponse.SERVING


def health(address: str) -> int:
    """What a server says of itself, as a probe asks it."""
    with grpc.insecure_channel(address) as channel:
        return int(health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5).status)


def newest(asked: Asked) -> int:
    """The generation that every replica serves at least; -1 while one has none."""
    states = asked.replicas().values()
    return min((s.generation if s.HasField("generation") and s.healthy else -1 for s in states), default=-1)


def test_nothing_published_then_a_trainer_that_is_killed(store_process: StoreProcess, tmp_path: Path) -> None:
    system = System(store_process.url, "trained", tmp_path)
    start_trainer = lambda: system.start("trainer", "-m", "trainer", "--state", tmp_path / "state", *SMALL)  # noqa: E731
    try:
        with system.router() as asked:
            system.start_replicas("one", "two")
            replicas = [system.ready(name)["address"] for name in ("one", "two")]
            until(lambda: len(asked.replicas()) == 2, "the router knows them")
            assert [health(address) for address in (asked.address, *replicas)] == [NOT_SERVING] * 3
            assert newest(asked) == -1 and not asked.healthy()
            for call in (
                lambda: asked.stub.Recommend(RecommendRequest(), timeout=5),
                lambda: asked.stub.Compare(CompareRequest(), timeout=5),
                lambda: asked.stub.Feedback(FeedbackRequest(shown=[ShownItem(item=1)]), timeout=5),
            ):
                code, details = refusal(call)
                assert code is grpc.StatusCode.UNAVAILABLE and "nothing is published yet" in details, details
            start_trainer()
            first = until(lambda: newest(asked) >= 1 and asked.serves(), "both serve")
            assert [health(address) for address in (asked.address, *replicas)] == [SERVING] * 3
            assert asked.stub.Recommend(RecommendRequest(user=7), timeout=5).slate
            with Traffic(asked.address) as traffic:
                system.kill("trainer")
                before = newest(asked)
                start_trainer()
                again = until(lambda: newest(asked) >= before + 2, "generations go on")
            traffic.assert_none_failed(least=100)
            numbers = {outcome.generation for outcome in traffic.outcomes}
            assert numbers == set(range(min(numbers), max(numbers) + 1)) and len(numbers) >= 3
        print(f"{first:.2f} s to the first answer, {again:.2f} s to two generations after the kill")
        print(f"{system.memory() / 2**20:.0f} MiB for trainer and two replicas")
        system.stop()
        for name, child in system.children.items():
            assert child.process is not None and child.process.returncode == 0, (name, child.last_words())
            assert "Traceback" not in system.log(name), system.log(name)
    finally:
        system.stop()
