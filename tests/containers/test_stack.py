"""What was started: everything, soon, small, without secrets; and what ends a container that was told nonsense."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from tests.containers.asking import ARMS, BUILT_IN, answering, answers, asked, metric, prometheus, read, value_of
from tests.containers.engine import Container, ask, containers, get, until

REPLICAS, ROUTERS, TRAINERS = (
    int(os.environ.get(f"FLICKER_{name}", count)) for name, count in (("REPLICAS", 3), ("ROUTERS", 1), ("TRAINERS", 1))
)
SERVICES = {"redis": 1, "replica": REPLICAS, "router": ROUTERS, "load": 1, "page": 1, "prometheus": 1}
SERVICES |= {"grafana": 1}
OURS = ("trainer", "replica", "router", "load", "page")
BASE_SIZE = 130e6
"""Bytes of python:3.11-slim-bookworm, the image that ours are built on; the rest is told by our own layers."""
SECRET = re.compile(r"(passw|secret|token|credential|private.?key|api.?key)(?!\w*=$)", re.IGNORECASE)
"""What is told one; a variable without a value is not."""


def test_all_is_healthy_within_a_minute(note: Callable[[str], None]) -> None:
    """From the first container made to the last one healthy, as the engine's events tell; the images were built."""
    created = min(datetime.fromisoformat(c.inspect()["Created"]).timestamp() for c in containers())
    filters = json.dumps({"event": ["health_status"]})
    events = ask("GET", "/events", since=f"{created:.0f}", until=f"{time.time():.0f}", filters=filters)
    healthy = [json.loads(line) for line in events.splitlines()]
    assert healthy
    seconds = max(event["timeNano"] for event in healthy if event["Action"] == "health_status: healthy") / 1e9 - created
    note(f"from nothing to healthy: {seconds:.0f} s")
    assert seconds <= 60


def test_every_service_runs_and_is_healthy() -> None:
    for service, count in SERVICES.items():
        assert [container.is_healthy() for container in containers(service)] == [True] * count, service


def test_prometheus_finds_every_process() -> None:
    wanted = {"trainer": TRAINERS, "replica": REPLICAS, "router": ROUTERS, "load": 1, "prometheus": 1}

    def up() -> dict[str, int]:
        targets = prometheus("targets")["activeTargets"]
        jobs = [target["labels"]["job"] for target in targets if target["health"] == "up"]
        return {job: jobs.count(job) for job in wanted}

    until(lambda: up() == wanted, 30, f"not all targets are up: {up()}")


def test_every_replica_answers() -> None:
    assert set(answering(200)) == {replica.host for replica in containers("replica")}


def test_every_replica_scores_our_arms_by_the_native_engine() -> None:
    """The images bring its libraries; a replica without them would say so, and score by PyTorch as it does the rest."""
    native = [float(len(BUILT_IN))] * REPLICAS
    until(lambda: [value for _, value in value_of("flicker_native_arms")] == native, 30, "not all native")
    assert len(BUILT_IN) >= 2


def test_every_replica_answers_for_every_arm() -> None:
    """For the two of the user's own as well: examples/two_tower.py, which is in no image."""
    assert len(ARMS) == len(BUILT_IN) + 2
    for arm in ARMS:
        assert {who.arm for who in answers(5, arm)} == {arm}
        assert set(answering(60, arm)) == {replica.host for replica in containers("replica")}


def test_every_arm_is_learned_refreshed_and_compared() -> None:
    """The user's own models too: with one another, and with the generation before."""
    learned = until(lambda: value_of("flicker_progressive_log_loss"), 30, "nothing is learned")
    assert {labels["arm"] for labels, _ in learned} == set(ARMS)
    before = {arm: max(who.generation for who in answers(5, arm)) for arm in ARMS}

    def refreshed() -> bool:
        return all(min(who.generation for who in answers(5, arm)) > before[arm] for arm in ARMS)

    def compared() -> bool:
        pairs = [{"arm": arm, "cause": cause} for arm in ARMS for cause in ("duplicate", "refresh")]
        return all(of_routers("flicker_compared_total", measure="slate", **pair) > 0 for pair in pairs)

    until(refreshed, 60, f"not all of {ARMS} are refreshed", pause=1)
    until(compared, 60, f"not all of {ARMS} are compared", pause=1)
    for arm in ARMS:
        swapped = of_routers("flicker_differences_total", arm=arm, measure="pair")
        assert 0 < swapped < of_routers("flicker_compared_total", arm=arm, measure="pair")
    assert value_of("flicker_snapshots_refused_total > 0") == []


def of_routers(name: str, **labels: str) -> float:
    """A counter of all routers, added up."""
    return sum(metric(router.address, name, **labels) for router in containers("router"))


def test_every_router_is_asked() -> None:
    for router in containers("router"):
        address = router.address
        until(lambda a=address: metric(a, "flicker_router_queries_total", code="OK") > 20, 30, "not asked")  # type: ignore[misc]


def test_how_fast_the_trainer_learns_here(note: Callable[[str], None]) -> None:
    """To be held against the trainer's page of a `flicker up` outside of containers, with the same arms."""
    seconds, events = metric("trainer", "flicker_learn_seconds_sum"), metric("trainer", "flicker_events_learned_total")
    assert events > 0
    note(f"learning: {events / seconds:,.0f} events/s by all duplicates of all arms")


