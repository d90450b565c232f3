"""What the page knows: windows, trends and quantiles against plain arithmetic, and what it asks a real router."""

from __future__ import annotations

import itertools
import math
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter

from page import source as module
from page.asking import RouterClient, RouterQuery
from page.source import STEP, LiveSource, Moment, addresses
from simulator.errors import FlickerError
from simulator.live.watch import WINDOW
from simulator.process import free_ports
from simulator.security.pages import serve_metrics
from tests.page.live import ARMS, IDS, NAMES, TITLES, Live, diff, until
from tests.security.made import Authority
from tests.serving.fake_replica import retrieved, scores

KEY = ARMS[0], "duplicate", "pair"


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    system = Live()
    yield system
    system.close()


@pytest.fixture
def router(live: Live) -> Iterator[RouterClient]:
    made = RouterClient(live.address)
    yield made
    made.close()


def moments(steps: list[tuple[int, int]]) -> list[Moment]:
    """STEP apart; of each step what was compared, and how much of it differed."""
    sums = itertools.accumulate(steps, lambda one, two: (one[0] + two[0], one[1] + two[1]))
    return [
        Moment(1e9 + STEP * n, {KEY: (float(part), float(whole))}, float(whole), 0.0, {}, math.nan)
        for n, (part, whole) in enumerate(sums)
    ]


@given(st.lists(st.integers(0, 9).flatmap(lambda whole: st.tuples(st.integers(0, whole), st.just(whole))), min_size=2))
def test_a_trend_is_sums_over_sums_of_the_minute_before(steps: list[tuple[int, int]]) -> None:
    source = LiveSource(None, [])
    source.moments.extend(moments(steps))
    expected, back = [], round(WINDOW / STEP)
    for end in range(1, len(steps)):
        some = steps[max(0, end - back) + 1 : end + 1]  # what came after the moment a minute before
        part, whole = (sum(each) for each in zip(*some, strict=True))
        expected += [(1e9 + STEP * end, part / whole)] if whole else []
    found = source.trend(*KEY)
    assert [at for at, _ in found] == [at for at, _ in expected]
    assert [value for _, value in found] == pytest.approx([value for _, value in expected])
    if expected and expected[-1][0] == source.moments[-1].at:
        source.looks = 1
        held = source.measured(ARMS[0]).measures["swaps.pair"]
        part, whole = (sum(each) for each in zip(*steps[1:][-back - 1 :], strict=True))
        assert held.mean == pytest.approx(part / whole) and held.low <= held.mean <= held.high


@given(st.lists(st.floats(0.0001, 20), min_size=1, max_size=60), st.sampled_from([0.5, 0.99]))
def test_the_latency_at_the_router_is_right_to_within_a_bucket(waits: list[float], share: float) -> None:
    ends = [0.001, 0.01, 0.1, 1.0, 10.0, math.inf]
    source = LiveSource(None, [])
    before = {end: 7.0 for end in ends}
    after = {end: 7.0 + sum(wait <= end for wait in waits) for end in ends}
    source.moments.extend(Moment(at, {}, 0.0, 0.0, found, math.nan) for at, found in ((1e9, before), (1e9 + 5, after)))
    true = sorted(waits)[math.ceil(share * len(waits)) - 1]
    assert source.latency(share) == next(end for end in ends if true <= end)


def test_nothing_is_known_of_a_system_that_never_answered() -> None:
    port = free_ports(1)[0]
    source = LiveSource(RouterClient(f"127.0.0.1:{port}"), [f"http://127.0.0.1:{port}/metrics"])
    source._poll()
    assert source.problem.startswith(f"127.0.0.1:{port}: ") and source.heard == 0 and source.arms() == []
    assert math.isnan(source.latency(0.5)) and source.measured("relu").measures == {}
    assert [(one.kind, one.answers) for one in source.processes] == [("", False)]


def test_counters_go_on_over_a_restart_and_what_is_away_is_said_to_be(live: Live) -> None:
    router = RouterClient(live.address)
    source = LiveSource(router, live.metrics)
    try:
        source._poll()
        kinds = sorted(one.kind for one in source.processes if one.answers)
        assert kinds == ["load", "router", "router", "trainer"] and source.problem == ""
        for _ in range(3):
            live.asked.stub.Recommend(RouterQuery(IDS[0]).request(), timeout=5)
        source._poll()
        assert source.moments[-1].answered - source.moments[0].answered == 3
        live.stop_router()
        source._poll()
        assert source.problem and source.world is None
        assert [one.kind for one in source.processes if not one.answers] == ["router"]
        live.start_router()
        live.asked.stub.Recommend(RouterQuery(IDS[0]).request(), timeout=5)
        until(lambda: source._poll() or not source.problem, "the router answers")
        assert source.moments[-1].answered - source.moments[0].answered == 4
    finally:
        source.stop()
        router.close()


