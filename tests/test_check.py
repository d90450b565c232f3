"""`flicker check`: what it finds in logs of every form, what it guesses, and what it doubts."""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from simulator.check.guess import guessed
from simulator.check.main import doubts
from simulator.config import ReplayConfig
from simulator.world.families import is_known, read_mapping
from simulator.world.open import open_log
from tests.terminal import Said, Terminal, assert_refused

DAY, START = 86_400, 1_700_000_000


def columns(rows: int = 2_000, users: int = 50, items: int = 40) -> dict[str, list[Any]]:
    """A log as teams have them: in no order, with features of users and items, and what comes afterwards."""
    draw = random.Random(1)
    user, item = ([draw.randrange(count) for _ in range(rows)] for count in (users, items))
    return {
        "visitorId": [f"u{number}" for number in user],
        "sku": [7_000 + number for number in item],
        "event_time": [START + draw.randrange(30 * DAY) for _ in range(rows)],
        "clicked": [int(draw.random() < 0.3) for _ in range(rows)],
        "request_id": list(range(rows)),
        "country": [f"c{number % 3}" for number in user],
        "price": [round(1.5 * number, 2) for number in item],
        "tags": ["|".join(["red", "big", "new"][: 1 + number % 3]) for number in item],
        "device": [draw.choice(["phone", "desk"]) for _ in range(rows)],
        "play_seconds": [draw.random() for _ in range(rows)],
        "comment": [f"text {number}" for number in range(rows)],
        "empty": [None] * rows,
    }


def facts(said: Said) -> dict[str, str]:
    """The lines of facts by their name."""
    assert said.code == 0, said.err
    names = "rows|users|items|time|label|pages|weight|cold starts"
    return dict(re.findall(rf"^({names}) {{2,}}(.*?) *$", said.out, re.M))


def as_csv(folder: Path, table: pa.Table) -> Path:
    pa.csv.write_csv(table, folder / "log.csv")
    return folder / "log.csv"


def as_tabs(folder: Path, table: pa.Table) -> Path:
    pa.csv.write_csv(table, folder / "log.txt", pa.csv.WriteOptions(delimiter="\t", quoting_style="none"))
    return folder / "log.txt"


def as_parquet(folder: Path, table: pa.Table) -> Path:
    times = table["event_time"].cast(pa.timestamp("s", "Europe/Madrid"))
    tags = pa.compute.split_pattern(table["tags"], "|")
    table = table.set_column(2, "event_time", times).set_column(7, "tags", tags)
    pa.parquet.write_table(table, folder / "log.parquet")
    return folder / "log.parquet"


def as_parts(folder: Path, table: pa.Table) -> Path:
    (folder / "parts").mkdir()
    for number in range(3):
        pa.parquet.write_table(table.slice(number * 700, 700), folder / "parts" / f"{number}.parquet")
    return folder / "parts"


def as_glob(folder: Path, table: pa.Table) -> Path:
    return as_parts(folder, table) / "*.parquet"


@pytest.mark.parametrize("write", [as_csv, as_tabs, as_parquet, as_parts, as_glob])
def test_a_log_without_a_mapping_file_is_guessed_and_the_guess_is_a_mapping_file(
    tmp_path: Path, flicker: Terminal, write: Callable[[Path, pa.Table], Path]
) -> None:
    log, made = write(tmp_path, pa.table(columns())), tmp_path / "new.toml"
    said = flicker("check", log, "--write", made)
    found = facts(said)
    assert found["rows"] == "2,000" and found["users"].startswith("50 ") and found["items"].startswith("40 ")
    assert found["time"].startswith("2023-11-14 22:") and "UTC" in found["time"] and "zone" not in found["time"]
    assert re.match(r"[23]\d\.\d\d % of rows   clicked", found["label"]) and found["pages"].startswith("2,000 ")
    assert found["cold starts"] == "of the rows in the last tenth 0.0 % have a new user and 0.0 % have a new item"
    for text in ("play_seconds is left out: it may say what the user did", "empty is left out: it is empty"):
        assert text in said.out
    settings = tomllib.loads(made.read_text())
    roles = {"user": "visitorId", "item": "sku", "time": "event_time", "label": "clicked", "slate": "request_id"}
    assert {role: settings[role] for role in roles} == roles and "time_unit" not in settings
    assert settings["features"] == {
        "user": ["country"],
        "item": [
            "price",
            "tags" if write is as_parquet else {"column": "tags", "separator": "|"},
        ],
        "context": ["device"],
    }
    assert len(open_log(ReplayConfig(made))) == 2_000
    assert facts(flicker("check", made)) == found