def test_grafana_shows_the_dashboards_to_everybody() -> None:
    assert json.loads(read("http://grafana:3000/api/health"))["database"] == "ok"
    shown = {board["uid"] for board in json.loads(read("http://grafana:3000/api/search"))}
    assert {"flicker-swaps", "flicker-training", "flicker-serving"} <= shown


def test_locusts_page_is_there() -> None:
    assert "Locust" in read("http://load:8089/")


PAGE = "http://page:8080"


def test_the_live_page_is_there_under_its_own_names_and_has_no_controls() -> None:
    assert read(f"{PAGE}/healthz").strip() == "ok"
    status, text = asked(f"{PAGE}/", "localhost:8080")
    assert status == 200 and "Flicker" in text
    status, text = asked(f"{PAGE}/", "page:8080")
    assert status == 403 and text.startswith("host = page:8080")
    (page,) = containers("page")
    assert "--controls" not in page.inspect()["Config"]["Cmd"]
    assert page.inspect()["Config"]["User"] == "10001"


def test_a_page_that_others_reach_wants_a_token_and_asks_for_it() -> None:
    line = refused("page", FLICKER_BIND="0.0.0.0")
    assert line.startswith("page: FLICKER_PAGE_TOKEN = nothing: others can reach the page at 0.0.0.0")
    line = refused("page", FLICKER_BIND="0.0.0.0", FLICKER_PAGE_TOKEN="short")
    assert line.startswith("page: FLICKER_PAGE_TOKEN = 5 characters")
    told = {"FLICKER_BIND": "0.0.0.0", "FLICKER_PAGE_TOKEN": "a-token-of-a-test-1234"}
    guarded = containers("page")[0].another("guarded-page", None, told)
    try:
        guarded.start()
        until(lambda: "Page: " in "".join(guarded.logs()), 60, "it does not listen")
        status, text = asked(f"http://{guarded.address}:8080/", f"{guarded.address}:8080")
        assert status == 403 and text.startswith("token = ")
        assert told["FLICKER_PAGE_TOKEN"] not in "".join(guarded.logs())
    finally:
        guarded.remove()


def image_of(service: str) -> str:
    return str(containers(service)[0].inspect()["Image"])


def own_layers(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The layers that our Dockerfile adds: all after its first instruction. The newest come first."""
    first = next(place for place, layer in enumerate(history) if "PYTHONUNBUFFERED" in layer["CreatedBy"])
    return history[: first + 1]


@pytest.mark.parametrize("service", OURS)
def test_images_are_small_and_hold_no_secret(service: str, note: Callable[[str], None]) -> None:
    history = own_layers(get(f"/images/{image_of(service)}/history"))
    size = BASE_SIZE + sum(layer["Size"] for layer in history)
    note(f"image {service}: {size / 1e6:.0f} MB")
    # trainer and replica hold torch, load what reads logs
    assert size < {"router": 300e6, "load": 500e6, "page": 500e6}.get(service, 2e9)
    environment = get(f"/images/{image_of(service)}/json")["Config"]["Env"]
    assert [text for text in [*environment, *(layer["CreatedBy"] for layer in history)] if SECRET.search(text)] == []


def test_no_container_is_told_a_secret() -> None:
    variables = [line for container in containers() for line in container.inspect()["Config"]["Env"]]
    assert [line for line in variables if "=" in line and SECRET.search(line)] == []  # a name alone has no value


def refused(service: str, command: list[str] | None = None, **environment: str) -> str:
    """What a container of the service says at the end, which is told these settings and ends with exit code 2."""
    bad = containers(service)[0].another(f"bad-{service}", command, environment)
    try:
        bad.start()
        code, lines = bad.end(60)
    finally:
        bad.remove()
    assert code == 2, lines
    assert not any("Traceback" in line for line in lines), lines
    return lines[-1]


def told(container: Container, flag: str, *values: str) -> list[str]:
    """The container's command with other values for a flag, or with a flag more."""
    command: list[str] = container.inspect()["Config"]["Cmd"]
    return [*command, flag, *values]


def test_an_unknown_arm_ends_the_trainer() -> None:
    line = refused("trainer", told(containers("trainer")[0], "--arms", "relu", "rellu"))
    assert line.startswith("trainer: ") and "rellu" in line


def test_a_factory_that_may_not_be_imported_ends_the_trainer() -> None:
    line = refused("trainer", FLICKER_MODELS="examples.another:make")
    assert line.startswith("trainer: ") and "FLICKER_MODELS" in line


def test_a_missing_log_ends_trainer_and_load() -> None:
    path = "/log/no-such-log.toml"
    world = ["--events", "1000000", "--data", path]
    assert path in refused("trainer", told(containers("trainer")[0], *world))
    assert path in refused("load", FLICKER_DATA=path)


def test_no_replicas_end_the_router() -> None:
    line = refused("router", FLICKER_REPLICAS="0")
    assert line.startswith("serving router: ") and "replicas = 0" in line