def test_one_thread_looks_often_for_viewers_and_seldom_for_nobody(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_INTERVAL", 60.0)
    router = RouterClient(live.address)
    source = LiveSource(router, live.metrics)
    source.start()
    try:
        until(lambda: source.looks == 1, "the first look")
        time.sleep(1.5)
        assert source.looks == 1, "nobody looks"
        source.add_viewer("a viewer")
        until(lambda: source.looks >= 3, "there is somebody")
        source.remove_viewer("a viewer")
    finally:
        source.stop()
        router.close()


def test_a_name_of_several_machines_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(0, 0, 0, "", (address, 9100)) for address in ("10.0.0.2", "10.0.0.1", "10.0.0.2")]
    monkeypatch.setattr(module.socket, "getaddrinfo", lambda *_: found)
    assert addresses("http://replica:9100/metrics", 1) == (
        "http://10.0.0.1:9100/metrics",
        "http://10.0.0.2:9100/metrics",
    )
    monkeypatch.setattr(module.socket, "getaddrinfo", lambda *_: found[:1])
    assert addresses("http://replica:9100/metrics", 2) == ("http://replica:9100/metrics",)


def test_machines_of_one_name_are_asked_under_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Their certificates bear no address; one that shows another name is not read."""
    authority, hosts = Authority(tmp_path), ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    port, registry = free_ports(1)[0], CollectorRegistry()
    Counter("flicker_events_learned", "Made here.", registry=registry)
    for host, name in zip(hosts, ("trainer", "trainer", "router"), strict=True):
        serve_metrics(registry, port, host, authority.member(f"{name}-{host}", name))
    real, several = socket.getaddrinfo, [(0, 0, 0, "", (host, port)) for host in hosts]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **b: several if a[0] == "trainer" else real(*a, **b))
    source = LiveSource(None, [f"https://trainer:{port}/metrics"], authority.member("page", "page"))
    source._poll()
    assert [(one.url, one.answers) for one in source.processes] == [
        (f"https://{host}:{port}/metrics", host != hosts[2]) for host in hosts
    ]
    source.stop()


def test_strangers_are_compared_on_the_same_candidates(router: RouterClient, monkeypatch: pytest.MonkeyPatch) -> None:
    users = iter([3, 17] * 4)
    monkeypatch.setattr(secrets, "randbelow", lambda _: next(users))
    expected = set()
    for duplicate in (0, 1):
        items = retrieved(3, 1)
        one, other = (scores(ARMS[0], duplicate, 1, user, items) for user in (3, 17))
        pairs = list(itertools.combinations(range(len(items)), 2))
        swapped = sum((one[a] < one[b]) != (other[a] < other[b]) for a, b in pairs)
        expected.add((float(swapped), float(len(pairs))))
    assert {router.user_pair(ARMS[0], len(IDS)) for _ in range(4)} <= expected


@pytest.mark.parametrize("duplicates", [(0, 1), (1, 0)])
def test_two_slates_are_the_models_own(router: RouterClient, duplicates: tuple[int, int]) -> None:
    two = router.slate_pair(RouterQuery(IDS[5], k=8, arm=ARMS[1]), "duplicates", duplicates)
    for slate, duplicate in zip(two.slates, duplicates, strict=True):
        items = retrieved(5, 1)
        best = items[np.argsort(-scores(ARMS[1], duplicate, 1, 5, items), kind="stable")][:8]
        assert [place.title for place in slate.places] == [TITLES[item] for item in best]
        assert [place.item for place in slate.places] == [NAMES.items[item] for item in best]
        assert slate.by.duplicate == duplicate


def test_two_arms_of_one_duplicate(router: RouterClient) -> None:
    two = router.slate_pair(RouterQuery(IDS[5], arm=ARMS[0]), "arms", (1, 0), ARMS[1])
    assert [slate.by.arm for slate in two.slates] == ARMS
    assert {(slate.by.duplicate, slate.by.generation) for slate in two.slates} == {(1, 1)}
    one, other = ([place.item for place in slate.places] for slate in two.slates)
    alone, _ = diff(one, other)
    assert two.measures["slot"] == sum(a != b for a, b in zip(one, other, strict=True)) / 10
    assert two.measures["set"] == pytest.approx(len(alone) / 2 / 10)
    assert "pd_candidates" not in two.measures and "pair" not in two.measures, "these need scores"


def test_what_cannot_be_asked_is_one_line(router: RouterClient) -> None:
    with pytest.raises(FlickerError, match=r"INVALID_ARGUMENT: arm = 'gelu'"):
        router.slate_pair(RouterQuery(IDS[0], arm="gelu"), "duplicates", (0, 1))