def test_names_and_values_decide_what_a_column_is(tmp_path: Path, flicker: Terminal) -> None:
    draw = random.Random(2)
    table = {
        "x": [f"{draw.randrange(400):x}" for _ in range(1_000)],
        "y": [f"{draw.randrange(60)}z" for _ in range(1_000)],
        "when": [f"202401{1 + n % 28:02}{n % 24:02}" for n in range(1_000)],
        "event_type": [draw.choice(["view", "buy"]) for _ in range(1_000)],
        "a;b": [draw.randrange(1_000) / 7 for _ in range(1_000)],
    }
    said = flicker("check", as_csv(tmp_path, pa.table(table)))
    for line in (
        'user = "x"',
        'item = "y"',
        'time_unit = "%Y%m%d%H"',
        "# label = \"event_type == '",
        'context = [{ column = "a;b", kind = "number" }]',
        "event_type is left out",
        "user is x, because it has most values (3",
        "every row is an engagement",
        "times without zone are taken as UTC",
        "Keep the mapping file with --write FILE.toml",
    ):
        assert line in said.out, said.out


@pytest.mark.parametrize(
    ("header", "row", "roles"),
    [
        ("timestamp,visitorid,event,itemid,transactionid", "1433221332117,257597,view,355908,", "visitorid itemid"),
        ("user_id,parent_asin,rating,timestamp,helpful_vote", "A1,B00,5.0,1588687728923,0", "user_id parent_asin"),
        ("userId,movieId,rating,timestamp", "1,296,5.0,1147880044", "userId movieId"),
        (",user_id,item_id,user,time,orderid", "0,7,8,x,1700000000,12", "user_id item_id"),
        ("session_id,ts,item_nbr", "11,2014-04-07T10:51:09.277Z,214536502", "session_id item_nbr"),
        ("CLIENT_ID,PRODUCT_CODE,DATE,QTY", "c7,p9,2024-01-31,3", "CLIENT_ID PRODUCT_CODE"),
    ],
)
def test_headers_of_public_logs_are_understood(tmp_path: Path, header: str, row: str, roles: str) -> None:
    rows = [header]
    for number in range(3):  # three users, two items
        ending = dict(zip(roles.split(), (number, number % 2), strict=True))
        cells = zip(header.split(","), row.split(","), strict=True)
        rows.append(",".join(f"{cell}{ending.get(name, '')}" for name, cell in cells))
    (tmp_path / "ratings.csv").write_text("\n".join(rows) + "\n")  # which is not always MovieLens
    text, _ = guessed(str(tmp_path / "ratings.csv"))
    settings = tomllib.loads(text)
    assert is_known(tmp_path / "ratings.csv") == ("userId" in header) and "user" not in str(settings["features"])
    assert [settings["user"], settings["item"]] == roles.split() and "label" not in settings


def test_a_mapping_file_is_checked_with_its_tables(tmp_path: Path, flicker: Terminal) -> None:
    as_csv(tmp_path, pa.table(columns()))
    (tmp_path / "items.csv").write_text("id,name,size\n" + "".join(f"{7_000 + n},Item {n},{n}\n" for n in range(45)))
    (tmp_path / "log.toml").write_text(
        'log = "log.csv"\nuser = "visitorId"\nitem = "sku"\ntime = "event_time"\nlabel = "play_seconds > 0.5"\n'
        'weight = "play_seconds"\nhistory = 5\n[features]\nitem = ["device"]\n'
        '[items]\nfile = "items.csv"\nid = "id"\ntitle = "name"\nfeatures = [{column = "size", kind = "number"}]\n'
    )
    said = flicker("check", tmp_path / "log.toml")
    found = facts(said)
    assert found["items"] == "40   50.0 rows each, 5 more in the item table"
    assert re.match(r"(49|50|51)\.\d\d % of rows   play_seconds > 0.5", found["label"])
    assert re.match(r"0.0\d+ to (1|0.99\d*), mean 0.(49|5)", found["weight"])
    assert "device changes between the rows of an item" in said.out and "not used: clicked, request_id" in said.out
    assert re.search(r"size +item +number, in buckets +16 ", said.out) and re.search(r"device +moment", said.out)
    assert "Nothing looks wrong." in said.out


def test_a_family_needs_no_mapping_file(movietweetings: Path, flicker: Terminal) -> None:
    said = flicker("check", movietweetings)
    assert facts(said)["items"] == "10,506   9.5 rows each" and facts(said)["label"].startswith("none")
    assert re.search(r"genres +item +category, up to 8 each +25 ", said.out)


