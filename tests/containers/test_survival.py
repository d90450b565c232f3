"""What happens under 100 queries/s when a process dies, and when a replica more is started."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable

import pytest
import redis

from tests.containers.asking import answering, metric, prometheus
from tests.containers.engine import containers, project, until


def order(entry: str) -> int:
    """Events of the log up to the end of this entry."""
    return int(entry.partition("-")[0])


def counted() -> tuple[float, float]:
    """Calls of the simulated users that have ended, and those that failed."""
    return metric("load", "flicker_load_calls_total"), metric("load", "flicker_load_failures_total")


def test_a_replica_more_serves_within_20_seconds(note: Callable[[str], None]) -> None:
    _, failures = counted()
    # what `docker compose up --scale replica=N` makes: the same settings, network and alias, another number
    extra = containers("replica")[0].another(f"{project()}-replica-99")
    try:
        start = time.monotonic()
        extra.start()
        until(lambda: answering(20)[extra.host], 20, "the new replica answers no query")
        note(f"a replica more: answers after {time.monotonic() - start:.1f} s")

        def scraped() -> bool:
            targets = prometheus("targets")["activeTargets"]
            up = [t for t in targets if t["labels"]["job"] == "replica" and t["health"] == "up"]
            return len(up) == len(containers("replica"))

        until(scraped, 30, "Prometheus does not find the new replica")
    finally:
        extra.remove()
    assert counted()[1] == failures


def test_a_replica_that_dies_fails_no_query_and_comes_back(note: Callable[[str], None]) -> None:
    calls, failures = counted()
    victim = containers("replica")[0]
    start = time.monotonic()
    victim.crash()
    answering(100)
    until(lambda: answering(20)[victim.host], 30, "the replica that died does not answer again")
    note(f"a replica that died: answers again after {time.monotonic() - start:.1f} s")
    assert counted()[0] > calls
    assert counted()[1] == failures


def test_a_router_that_dies_fails_no_query_and_comes_back(note: Callable[[str], None]) -> None:
    victim, *others = containers("router")
    if not others:
        pytest.skip("there is one router alone")
    failed = metric("load", "flicker_load_failures_total", method="Recommend")
    start = time.monotonic()
    victim.crash()
    answering(100)
    until(victim.is_healthy, 30, "the router that died does not serve again")
    until(lambda: metric(victim.address, "flicker_router_queries_total", code="OK") > 20, 30, "nobody asks it again")
    note(f"a router that died: asked again after {time.monotonic() - start:.1f} s")
    assert metric("load", "flicker_load_failures_total", method="Recommend") == failed


def test_a_trainer_that_dies_goes_on_where_it_was(note: Callable[[str], None]) -> None:
    trainer = containers("trainer")[0]
    command: list[str] = trainer.inspect()["Config"]["Cmd"]
    size = int(command[command.index("--generation-events") + 1])
    failures, before = counted()[1], metric("trainer", "flicker_generation")
    start = time.time()
    trainer.crash()

    def going_on() -> re.Match[str] | None:
        return re.search(r"going on after ([0-9,]+) events, generation (\d+)", " ".join(trainer.logs(start)))

    line = until(going_on, 30, "the trainer does not say where it goes on")
    events, generation = int(line[1].replace(",", "")), int(line[2])
    assert generation >= before
    assert events == generation * size  # killed, not stopped: what was learned since is learned again from there
    until(trainer.is_healthy, 30, "the trainer is not healthy again")
    newest = until(lambda: max(0, metric("trainer", "flicker_generation") - generation), 60, "nothing new is published")
    note(f"a trainer that died: the next generation after {time.time() - start:.1f} s")

    # Ids of the log count events. Had one been lost or learned twice, what was learned and what was read ahead, both
    # saved with the weights, would not add up to the place in the log that the trainer has acknowledged.
    saved = json.loads(until(lambda: trainer.run("cat /state/shard-0/*/manifest.json"), 5, "no state is saved"))
    state, ahead = saved["about"]["state"], saved["tensors"].get("reader.user", [0])[0]
    assert state["generation"] >= generation + newest and state["events"] == state["generation"] * size
    assert state["events"] + ahead == order(state["after"])
    log = redis.Redis("redis", decode_responses=True, protocol=2)
    until(
        lambda: order(log.xinfo_groups("flicker:flicker:log")[0]["last-delivered-id"]) >= order(state["after"]),
        5,
        "what is saved is not acknowledged",
    )
    assert counted()[1] == failures
