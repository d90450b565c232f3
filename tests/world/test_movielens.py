"""Reading folders of the MovieLens family."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from simulator.config import ReplayConfig
from simulator.errors import DataError
from simulator.types import Batch, Rows, Schema
from simulator.world.replay import ReplayWorld

RATINGS = "7::30::5::200\n3::10::0::100\n7::20::8::100\n3::30::4::100\n9::40::1::300\n"
MOVIES = "30::Solo (1968)::Drama|War\n10::Once: a :: tale (1994)::Drama\n0020::No year::\n"


def folder(path: Path, ratings: str = RATINGS, movies: str | bytes = MOVIES, users: str | None = None) -> Path:
    path.mkdir()
    (path / "ratings.dat").write_text(ratings)
    (path / "movies.dat").write_bytes(movies if isinstance(movies, bytes) else movies.encode())
    if users is not None:
        (path / "users.dat").write_text(users)
    return path


def whole(world: ReplayWorld) -> Batch:
    return Batch.concatenate(list(world.batches(10_000)))


def values(schema: Schema, name: str, features: Rows) -> list[set[int]]:
    """The values of a field per event, padding left out."""
    first = schema.first_row(name)
    return [{int(row) - first for row in event if row} for event in features[:, schema.slot_range(name)]]


def test_ratings_come_sorted_by_time_user_and_item_and_numbered_by_first_appearance(tmp_path: Path) -> None:
    world = ReplayWorld(ReplayConfig(folder(tmp_path / "small"), negatives=1), seed=0)
    events = whole(world)
    engaged = events.label == 1
    # by hand: (100, 3, 10) (100, 3, 30) (100, 7, 20) (200, 7, 30) (300, 9, 40)
    assert events.user[engaged].tolist() == [0, 0, 1, 1, 2]
    assert events.item[engaged].tolist() == [0, 1, 2, 1, 3]
    assert events.time[engaged].tolist() == [100, 100, 100, 200, 300]
    assert (world.name, world.events, world.has_truth, world.skipped_rows) == ("small", 10, False, 0)


def test_decade_and_genres_come_from_the_title_and_may_be_unknown(tmp_path: Path) -> None:
    world = ReplayWorld(ReplayConfig(folder(tmp_path / "log"), negatives=1), seed=0)
    assert [(f.name, f.side, f.vocabulary, f.slots) for f in world.schema.fields] == [
        ("user", "user", 3, 1),
        ("item", "item", 4, 1),
        ("decade", "item", 2, 1),
        ("genres", "item", 2, 2),
    ]
    events = whole(world)
    drama, war = 0, 1
    genres = {0: {drama}, 1: {drama, war}, 2: set(), 3: set()}
    decades = {0: {0}, 1: {1}, 2: set(), 3: set()}
    assert values(world.schema, "genres", events.features) == [genres[item] for item in events.item]
    assert values(world.schema, "decade", events.features) == [decades[item] for item in events.item]
    assert values(world.schema, "user", events.features) == [{user} for user in events.user]
    assert values(world.schema, "item", events.features) == [{item} for item in events.item]


def test_users_bring_gender_age_and_occupation(tmp_path: Path) -> None:
    users = "3::F::25::4::12345\n7::M::25::1::9\n"
    world = ReplayWorld(ReplayConfig(folder(tmp_path / "log", users=users), negatives=1), seed=0)
    assert [f.name for f in world.schema.fields if f.side == "user"] == ["user", "gender", "age", "occupation"]
    events = whole(world)
    gender = {0: {0}, 1: {1}, 2: set()}
    age = {0: {0}, 1: {0}, 2: set()}
    assert values(world.schema, "gender", events.features) == [gender[user] for user in events.user]
    assert values(world.schema, "age", events.features) == [age[user] for user in events.user]


def test_latin_1_titles_are_read(tmp_path: Path) -> None:
    movies = "10::Fantômas (1913)::Crime\n".encode("latin-1") + "20::Fantômas (1964)::Crime\r\n".encode()
    world = ReplayWorld(ReplayConfig(folder(tmp_path / "log", movies=movies), negatives=1), seed=0)
    assert {f.name: f.vocabulary for f in world.schema.fields}["decade"] == 2


@pytest.mark.parametrize(
    ("file", "line", "text"),
    [
        ("ratings.dat", 2, "1::2::3"),
        ("ratings.dat", 2, "1::2::3::4::5"),
        ("ratings.dat", 2, "1::two::3::4"),
        ("ratings.dat", 2, "1::2::3::yesterday"),
        ("ratings.dat", 2, "1::2::3::nan"),
        ("ratings.dat", 2, "1::99999999999999999999::3::4"),
        ("movies.dat", 3, "20;No year;"),
        ("movies.dat", 3, "x::No year::"),
        ("users.dat", 1, "3::F::25::4"),
    ],
)
def test_a_damaged_row_is_named_or_skipped_and_counted(tmp_path: Path, file: str, line: int, text: str) -> None:
    log = folder(tmp_path / "log", users="3::F::25::4::12345\n7::M::25::1::9\n")
    rows = (log / file).read_text().splitlines()
    rows[line - 1] = text
    (log / file).write_text("\n".join(rows))
    with pytest.raises(DataError) as caught:
        ReplayWorld(ReplayConfig(log), seed=0)
    message = str(caught.value)
    assert f"{log / file}:{line}: '{text}' is not " in message and "--bad-rows skip" in message
    assert "\n" not in message
    world = ReplayWorld(ReplayConfig(log, negatives=1, bad_rows="skip"), seed=0)
    assert world.skipped_rows == 1
    assert world.events == (8 if file == "ratings.dat" else 10)


def test_limit_keeps_the_earliest_ratings(tmp_path: Path) -> None:
    ratings = "".join(f"{n}::{n}::1::{1_000 - n}\n" for n in range(500))
    world = ReplayWorld(ReplayConfig(folder(tmp_path / "log", ratings), negatives=1, limit=100), seed=0)
    events = whole(world)
    assert world.events == 200
    assert events.time[::2].tolist() == list(range(501, 601))


@pytest.mark.parametrize("missing", ["ratings.dat", "movies.dat"])
def test_a_folder_without_its_files_is_refused(tmp_path: Path, missing: str) -> None:
    log = folder(tmp_path / "log")
    (log / missing).unlink()
    with pytest.raises(DataError, match=f"no {missing} in it; give a folder"):
        ReplayWorld(ReplayConfig(log), seed=0)


def test_an_empty_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ratings.dat: no ratings in it"):
        ReplayWorld(ReplayConfig(folder(tmp_path / "log", ratings="\n")), seed=0)


def test_the_real_log_is_what_plain_python_reads(movietweetings: Path) -> None:
    world = ReplayWorld(ReplayConfig(movietweetings), seed=0)
    rows = [tuple(map(int, r.split("::"))) for r in (movietweetings / "ratings.dat").read_text().splitlines()]
    rows.sort(key=lambda row: (row[3], row[0], row[1]))
    events = whole(world)
    engaged = events.label == 1
    assert world.events == len(events) == 5 * len(rows) == 500_000
    users, items = list(dict.fromkeys(r[0] for r in rows)), list(dict.fromkeys(r[1] for r in rows))
    assert [users[u] for u in events.user[engaged]] == [r[0] for r in rows]
    assert [items[i] for i in events.item[engaged]] == [r[1] for r in rows]
    assert events.time[engaged].tolist() == [r[3] for r in rows]
    counts: Counter[str] = Counter()
    movies = (movietweetings / "movies.dat").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    genres = {int(item): set(filter(None, names.split("|"))) for item, _, names in (m.split("::") for m in movies)}
    for row in rows:
        counts.update(genres[row[1]])
    rows_used = events.features[engaged][:, world.schema.slot_range("genres")]
    ours = np.bincount(rows_used[rows_used > 0])
    assert sorted(ours[ours > 0].tolist()) == sorted(counts.values())