def test_what_cannot_be_checked_is_one_line(tmp_path: Path, flicker: Terminal) -> None:
    log = as_csv(tmp_path, pa.table(columns(rows=100)))
    assert_refused(flicker("check"), "log = none")
    assert_refused(flicker("check", tmp_path / "none.csv"), "none.csv: no such file")
    assert_refused(flicker("check", tmp_path / "none.toml"), "none.toml: no such file or folder")
    assert_refused(flicker("check", log, "--write", log), "--write", "name a file *.toml that is not there yet")
    assert_refused(flicker("check", log, "--write", tmp_path / "no" / "a.toml"), "--write", "No such file or directory")
    (tmp_path / "words.csv").write_text("a,b\nx,y\nz,w\n")
    assert_refused(flicker("check", tmp_path / "words.csv"), "no column looks like the time; it has a, b")
    (tmp_path / "words.csv").write_text("1,2,1700000000\n3,4,1700000001\n")
    assert_refused(flicker("check", tmp_path / "words.csv"), "its first line holds numbers", "`columns`")
    (tmp_path / "bad.csv").write_text(log.read_text() + "1,2\n")
    assert_refused(flicker("check", tmp_path / "bad.csv"), "bad.csv:102: 2 cells where there are 12 columns")
    assert "1 damaged ones left out" in flicker("check", tmp_path / "bad.csv", "--bad-rows", "skip").out


def doubted(folder: Path, label: str = "", unit: str = "seconds", **changed: list[Any]) -> list[str]:
    """The doubts of a sound log with other columns."""
    pa.csv.write_csv(pa.table(columns() | changed), folder / "log.csv")
    (folder / "log.toml").write_text(
        f'log = "log.csv"\nuser = "visitorId"\nitem = "sku"\ntime = "event_time"\ntime_unit = "{unit}"\n{label}\n'
        '[features]\nuser = ["country"]\nitem = ["price"]\n'
    )
    assert read_mapping(folder / "log.toml").time_unit == unit
    return list(doubts(open_log(ReplayConfig(folder / "log.toml"))))


def test_what_looks_wrong_is_said_and_nothing_else(tmp_path: Path) -> None:
    label = 'label = "clicked"'
    ordered = [START + number for number in range(2_000)]
    for settings, words in [
        ({}, []),
        ({"label": label}, []),
        ({"label": label, "clicked": [1] * 2_000}, ["every label is 1"]),
        ({"label": label, "clicked": [0] * 2_000}, ["every label is 0"]),
        ({"unit": "milliseconds"}, ["times are nearly all of it in one day of 1970"]),
        ({"event_time": [time + 10**9 for time in ordered]}, ["the last rows are in the future"]),
        ({"event_time": [START] * 2_000}, ["all rows have the same time"]),
        (
            {"visitorId": ["u"] * 2_000, "country": ["a", "b"] * 1_000},
            ["one user in all rows", "country has one value"],
        ),
        ({"visitorId": list(range(2_000))}, ["nearly every row has another user"]),
        (
            {"visitorId": [n // 4 for n in range(2_000)], "event_time": ordered},
            ["100 % of the last tenth are new users"],
        ),
        ({"country": ["ES"] * 2_000}, ["country has one value, ES"]),
        ({"label": 'weight = "clicked"', "clicked": [0] * 2_000}, ["every weight is 0"]),
        ({"label": 'slate = "clicked"', "clicked": [0] * 2_000}, ["all rows are one page"]),
        ({"label": 'slate = "request_id"'}, ["every row is another page"]),
        ({"country": [None] * 2_000}, ["country is empty everywhere"]),
    ]:
        found = doubted(tmp_path, **settings)  # type: ignore[arg-type]
        assert [line[: len(word)] for line, word in zip(found, words, strict=True)] == words


def test_parts_that_lack_columns_or_have_narrower_types_are_guessed_together(tmp_path: Path) -> None:
    parts: list[dict[str, pa.Array]] = [
        {"item": pa.array([1, 2], pa.int8()), "n": pa.array([True, False]), "dev": pa.nulls(2)},
        {"item": pa.array([3, 2], pa.int64()), "n": pa.array([1.5, 2.0]), "dev": pa.array(["a", "b"])},
        {"item": pa.array([3, 1], pa.int32()), "tags": pa.array([["x", None], []])},
    ]
    for number, part in enumerate(parts):
        rest = {"user": pa.array(["u1", "u2"]), "time": pa.array([START + number, START + DAY])}
        rest["user"] = rest["user"].dictionary_encode() if number else rest["user"]
        pa.parquet.write_table(pa.table(rest | part), tmp_path / f"{number}.parquet")
    text, notes = guessed(str(tmp_path))
    assert tomllib.loads(text)["features"] == {"context": ["n", "dev"]}
    assert "tags is left out: it has one value" in notes
