"""Under a steady 100 queries per second: a replica killed, the store gone, a refresh every second. No query fails."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from protos.recommender_pb2 import FeedbackRequest, ShownItem
from simulator.store.protocol import StoreError
from tests.integration.conftest import REPLICAS, StoreProcess
from tests.integration.publisher import Publisher
from tests.integration.system import Asked, System, until
from tests.integration.traffic import Traffic

OUT_OF_POOL = 1.0
"""Seconds that a dead replica may stay in the pool."""
FOLLOWS = 2.0
"""Seconds from publishing to answers of all replicas; some tenths where the machine has nothing else to do."""
SHOWN = [ShownItem(item=item, clicked=item == 3) for item in range(10)]


def all_serve(asked: Asked, generation: int) -> bool:
    """Whether every replica is in the pool with this generation."""
    states = asked.replicas()
    ready = all(state.healthy and state.generation == generation for state in states.values())
    return ready and set(states) == set(REPLICAS) and asked.serves()


def test_a_replica_is_killed_and_comes_back(system: System, publisher: Publisher) -> None:
    with system.router() as asked:
        until(lambda: all_serve(asked, publisher.generation), "all replicas serve")
        with Traffic(asked.address) as traffic:
            time.sleep(1.0)
            killed = time.monotonic()
            system.kill("replica-1")
            out = until(lambda: "replica-1" not in asked.healthy(), "the dead replica leaves the pool")
            time.sleep(1.0)
            assert {outcome.replica for outcome in traffic.since(killed + out)} == {"replica-0", "replica-2"}
            system.start_replicas("replica-1")
            until(lambda: all_serve(asked, publisher.generation), "the replica is back")
            moment = time.monotonic()
            until(lambda: "replica-1" in {outcome.replica for outcome in traffic.since(moment)}, "it answers")
        traffic.assert_none_failed(least=300)
        until(lambda: sorted(state.duplicate for state in asked.replicas().values()) == [0, 1, 2], "0, 1 and 2 held")
    print(f"{out:.3f} s until out of the pool; slowest of {len(traffic.outcomes)} queries {traffic.slowest():.3f} s")
    assert out < OUT_OF_POOL


def test_a_refresh_every_second(system: System, publisher: Publisher) -> None:
    with system.router() as asked:
        until(lambda: all_serve(asked, publisher.generation), "all replicas serve")
        followed: list[float] = []
        with Traffic(asked.address) as traffic:
            for _ in range(5):
                newest, published = publisher.publish(), time.monotonic()
                followed.append(until(lambda: all_serve(asked, newest), "all replicas follow"))  # noqa: B023
                moment = time.monotonic()
                time.sleep(max(0.0, published + 1.0 - moment))
                assert {outcome.generation for outcome in traffic.since(moment)} <= {newest}
        traffic.assert_none_failed(least=450)
        assert {outcome.generation for outcome in traffic.outcomes} >= {newest - n for n in range(5)}
    print(f"all follow after {max(followed):.3f} s; slowest of {len(traffic.outcomes)} {traffic.slowest():.3f} s")
    assert max(followed) < FOLLOWS


@pytest.mark.parametrize("away", [6.0])
def test_the_store_is_away(
    system: System, publisher: Publisher, store_process: StoreProcess, away: float, tmp_path: Path
) -> None:
    with system.router(spool=tmp_path) as asked:
        until(lambda: all_serve(asked, publisher.generation), "all replicas serve")
        before = publisher.store.waiting()
        users = itertools.cycle(range(500))

        def report() -> int:
            answer = asked.stub.Feedback(FeedbackRequest(user=next(users), shown=SHOWN), timeout=5)
            return int(answer.accepted)

        taken = report()
        until(lambda: publisher.store.waiting() == before + taken, "feedback reaches the log")
        with Traffic(asked.address) as traffic:
            gone = time.monotonic()
            store_process.kill()
            for _ in range(100):
                taken += report()
            assert asked.metrics().value("flicker_feedback_buffered") == 100
            assert asked.metrics().total("flicker_feedback_refused_total") == 0
            until(lambda: asked.metrics().value("flicker_router_store_up") == 0, "the router notices")
            with pytest.raises(StoreError):
                publisher.store.ping()
            time.sleep(max(0.0, gone + away - time.monotonic()))
            assert asked.healthy() == set(REPLICAS)
            store_process.start()
            back = time.monotonic()
            newest = publisher.publish()
            until(lambda: all_serve(asked, newest), "all replicas serve a new generation")
            served = time.monotonic() - back
            until(lambda: publisher.store.waiting() == before + taken, "what was spooled reaches the log, once")
            taken += report()
            until(lambda: publisher.store.waiting() == before + taken, "feedback flows again")
            until(lambda: newest in {outcome.generation for outcome in traffic.since(back)}, "it answers")
        traffic.assert_none_failed(least=round(away * 90))
    print(
        f"{served:.2f} s from the store's return to the new generation everywhere; "
        f"slowest of {len(traffic.outcomes)} queries {traffic.slowest():.3f} s"
    )
