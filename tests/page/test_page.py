"""The page in a real browser, over a real router: what it shows is what was measured and answered, and stays right."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from protos.recommender_pb2 import CAUSE_DUPLICATE, CompareRequest, RecommendRequest
from simulator.measures.words import label, number
from tests.page.conftest import DESK, PHONE, Open, Tab
from tests.page.live import ARMS, HOSTILE, IDS, TITLES, Live, Served, diff, until

TABS = ("Now", "Playground", "What if", "Runs")


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    system = Live()
    yield system
    system.close()


@pytest.fixture(scope="module")
def served(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    runs = tmp_path_factory.mktemp("runs")
    with Served("--router", live.address, "--metrics", *live.metrics, "--runs", runs) as page:
        yield page


def go(tab: Tab, name: str) -> Page:
    """To a tab of the page."""
    tab.page.get_by_role("tab", name=name, exact=True).click()
    return tab.page


def shows(page: Page, selector: str, text: str) -> None:
    """Wait until an element has this text."""
    found = page.locator(selector)
    until(lambda: text in " ".join(found.all_inner_texts()), f"{selector} has {text!r}")


def cells(page: Page, row: str) -> list[str]:
    """The means in a row of the visible tables."""
    return page.locator("tr", has=page.get_by_role("rowheader", name=row, exact=True)).locator("td b").all_inner_texts()


def test_swaps_are_sums_over_sums_on_one_scale_with_accuracy_beside(live: Live, served: Served, tab: Open) -> None:
    page = tab(served.url).page
    shows(page, ".worries", "Nothing needs attention")
    made = {(ARMS[0], "duplicate"): [(3, 10), (6, 7)], (ARMS[1], "duplicate"): [(1, 9)], (ARMS[1], "refresh"): [(8, 9)]}
    for (arm, cause), sums in made.items():
        for parts, wholes in sums:
            live.compare(arm, cause, parts, wholes)
    live.ask_again(ARMS[0], 4, 10)
    live.tally.tick(1.0, 1.0)
    until(lambda: cells(page, "pair swaps") == [number(9 / 17), number(1 / 9)], "the sums' quotients")
    assert cells(page, "pair swaps at a refresh") == ["–", number(8 / 9)]
    assert cells(page, "slots changed on asking again") == [number(0.4), "–"]
    assert cells(page, "log loss") == ["0.4321", "0.5321"]
    chart = page.get_by_role("img", name=re.compile("^Why results change"))
    words = chart.locator("text").all_text_contents()
    for arm, cause in ((ARMS[0], "another duplicate"), (ARMS[1], "a refresh"), (ARMS[0], "asking again")):
        assert label(arm) in words and cause in words
    dots = chart.locator("path[fill^='var(--arm-']")
    assert dots.count() == 4, "an arm and cause each; nobody of the second arm has asked again"
    until(lambda: len(cells(page, "personalisation")) == 2, "personalisation is asked for while somebody looks")
    assert all(0 < float(value) < 1 for value in cells(page, "personalisation"))


def test_the_playground_shows_the_routers_own_answers_and_what_moved(live: Live, served: Served, tab: Open) -> None:
    page = go(tab(served.url), "Playground")
    page.get_by_label("User").fill(IDS[7])
    page.get_by_label("User").press("Enter")
    page.get_by_label("Arm", exact=True).select_option(ARMS[0])
    query = RecommendRequest(user_id=IDS[7], arm=ARMS[0], k=10)
    answers = live.asked.stub.Compare(CompareRequest(query=query, duplicates=[0, 1], cause=CAUSE_DUPLICATE)).answers
    one, other = ([TITLES[place.item] for place in answer.slate] for answer in answers)
    slates = page.locator(".twice ol")
    until(
        lambda: [item for part in slates.all() for item in part.locator("span").all_inner_texts()] == [*one, *other],
        "both",
    )
    alone, moved = diff(one, other)
    assert set(page.locator(".twice .alone span").all_inner_texts()) == alone
    ends = [
        re.match(r"M0 ([\d.]+) C.* 2 ([\d.]+)$", path.get_attribute("d") or "") for path in page.locator(".moved").all()
    ]
    assert {(int(float(end[1])), int(float(end[2]))) for end in ends if end} == moved and len(ends) == len(moved) > 0
    assert (
        page.locator("h2").first.inner_text()
        == f"{sum(a != b for a, b in zip(one, other, strict=True))} of 10 places differ"
    )
    assert any(HOSTILE in title for title in one) and page.locator("body img").count() == 0, "titles stay text"


def test_users_are_found_by_how_their_ids_begin(live: Live, served: Served, tab: Open) -> None:
    page = go(tab(served.url), "Playground")
    page.locator(".twice ol").first.wait_for()
    page.wait_for_timeout(1_000)  # Quasar gives the focus back to a clicked tab: no hand is so fast
    page.get_by_label("User").press_sequentially("u-9")
    wanted = sorted(id for id in IDS if id.startswith("u-9"))[:20]
    found = page.locator("#users option")
    until(lambda: found.evaluate_all("all => all.map(each => each.value)") == wanted, "users whose ids begin so")
    page.get_by_label("User").fill(wanted[0])
    page.get_by_label("User").press("Enter")
    (answer, *_) = live.asked.stub.Compare(
        CompareRequest(query=RecommendRequest(user_id=wanted[0], arm=ARMS[0]))
    ).answers
    shows(page, ".twice ol >> nth=0", TITLES[answer.slate[0].item])
    assert page.get_by_label("device").locator("option").all_text_contents() == ["phone", "<b>desktop</b>", "tv"]
    page.get_by_label("Other duplicate").select_option("0")
    shows(page, "[role=alert]", "choose two")


def test_a_refresh_makes_what_it_changes_flash_and_asking_again_is_a_users_luck(
    live: Live, served: Served, tab: Open
) -> None:
    page = go(tab(served.url), "Playground")
    page.locator(".twice ol").first.wait_for()
    before = page.locator(".twice ol").all_inner_texts()
    assert page.locator(".changed").count() == 0
    live.refresh()
    shows(page, ".heads", f"generation {live.generation}")
    after = page.locator(".twice ol").all_inner_texts()
    assert before != after and page.locator(".changed").count() > 0
    seen = set()
    while len(seen) < 2:  # by chance: a router that always took the same one would never end this
        page.get_by_role("button", name="Ask again").click()
        shows(page, "body", "What a user gets who asks again")
        seen |= set(re.findall(r"duplicate (\d)", page.locator("table").last.inner_text()))
    assert seen == {"0", "1"}


def test_a_dead_replica_and_a_restarted_router_are_seen(live: Live, served: Served, tab: Open) -> None:
    page = tab(served.url).page
    shows(page, ".worries", "Nothing needs attention")
    live.replicas[0].stop()
    shows(page, ".worries", "1 replica missing or unhealthy: a.")
    live.replicas[0] = type(live.replicas[0])("a", 0, live.generation)
    live.replicas[0].say(True)
    live.replicas[0].announce(live.store, 3_600)
    shows(page, ".worries", "Nothing needs attention")
    live.stop_router()
    shows(page, ".worries", "The router does not answer")
    shows(page, ".status", "what is shown is old")
    assert cells(page, "log loss") == ["0.4321", "0.5321"], "what was known stays"
    live.start_router()
    shows(page, ".worries", "Nothing needs attention")
    shows(page, ".status", "running")
    go_play = page.get_by_role("tab", name="Playground")
    go_play.click()
    page.locator(".twice ol").first.wait_for()


@pytest.mark.parametrize(("size", "dark"), [(PHONE, False), (DESK, True), (DESK, False)])
def test_every_tab_is_accessible_and_asks_nobody_else(
    served: Served, tab: Open, size: tuple[int, int], dark: bool
) -> None:
    opened = tab(served.url, size=size, dark=dark)
    shows(opened.page, "body", "Each arm")
    for name in TABS:
        page = go(opened, name)
        page.wait_for_timeout(500)
        assert opened.complaints() == []
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, "nothing sticks out of the page"
    assert opened.errors == []
    assert opened.asked == {served.url.split("/")[2]}


def test_it_is_used_by_keyboard(served: Served, tab: Open) -> None:
    page = tab(served.url).page
    shows(page, "body", "Each arm")
    page.get_by_role("tab", name="Now").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Ask both").wait_for()
    page.get_by_label("User").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") in ("SELECT", "INPUT")
