"""The replay world against a plain recount of the same log: events, queries, candidates, clicks."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from simulator.config import ReplayConfig
from simulator.errors import SettingError
from simulator.types import Batch, Query, World
from simulator.world.replay import ReplayWorld, negatives

HORIZON, RECENT, SEED, BLOCK = 40.0, 150, 5, 64


@dataclass(frozen=True)
class Row:
    time: int
    user: int
    item: int
    label: int
    country: str
    device: str


def log_of(count: int = 1_500) -> list[Row]:
    """Rows in time order, users and items numbered by first appearance; popular items change as time goes by."""
    draw, users, items = random.Random(2), dict[int, int](), dict[int, int]()
    rows = []
    for number in range(count):
        user = users.setdefault(draw.randrange(30), len(users))
        item = items.setdefault(int(draw.triangular(0, 200, 200 * number / count)), len(items))
        country, device = ("north", "south", "")[user % 3], draw.choice(("phone", "desk"))
        rows.append(Row(number // 3, user, item, int(draw.random() < 0.6), country, device))
    return rows


ROWS = log_of()


@pytest.fixture(params=["engagements", "labels"])
def labelled(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "labels")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labelled: bool) -> ReplayWorld:
    """The log as a world, in blocks and a range of queries so short that everything crosses their borders."""
    monkeypatch.setattr("simulator.world.tabular.BLOCK", BLOCK)
    monkeypatch.setattr("simulator.world.replay.QUERY_EVENTS", 400)
    return build(tmp_path, labelled)


def build(folder: Path, labelled: bool, rows: list[Row] = ROWS, seed: int = SEED, country: bool = True) -> ReplayWorld:
    lines = [f"{r.time},u{r.user},i{r.item},{r.label},{r.country},{r.device}\n" for r in rows]
    (folder / "log.csv").write_text("time,user,item,label,country,device\n" + "".join(lines))
    label = 'label = "label"' if labelled else ""
    features = f"[features]\nuser = {['country'] if country else []}\ncontext = ['device']"
    text = f'log = "log.csv"\nuser = "user"\nitem = "item"\ntime = "time"\n{label}\n{features}\n'
    (folder / "log.toml").write_text(text)
    config = ReplayConfig(folder / "log.toml", negatives=3, recent=RECENT, horizon=HORIZON)
    return ReplayWorld(config, seed)


def per_row(labelled: bool) -> int:
    return 1 if labelled else 4


def whole(world: ReplayWorld) -> Batch:
    return Batch.concatenate(list(world.batches(10_000)))


def equal(left: Batch, right: Batch) -> bool:
    names = ("user", "item", "time", "features", "label")
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in names)


def test_it_is_a_world(world: ReplayWorld, labelled: bool) -> None:
    found: World = world
    assert found.name == "log" and not found.has_truth
    assert found.events == len(ROWS) * per_row(labelled) == len(whole(world))


def test_events_are_the_rows_each_followed_by_its_negatives(world: ReplayWorld, labelled: bool) -> None:
    events, step = whole(world), per_row(labelled)
    assert events.user.tolist() == [row.user for row in ROWS for _ in range(step)]
    assert events.time.tolist() == [row.time for row in ROWS for _ in range(step)]
    assert events.item[::step].tolist() == [row.item for row in ROWS]
    if labelled:
        assert events.label.tolist() == [row.label for row in ROWS]
    else:
        assert events.label.tolist() == [1, 0, 0, 0] * len(ROWS)
        seen = np.maximum.accumulate(events.item[::4])
        assert (events.item.reshape(-1, 4) <= seen[:, None]).all()
    device = events.features[:, world.schema.slot_range("device")][:, 0]
    number = {name: n for n, name in enumerate(dict.fromkeys(row.device for row in ROWS))}
    expected = [world.schema.first_row("device") + number[row.device] for row in ROWS for _ in range(step)]
    assert device.tolist() == expected


def test_negatives_know_all_that_came_before_their_block(world: ReplayWorld, labelled: bool) -> None:
    if labelled:
        assert not np.array_equal(whole(world).label, np.ones(len(ROWS)))  # as recorded, nothing is sampled
        return
    items = np.array([row.item for row in ROWS])
    drawn = whole(world).item.reshape(-1, 4)[:, 1:]
    for block, start in enumerate(range(0, len(ROWS), BLOCK)):
        before, here = items[:start], slice(start, start + BLOCK)
        known = len(set(before.tolist()))
        expected = negatives(items[here], before[-RECENT:], known, RECENT, 3, SEED, block)
        assert np.array_equal(drawn[here], expected)


def test_any_split_gives_the_same_events(world: ReplayWorld, tmp_path: Path, labelled: bool) -> None:
    events = whole(world)
    for size in (1, 7, 64, 1_000):
        parts = list(world.batches(size))
        assert all(len(part) == size for part in parts[:-1]) and 1 <= len(parts[-1]) <= size
        assert equal(Batch.concatenate(parts), events)
    for start, stop in [(0, 1), (3, 1_111), (255, 257), (256, 512), (1_001, 1_499)]:
        assert equal(Batch.concatenate(list(world.batches(50, start, stop))), events[start:stop])
    assert list(world.batches(50, 10, 10)) == list(world.batches(50, world.events)) == []
    assert sum(map(len, world.batches(50, 0, world.events + 5))) == world.events
    assert equal(whole(build(tmp_path, labelled)), events)
    assert equal(whole(build(tmp_path, labelled, seed=6)), events) == labelled


def test_a_shorter_log_has_the_same_events(world: ReplayWorld, tmp_path: Path, labelled: bool) -> None:
    """Nothing of the future: but for the table sizes, events do not depend on what comes after them."""
    (tmp_path / "short").mkdir()
    short = whole(build(tmp_path / "short", labelled, ROWS[:700]))
    events = whole(world)[: len(short)]
    assert np.array_equal(events.item, short.item) and np.array_equal(events.user, short.user)


def recount(at: int, candidates: int, query: Query, labelled: bool) -> tuple[list[int], list[float]]:
    """Candidates and relevance of a query by the rules of `ReplayWorld.queries`, the slow way."""
    step = per_row(labelled)
    engaged = [(n * step, row) for n, row in enumerate(ROWS) if row.label or not labelled]
    window = [row for event, row in engaged if event < at][-RECENT:]
    known = {row.item for n, row in enumerate(ROWS) if n * step < at}
    country = ROWS[query.id // step].country
    own = Counter(row.item for row in window if row.country == country)
    everyone = Counter(row.item for row in window)
    order = sorted(own, key=lambda item: (-own[item], item))
    order += sorted(known - set(own), key=lambda item: (-everyone[item], item))
    items = order[:candidates]
    later = [row for event, row in engaged if event >= at and row.user == query.user]
    answers = list(dict.fromkeys(r.item for r in later if query.time <= r.time <= query.time + HORIZON))
    return items, [float(item in answers) for item in items]


@pytest.mark.parametrize(("at", "candidates"), [(803, 20), (1_200, 60), (1_301, 5)])
def test_queries_are_what_a_slow_recount_gives(world: ReplayWorld, labelled: bool, at: int, candidates: int) -> None:
    queries = world.queries(40, candidates, at, "test")
    step, ids = per_row(labelled), [query.id for query in queries]
    assert len(queries) == 40 and ids == sorted(set(ids)) and ids[0] >= at
    events = whole(world)
    for query in queries:
        row = ROWS[query.id // step]
        assert query.id % step == 0 and (row.label or not labelled)
        assert (query.user, query.time) == (row.user, row.time)
        assert query.context == tuple(events.features[query.id, world.schema.slot_range("device")])
        items, relevance = recount(at, candidates, query, labelled)
        assert query.candidates.tolist() == items and query.relevance.tolist() == relevance
        assert len(set(items)) == candidates
        place = items.index(row.item) if row.item in items else None
        if place is not None:
            assert np.array_equal(query.features[place], events.features[query.id])
        assert query.features.shape == (candidates, world.schema.slots)
    assert any(query.relevance.any() for query in queries)


def test_queries_follow_from_seed_purpose_and_place(world: ReplayWorld, tmp_path: Path, labelled: bool) -> None:
    def ids(world: ReplayWorld, at: int = 803, purpose: str = "test") -> list[int]:
        return [query.id for query in world.queries(30, 20, at, purpose)]

    assert ids(world) == ids(build(tmp_path, labelled))
    assert ids(world) != ids(world, purpose="other")
    assert ids(world) != ids(build(tmp_path, labelled, seed=6))
    assert ids(world) != ids(world, at=900)


def test_queries_come_from_the_next_50_000_events_only(tmp_path: Path) -> None:
    build(tmp_path, labelled=False)
    world = ReplayWorld(ReplayConfig(tmp_path / "log.toml", negatives=99), SEED)
    assert world.events == 150_000
    ids = [query.id for query in world.queries(500, 20, 9_950, "test")]
    assert ids == list(range(10_000, 60_000, 100))
    with pytest.raises(SettingError, match="queries = 501: at most 500, the engagements in events 9950 to 59950"):
        world.queries(501, 20, 9_950, "test")


def test_without_user_features_all_users_share_their_candidates(tmp_path: Path) -> None:
    world = build(tmp_path, labelled=False, country=False)
    common = Counter(row.item for row in ROWS[201 - RECENT : 201])
    top = sorted(common, key=lambda item: (-common[item], item))[:10]
    for query in world.queries(20, 20, 803, "test"):
        assert query.candidates[:10].tolist() == top


def test_clicks_are_what_the_log_says(world: ReplayWorld) -> None:
    for query in world.queries(10, 20, 803, "test"):
        slate = query.candidates[::-1][:10]
        assert world.click(query, slate, "any").tolist() == query.relevance[::-1][:10].tolist()
        assert world.feedback(query, slate, np.zeros(10, np.float32)) is None


def test_too_many_candidates_or_queries_are_refused_with_what_there_is(world: ReplayWorld, labelled: bool) -> None:
    known = len({row.item for row in ROWS[: -(-41 // per_row(labelled))]})
    with pytest.raises(SettingError, match=f"candidates = 200: at most {known}, the items known before event 41 "):
        world.queries(5, 200, 41, "test")
    assert len(world.queries(5, known, 41, "test")[0].candidates) == known
    tail = world.events - 100
    left = sum(row.label for row in ROWS[-100:]) if labelled else 25
    with pytest.raises(SettingError, match=f"queries = 500: at most {left}, the engagements in events {tail} to"):
        world.queries(500, 20, tail, "test")
    with pytest.raises(SettingError, match="queries = 1: at most 0"):
        world.queries(1, 20, world.events, "test")


def test_limit_and_other_settings_are_checked() -> None:
    with pytest.raises(SettingError, match="limit = 0: at least 100 rows"):
        ReplayConfig(Path("log"), limit=0)
