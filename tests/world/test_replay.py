"""The replay world against a plain recount of the same log: events, histories, queries, candidates, clicks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from simulator.config import ReplayConfig
from simulator.errors import DataError, SettingError
from simulator.types import Batch, Query, World
from simulator.world import replay
from simulator.world.clicklog import Feature
from simulator.world.replay import ReplayWorld
from tests.world.made_logs import DEVICES, MORE_ITEMS, country, history_of, log_of, pages, rows_of, world_of

HORIZON, RECENT, BLOCK, H = 40.0, 150, 64, 4
ROWS = rows_of()


@pytest.fixture(params=["engagements", "labels"])
def labelled(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "labels")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, labelled: bool) -> ReplayWorld:
    """The log as a world, with blocks and a range of queries so short that everything crosses their borders."""
    monkeypatch.setattr(replay, "BLOCK", BLOCK)
    monkeypatch.setattr(replay, "QUERY_WINDOW", 400)
    return world_of(log_of(ROWS, labelled, history=H))


def per_row(labelled: bool) -> int:
    return 1 if labelled else 4


def whole(world: ReplayWorld) -> Batch:
    return Batch.concatenate(list(world.batches(10_000)))


def equal(left: Batch, right: Batch) -> bool:
    names = ("user", "item", "time", "features", "label")
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in names)


def values(world: ReplayWorld, rows: np.ndarray, field: str) -> list[list[int]]:
    """The values of a field in table rows [n, S], without padding."""
    part, first = rows[:, world.schema.slot_range(field)], world.schema.first_row(field)
    return [[value - first for value in row if value] for row in part.tolist()]


def test_it_is_a_world(world: ReplayWorld, labelled: bool) -> None:
    found: World = world
    assert found.name == "log" and not found.has_truth
    assert found.events == len(ROWS) * per_row(labelled) == len(whole(world))
    assert found.items == max(row.item for row in ROWS) + 1 + MORE_ITEMS


def test_events_are_the_rows_each_followed_by_its_negatives(world: ReplayWorld, labelled: bool) -> None:
    events, step = whole(world), per_row(labelled)
    assert events.user.tolist() == [row.user for row in ROWS for _ in range(step)]
    assert events.time.tolist() == [row.time for row in ROWS for _ in range(step)]
    assert events.item[::step].tolist() == [row.item for row in ROWS]
    assert events.label.tolist() == ([r.label for r in ROWS] if labelled else [1, 0, 0, 0] * len(ROWS))
    assert values(world, events.features, "device") == [[row.device] for row in ROWS for _ in range(step)]
    assert values(world, events.features, "item") == [[item] for item in events.item.tolist()]
    expected = [[country(row.user)] if country(row.user) >= 0 else [] for row in ROWS for _ in range(step)]
    assert values(world, events.features, "country") == expected


def test_a_history_is_what_came_before_the_event(world: ReplayWorld, labelled: bool) -> None:
    found, step = values(world, whole(world).features, "history"), per_row(labelled)
    for number in range(len(ROWS)):
        expected = history_of(ROWS, number, H, labelled)
        assert found[number * step : (number + 1) * step] == [expected] * step
    assert max(map(len, found)) == H


def test_negatives_are_half_of_recent_engagements_and_half_of_all_items(world: ReplayWorld, labelled: bool) -> None:
    if labelled:
        assert not np.array_equal(whole(world).label, np.ones(len(ROWS)))  # as recorded, nothing is sampled
        return
    items, many = np.array([row.item for row in ROWS]), world_of(log_of(ROWS, False), negatives=100)
    drawn = whole(many).item.reshape(-1, 101)[:, 1:]
    popular, everything = 0, np.full(many.items, 0.5 / many.items)
    for row in range(0, len(ROWS), 100):
        here = np.bincount(drawn[row : row + 1].ravel(), minlength=many.items)
        window = np.bincount(items[max(0, row - RECENT + 1) : row + 1], minlength=many.items)
        share = 0.5 * window / window.sum() + everything
        popular += (here - 100 * share)[window > 0].sum()
    deviation = np.sqrt(len(range(0, len(ROWS), 100)) * 100 * 0.25)
    assert abs(popular) < 4 * deviation
    unseen = (drawn >= many.items - MORE_ITEMS).mean()  # 150,000 draws
    assert unseen == pytest.approx(0.5 * MORE_ITEMS / many.items, rel=0.1)
    first = {row.item: number for number, row in reversed(list(enumerate(ROWS)))}
    assert any(row < first.get(int(item), 0) for row, item in zip(range(len(ROWS)), drawn[:, 0], strict=True))


def test_any_split_gives_the_same_events(world: ReplayWorld, labelled: bool) -> None:
    events = whole(world)
    for size in (1, 7, 64, 1_000):
        parts = list(world.batches(size))
        assert all(len(part) == size for part in parts[:-1]) and 1 <= len(parts[-1]) <= size
        assert equal(Batch.concatenate(parts), events)
    for start, stop in [(0, 1), (3, 1_111), (255, 257), (256, 512), (1_001, 1_499)]:
        assert equal(Batch.concatenate(list(world.batches(50, start, stop))), events[start:stop])
    assert list(world.batches(50, 10, 10)) == list(world.batches(50, world.events)) == []
    assert sum(map(len, world.batches(50, 0, world.events + 5))) == world.events
    assert equal(whole(world_of(log_of(ROWS, labelled, history=H))), events)
    assert equal(whole(world_of(log_of(ROWS, labelled, history=H), seed=6)), events) == labelled


def recount(at: int, candidates: int, query: Query, labelled: bool) -> tuple[list[int], list[float]]:
    """Candidates and relevance of a query by the rules of `ReplayWorld.queries`, the slow way."""
    step = per_row(labelled)
    engaged = [(n * step, row) for n, row in enumerate(ROWS) if row.label or not labelled]
    window = [row for event, row in engaged if event < at][-RECENT:]
    own = Counter(row.item for row in window if country(row.user) == country(query.user))
    everyone = Counter(row.item for row in window)
    every = range(max(row.item for row in ROWS) + 1 + MORE_ITEMS)
    items = sorted(every, key=lambda item: (-own[item], -everyone[item], item))[:candidates]
    later = [row for event, row in engaged if event >= at and row.user == query.user]
    answers = list(dict.fromkeys(r.item for r in later if query.time <= r.time <= query.time + HORIZON))
    assert query.answers.tolist() == answers
    return items, [float(item in answers) for item in items]


@pytest.mark.parametrize(("at", "candidates"), [(803, 20), (1_200, 60), (1_301, 5)])
def test_queries_are_what_a_slow_recount_gives(world: ReplayWorld, labelled: bool, at: int, candidates: int) -> None:
    queries = world.queries(40, candidates, at, "test")
    step, ids = per_row(labelled), [query.id for query in queries]
    assert len(queries) == 40 and ids == sorted(set(ids)) and ids[0] >= at
    for query in queries:
        number = query.id // step
        row = ROWS[number]
        assert query.id % step == 0 and (row.label or not labelled)
        assert (query.user, query.time) == (row.user, row.time)
        items, relevance = recount(at, candidates, query, labelled)
        assert query.candidates.tolist() == items and query.relevance.tolist() == relevance
        assert values(world, query.features, "item") == [[item] for item in items]
        assert values(world, query.features, "device") == [[row.device]] * candidates
        known = history_of(ROWS, number, H, labelled, before=-(-at // step))
        assert values(world, query.features, "history") == [known] * candidates
    assert any(query.relevance.any() for query in queries)


def test_queries_follow_from_seed_purpose_and_place(world: ReplayWorld, labelled: bool) -> None:
    def ids(world: ReplayWorld, at: int = 803, purpose: str = "test") -> list[int]:
        return [query.id for query in world.queries(30, 20, at, purpose)]

    assert ids(world) == ids(world_of(log_of(ROWS, labelled, history=H)))
    assert ids(world) != ids(world, purpose="other")
    assert ids(world) != ids(world_of(log_of(ROWS, labelled), seed=6))
    assert ids(world) != ids(world, at=900)


def test_queries_come_from_the_next_50_000_events_only() -> None:
    world = world_of(log_of(ROWS, False), negatives=99)
    assert world.events == 150_000
    ids = [query.id for query in world.queries(501, 20, 9_950, "test")]
    assert ids == list(range(10_000, 60_000, 100))


def test_without_user_features_all_users_share_their_candidates() -> None:
    for history in (0, H):  # which is no segment
        world = world_of(log_of(ROWS, False, countries=False, history=history))
        common = Counter(row.item for row in ROWS[201 - RECENT : 201])
        top = sorted(common, key=lambda item: (-common[item], item))[:10]
        for query in world.queries(20, 20, 803, "test"):
            assert query.candidates[:10].tolist() == top


def test_clicks_are_what_the_log_says_of_any_item(world: ReplayWorld) -> None:
    found = 0
    for query in world.queries(10, 1, 803, "test"):
        every = np.arange(world.items)
        assert np.flatnonzero(world.click(query, every, "any")).tolist() == sorted(query.answers.tolist())
        assert world.feedback(query, every, np.zeros(world.items, np.float32)) is None
        found += len(query.answers)
    assert found > 10


def test_there_are_as_many_queries_and_candidates_as_there_can_be(world: ReplayWorld, labelled: bool) -> None:
    tail = world.events - 100
    left = sum(row.label for row in ROWS[-100:]) if labelled else 25
    queries = world.queries(500, 10_000, tail, "test")
    assert len(queries) == left
    assert all(sorted(query.candidates.tolist()) == list(range(world.items)) for query in queries)
    with pytest.raises(SettingError, match=f"queries = 5: nobody asks behind event {world.events} of"):
        world.queries(5, 20, world.events, "test")


def test_coverage_is_the_share_of_queries_with_an_answer_among_so_many(
    world: ReplayWorld, labelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "COVERAGE", (5, 40, 10_000))  # the last is more than there are
    at, queries = 803, world.queries(60, 1, 803, "test")
    expected = {}
    for size in (5, 40):
        found = [set(recount(at, size, query, labelled)[0]) & set(query.answers.tolist()) for query in queries]
        expected[str(size)] = sum(map(bool, found)) / len(queries)
    assert world.coverage(queries, at) == pytest.approx(expected)
    assert 0 < expected["5"] < expected["40"] < 1


def test_weights_are_those_of_the_rows(labelled: bool) -> None:
    weight = np.arange(len(ROWS), dtype=np.float32)
    events = whole(world_of(log_of(ROWS, labelled, weight=weight)))
    assert events.weight is not None
    assert np.array_equal(events.weight, np.repeat(weight, per_row(labelled)))
    assert whole(world_of(log_of(ROWS, labelled))).weight is None


def test_queries_are_the_pages_that_users_saw() -> None:
    rows = pages()
    context = np.array([[row.device, row.position] for row in rows], np.int32)
    features = Feature("device", DEVICES), Feature("rank", "123456")
    slate = np.array([row.page for row in rows], np.int32)
    log = log_of(rows, True, history=H, slate=slate, context=context, context_features=features, position="rank")
    world, at = world_of(log), 301
    queries = world.queries(10_000, 3, at, "test")
    expected = dict[int, list[int]]()
    for number, row in enumerate(rows):
        expected.setdefault(row.page, []).append(number)
    seen = {page: own for page, own in expected.items() if own[0] >= at and len({rows[n].item for n in own}) > 1}
    assert [query.id for query in queries] == [own[0] for own in seen.values()] and world.has_pages
    for query, own in zip(queries, seen.values(), strict=True):
        assert query.user == rows[own[0]].user and query.time == rows[own[0]].time
        assert query.candidates.tolist() == list(dict.fromkeys(rows[n].item for n in own[::-1]))  # by position
        engaged = {rows[n].item for n in own if rows[n].label}
        assert set(query.candidates[query.relevance > 0].tolist()) == engaged == set(query.answers.tolist())
        known = history_of(rows, own[0], H, True, before=at)
        assert values(world, query.features, "history") == [known] * len(query.candidates)
        assert values(world, query.features, "rank") == [[0]] * len(query.candidates)  # scored at the first place
        assert values(world, query.features, "device") == [[rows[own[0]].device]] * len(query.candidates)
    assert world.coverage(queries, at) == {}
    events = whole(world)
    assert values(world, events.features, "rank") == [[row.position] for row in rows]  # learned where it was
    found = values(world, events.features, "history")
    assert found == [history_of(rows, number, H, True) for number in range(len(rows))]
    assert max(map(len, found)) == H
    with pytest.raises(SettingError, match="no page of two items or more begins behind event 301"):
        world_of(replace(log, slate=np.arange(len(rows), dtype=np.int32))).queries(9, 3, at, "test")


def test_a_basket_is_no_page_to_rank_but_no_history_of_its_own_items_either() -> None:
    rows = [replace(row, time=number) for number, row in enumerate(pages())]
    world = world_of(log_of(rows, False, history=H, slate=np.array([row.page for row in rows], np.int32)))
    assert not world.has_pages and {len(query.candidates) for query in world.queries(9, 3, 0, "test")} == {3}
    found = values(world, whole(world).features, "history")[::4]
    assert found == [history_of(rows, number, H, False) for number in range(len(rows))]


def test_items_of_a_history_have_rows_of_their_own_and_share_them_as_asked() -> None:
    log = log_of(ROWS, False, history=H)
    schema = world_of(log, hash_rows=13).schema
    assert [(field.name, field.vocabulary, field.slots) for field in schema.fields if field.side == "user"] == [
        ("user", 13, 1),
        ("country", 2, 1),
        ("history", 13, H),
    ]
    full = world_of(log)
    assert full.schema.fields[2].vocabulary == full.items


def test_two_fields_of_one_name_are_refused() -> None:
    named = (Feature("country", DEVICES),)
    with pytest.raises(DataError, match="log: two fields are called 'country': rename the column"):
        world_of(log_of(ROWS, False, context_features=named))
    log = log_of(ROWS, False, history=H)
    called = replace(log.context_features[0], name="history")
    with pytest.raises(DataError, match="two fields are called 'history'"):
        world_of(replace(log, context_features=(called,)))


def test_names_are_those_of_the_log(world: ReplayWorld) -> None:
    assert [world.name_of("country", value) for value in (-1, 0, 1)] == ["unknown", "north", "south"]
    assert (world.name_of("user", 3), world.name_of("item", 5), world.name_of("device", 1)) == ("u3", "i5", "desk")


def test_limit_and_other_settings_are_checked() -> None:
    with pytest.raises(SettingError, match="limit = 0: at least 100 rows"):
        ReplayConfig(path="log", limit=0)  # type: ignore[arg-type]
