"""Who asks, in which context, and what they click, against the worlds that they live in."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from load.people import POOL, People, PlannedQuery, context_values
from simulator.config import ReplayConfig, SyntheticConfig
from simulator.types import Field, Schema, World
from simulator.world.open import open_world
from simulator.world.stream import SyntheticWorld
from tests.world.made_logs import log_of, rows_of, world_of

SYNTHETIC = SyntheticConfig(events=20_000, users=200, items=100)


@pytest.fixture(scope="module")
def world() -> SyntheticWorld:
    return SyntheticWorld(SYNTHETIC, 3)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """600 engagements, one a minute, in the MovieLens layout: user n mod 20 takes item n mod 50."""
    rows = [f"{n % 20 + 1}::{n % 50 + 1}::5::{1_000_000 + 60 * n}" for n in range(600)]
    (tmp_path / "ratings.dat").write_text("\n".join(rows) + "\n")
    (tmp_path / "movies.dat").write_text("\n".join(f"{n + 1}::Film {n} (1999)::Drama" for n in range(50)) + "\n")
    return tmp_path


def asked(
    world: World, count: int, arms: tuple[str, ...] = (), worker: int = 0, at: int | None = None
) -> list[PlannedQuery]:
    people, found = People(world, arms, worker), []
    while len(found) < count:
        people.refill(at)
        found += [people.next() for _ in range(len(people))]
    return found[:count]


def test_users_come_by_zipfs_law(world: SyntheticWorld) -> None:
    count = 20 * POOL
    came = Counter(asking.query.user for asking in asked(world, count))
    share = np.array([came[user] for user in range(SYNTHETIC.users)]) / count
    rank = np.argsort(-world.audience.activity.share)
    expected = np.arange(1, SYNTHETIC.users + 1) ** -0.6  # the world's exponent
    expected /= expected.sum()
    error = 5 * np.sqrt(expected * (1 - expected) / count)
    assert np.all(np.abs(share[rank] - expected) < error)


def test_contexts_are_values_of_their_fields(world: SyntheticWorld) -> None:
    fields = [field for field in world.schema.fields if field.side == "context"]
    contexts = np.array([asking.context for asking in asked(world, 4 * POOL)])
    assert contexts.shape == (4 * POOL, len(fields))
    for values, field in zip(contexts.T, fields, strict=True):
        assert values.min() >= 0 and values.max() < field.vocabulary
    assert set(contexts[:, 0]) == {0, 1, 2}, "every device is used"


def test_context_values_undo_the_table_rows() -> None:
    fields = (Field("user", "user", 7), Field("item", "item", 5), Field("tags", "context", 4, 2))
    schema = Schema((*fields, Field("hour", "context", 3)))  # tags have rows 13 to 16, hours rows 17 to 19
    for tag, hour in product(range(4), range(3)):
        assert context_values(schema, (13 + tag, 0, 17 + hour)) == (tag, hour)
    assert context_values(schema, (0, 0, 17)) == (0, 0), "an empty field is value 0"


def test_clicks_follow_truth_and_position_bias(world: SyntheticWorld) -> None:
    people, items = People(world), np.arange(10)
    clicked, expected, variance = np.zeros(10), np.zeros(10), np.zeros(10)
    for _ in range(12):
        people.refill(10_000)
        for asking in [people.next() for _ in range(len(people))]:
            query = asking.query
            context = np.tile(np.array(query.context, np.int32), (10, 1))
            truth = world.probability(np.full(10, query.user), items, context, np.full(10, query.time))
            chance = truth / np.sqrt(np.arange(1, 11))  # the default bias: examined with probability position ** -0.5
            clicked += people.clicks(asking, items)
            expected += chance
            variance += chance * (1 - chance)
    assert np.all(np.abs(clicked - expected) < 5 * np.sqrt(variance))


def test_on_a_log_users_click_what_the_log_says(log: Path) -> None:
    world = open_world(ReplayConfig(log, horizon=3_600), 0)
    people = People(world)
    people.refill(1_000)
    some = [people.next() for _ in range(len(people))]
    assert len(some) >= 200
    for asking in some:
        row = round((asking.query.time - 1_000_000) / 60)  # an engagement takes 5 events, its row is its minute
        assert row >= 200 and asking.query.user == row % 20
        within = {n % 50 for n in range(row, min(row + 61, 600)) if n % 20 == row % 20}  # the user's, for an hour
        assert people.clicks(asking, np.arange(50)) == [item in within for item in range(50)]


def test_a_page_that_a_user_saw_is_sent_along() -> None:
    rows = [replace(row, page=number // 4) for number, row in enumerate(rows_of(400))]
    log = log_of(rows, labelled=True, slate=np.array([row.page for row in rows], np.int32))
    people = People(world_of(log))
    people.refill(100)
    some = [people.next() for _ in range(len(people))]
    assert len(some) == 75
    for asking in some:
        own = [row for row in rows if row.page == asking.query.id // 4]
        assert asking.candidates == tuple(dict.fromkeys(row.item for row in own))
        assert people.clicks(asking, np.array(asking.candidates)) == [
            any(row.label for row in own if row.item == item) for item in asking.candidates
        ]


def test_on_a_log_queries_follow_its_order(log: Path) -> None:
    times = [asking.query.time for asking in asked(open_world(ReplayConfig(log), 0), 100, at=2_000)]
    assert times == sorted(times) and times[0] >= 1_000_000 + 60 * 400


@pytest.mark.parametrize("at", [0, 1, 2_999, 10**9])
def test_any_position_of_a_short_log_will_do(log: Path, at: int) -> None:
    assert len(asked(open_world(ReplayConfig(log), 0), 10, at=at)) == 10


def test_a_position_moves_the_time_of_the_queries(world: SyntheticWorld) -> None:
    (early,), (late,) = asked(world, 1, at=0), asked(world, 1, at=10_000)
    assert 0 < early.query.time < 3_600 < late.query.time


def test_workers_ask_different_queries_and_every_number_once(world: SyntheticWorld) -> None:
    one, other = asked(world, 2 * POOL, worker=0), asked(world, 2 * POOL, worker=1)
    ids = [asking.id for asking in one + other]
    assert len(set(ids)) == len(ids) and all(id % 2 == 0 and 0 < id < 1 << 63 for id in ids)
    assert [a.query.user for a in one] != [a.query.user for a in other]


def test_the_same_seed_asks_the_same(world: SyntheticWorld) -> None:
    def told(askings: list[PlannedQuery]) -> list[tuple[object, ...]]:
        return [(a.id, a.query.user, a.context, a.arm) for a in askings]

    again = SyntheticWorld(SYNTHETIC, 3)
    assert told(asked(world, 700, ("a", "b"))) == told(asked(again, 700, ("a", "b")))


def test_named_arms_take_turns(world: SyntheticWorld) -> None:
    assert [asking.arm for asking in asked(world, 5, ("a", "b"))] == ["a", "b", "a", "b", "a"]
    assert {asking.arm for asking in asked(world, 5)} == {""}
