"""`flicker up` and its page in a real browser: what a user sees within a minute, and when something dies."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import pytest
from playwright.sync_api import Page, expect

from protos.recommender_pb2 import DescribeRequest, RecommendRequest
from protos.recommender_pb2_grpc import RecommenderStub
from tests.integration.system import until
from tests.integration.test_up import ENDS, Up, running, status
from tests.integration.test_up_page import address_of
from tests.page.conftest import PATIENCE, Open
from tests.small_runs import small_log

TARGETS = {"chart": 60.0, "seen": 5.0}
"""Seconds in which a user should see things on a quiet machine; what was measured is printed, and may be more here."""


@dataclass
class Live:
    """A system that runs, and when it was started, on the monotonic clock."""

    up: Up
    started: float
    address: str


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """On a log with titles, with users who ask and click; it ends as it should."""
    folder = tmp_path_factory.mktemp("live")
    log, started = small_log(folder / "log", ratings=6_000), time.monotonic()
    with running(folder, "--page-port", "0", "--data", str(log), "--for", "900") as up:
        address = address_of(up)
        until(lambda: status(address, "/healthz") == 200, "the page listens", PATIENCE)
        yield Live(up, started, address)
        up.process.send_signal(signal.SIGINT)
        assert up.wait(ENDS) == 0, up.said()
        assert "Traceback" not in (up.out / "page.log").read_text()


def test_from_the_start_to_a_chart_of_swaps(live: Live, tab: Open) -> None:
    one = tab(live.address)
    chart = one.page.get_by_role("img", name="Why results change")
    chart.locator("svg path[fill*='--arm-']").nth(1).wait_for(state="attached", timeout=3_000 * PATIENCE)
    took = time.monotonic() - live.started
    print(f"from the start of flicker up to a chart of swaps: {took:.1f} s (target {TARGETS['chart']:g} s)")
    assert "token" not in one.page.url
    assert one.errors == [] and one.asked == {one.page.url.split("/")[2]}, "no request to another host"


NAMES = re.compile(r"(\S+?)(?: \(.*\))?, duplicate (\d+), generation (\d+), (\S+)")


@dataclass(frozen=True)
class Shown:
    """Two slates as the playground shows them."""

    who: list[tuple[int, int]]
    """Duplicate and generation of each."""
    titles: list[list[str]]
    alone: list[set[str]]
    """Of each the titles that are marked as not in the other one."""
    joined: int
    moved: int
    """Lines between the two in all, and those of items at another place."""
    heading: str


def shown(page: Page) -> Shown:
    """What stands there, in one moment."""
    found = page.evaluate(
        """() => {
            const two = [...document.querySelectorAll('.twice')].find(each => each.checkVisibility())
            const panel = two.closest('[role=status]')
            const texts = root => [...root].map(each => each.innerText.trim())
            const lists = [...two.querySelectorAll('ol')]
            return {
                heads: texts(panel.querySelectorAll('.heads p')), heading: panel.querySelector('h2').innerText,
                titles: lists.map(list => texts(list.querySelectorAll('li span'))),
                alone: lists.map(list => texts(list.querySelectorAll('li.alone span'))),
                joined: two.querySelectorAll('path').length, moved: two.querySelectorAll('path.moved').length}
        }"""
    )
    heads = [NAMES.fullmatch(head) for head in found["heads"]]
    assert all(heads), found["heads"]
    who = [(int(head[2]), int(head[3])) for head in heads if head]
    return Shown(who, found["titles"], [*map(set, found["alone"])], found["joined"], found["moved"], found["heading"])


def answers(live: Live, user: str, who: list[tuple[int, int]]) -> list[list[str]] | None:
    """What the router itself answers for these duplicates and generations, by title; None where one of them is gone.

    Titles are those of the log's own file, by the id that the router says.
    """
    with grpc.insecure_channel(live.up.address) as channel:
        stub, found = RecommenderStub(channel), list[list[str]]()
        context = [0] * len(stub.Describe(DescribeRequest(find=""), timeout=10).world.context)
        for duplicate, generation in who:
            asked = RecommendRequest(
                query_id=1, user_id=user, k=10, arm="relu", duplicate=duplicate, generation=generation, context=context
            )
            try:
                items = [place.item for place in stub.Recommend(asked, timeout=10).slate]
            except grpc.RpcError:
                return None
            ids = [int(item.id) for item in stub.Describe(DescribeRequest(items=items), timeout=10).items]
            found.append([f"Film {id} ({1980 + id})" for id in ids])
    return found


def test_the_playground_shows_the_routers_own_answers_and_what_moved(live: Live, tab: Open) -> None:
    one = tab(live.address)
    one.page.get_by_role("tab", name="Playground").click()
    one.page.locator(".twice").first.wait_for()
    user, seen = one.page.get_by_label("User").get_attribute("placeholder") or "", list[Shown]()

    def same() -> bool:
        seen.append(shown(one.page))
        return answers(live, user, seen[-1].who) == seen[-1].titles

    until(same, "what is shown is what the router answers", PATIENCE)
    two = seen[-1]
    left, right = two.titles
    assert len(left) == len(right) == 10 and two.who[0][0] != two.who[1][0]
    both = set(left) & set(right)
    assert two.alone == [set(left) - both, set(right) - both]
    assert two.joined == len(both) and two.moved == sum(left.index(title) != right.index(title) for title in both)
    different = sum(one != other for one, other in zip(left, right, strict=True))
    assert two.heading.startswith(f"{different} of 10 places differ")
    assert one.errors == []


def test_a_killed_replica_is_seen_and_seen_to_be_back(live: Live, tab: Open) -> None:
    one = tab(live.address)
    alerts, healthy = one.page.locator(".worries"), one.page.locator("dl", has_text="replicas healthy")
    expect(healthy).to_contain_text("2 of 2")
    live.up.wait_for("replica-1").kill()
    killed = time.monotonic()
    expect(alerts).to_contain_text("1 replica missing or unhealthy")
    print(f"a killed replica is seen after {time.monotonic() - killed:.1f} s (target {TARGETS['seen']:g} s)")
    expect(alerts).not_to_contain_text("replica missing")
    expect(healthy).to_contain_text("2 of 2")
    assert one.errors == []


def test_buttons_do_what_they_say(live: Live, tab: Open) -> None:
    one = tab(live.address)
    offered = one.page.locator("dl", has_text="queries answered")
    expect(offered).to_contain_text("of 20.0/s offered", timeout=3_000 * PATIENCE)  # a while after all users ask
    before = live.up.wait_for("replica-0").pid
    one.page.get_by_role("button", name="Kill replica-0").click()
    expect(one.page.get_by_text("replica-0 was killed")).to_be_visible()
    until(lambda: [p.pid for p in live.up.alive("serving", "replica", "replica-0") if p.pid != before] != [], "restart")
    rate = one.page.get_by_label("Queries per second that users offer")
    rate.select_text()
    rate.press_sequentially("30")  # as typed: a value that a script fills in is no change to a browser
    rate.press("Enter")
    expect(one.page.get_by_text("users offer 30 queries per second")).to_be_visible()
    expect(offered).to_contain_text("of 30.0/s offered")
    one.page.get_by_role("button", name="Refresh now").click()
    expect(one.page.get_by_text("the next generation's events are fed at once")).to_be_visible()
    assert one.errors == []


def test_a_router_that_goes_and_comes_back_is_seen(live: Live, tab: Open) -> None:
    one = tab(live.address)
    alerts = one.page.locator(".worries")
    expect(alerts).not_to_contain_text("router")
    live.up.wait_for("router-0").kill()
    killed = time.monotonic()
    # its metrics page, or itself: one of two that is back within a second is missed by the other look
    expect(alerts).to_contain_text(re.compile("The router .*not answer"))
    print(f"a killed router is seen after {time.monotonic() - killed:.1f} s (target {TARGETS['seen']:g} s)")
    serves = time.monotonic() + until(lambda: serving(live), "it is back", PATIENCE)
    expect(alerts).not_to_contain_text("router")
    print(f"one that serves again is seen after {time.monotonic() - serves:.1f} s (target {TARGETS['seen']:g} s)")
    one.page.get_by_role("tab", name="Playground").click()
    one.page.get_by_role("button", name="Ask both").click()
    expect(one.page.get_by_role("heading", name="places differ")).to_be_visible()
    assert one.errors == []


def serving(live: Live) -> bool:
    """Whether the router answers somebody."""
    with grpc.insecure_channel(live.up.address) as channel:
        try:
            RecommenderStub(channel).Recommend(RecommendRequest(query_id=1, user=0), timeout=5)
        except grpc.RpcError:
            return False
    return True
