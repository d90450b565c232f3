"""Logs of every form, as somebody brings them: `flicker check`, then `flicker run`, and each works at the first try."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from tests.terminal import SMALL_RUN, Terminal, assert_refused

ROWS, USERS, ITEMS, START = 1_200, 30, 60, 1_700_000_000
Row = tuple[str, str, int, int]
"""User, item, unix seconds, and 1 for an engagement."""


def rows(draw: random.Random) -> list[Row]:
    """A log in no order, whose users prefer some items."""
    found = []
    for _ in range(ROWS):
        user, item = draw.randrange(USERS), int(ITEMS * draw.random() ** 2)
        found.append(
            (f"u{user}", f"i{item}", START + draw.randrange(10**6), int(draw.random() < 0.3 + 0.4 * (user % 2)))
        )
    return found


def table(log: list[Row]) -> pa.Table:
    columns = dict(zip(("user_id", "item_id", "timestamp", "label"), zip(*log, strict=True), strict=True))
    return pa.table(columns | {"brand": [f"b{int(item[1:]) % 5}" for _, item, _, _ in log]})


def csv(folder: Path, log: list[Row]) -> Path:
    pa.csv.write_csv(table(log), folder / "log.csv")
    return folder / "log.csv"


def parts(folder: Path, log: list[Row]) -> Path:
    (folder / "parts").mkdir()
    for number in range(3):
        pa.parquet.write_table(table(log).slice(number * 400, 400), folder / "parts" / f"{number}.parquet")
    return folder / "parts" / "*.parquet"


def mapped(folder: Path, log: list[Row]) -> Path:
    """With everything that a mapping file may say."""
    more = {"page": [f"p{n // 2}" for n in range(ROWS)], "rank": [1, 2] * (ROWS // 2), "w": [1, 2, 3] * (ROWS // 3)}
    log = sorted(log, key=lambda row: row[2])
    pages = [log[n - n % 2] for n in range(ROWS)]
    log = [(page[0], item, page[2], label) for page, (_, item, _, label) in zip(pages, log, strict=True)]
    whole = table(log)
    for name, cells in more.items():
        whole = whole.append_column(name, pa.array(cells))
    pa.parquet.write_table(whole, folder / "log.parquet")
    items = "".join(f'i{n},"Item {n}",{n / 7},{"x" if n % 2 else "x|y"}\n' for n in range(ITEMS))
    (folder / "items.csv").write_text(f"id,name,price,tags\n{items}")
    (folder / "map.toml").write_text(
        'log = "log.parquet"\nuser = "user_id"\nitem = "item_id"\ntime = "timestamp"\n'
        'slate = "page"\nposition = "rank"\n'
        'label = "label == 1 and brand not in [\'b9\']"\nweight = "w"\nhistory = 5\n[features]\nuser = []\n'
        '[items]\nfile = "items.csv"\nid = "id"\ntitle = "name"\n'
        'features = [{ column = "price", kind = "number", buckets = 8 }, { column = "tags", separator = "|" }]\n'
    )
    return folder / "map.toml"


def movielens(folder: Path, log: list[Row]) -> Path:
    (folder / "ratings.dat").write_text("".join(f"{user[1:]}::{item[1:]}::5::{time}\n" for user, item, time, _ in log))
    (folder / "movies.dat").write_text("".join(f"{n}::Film {n} (19{50 + n % 50})::Drama|War\n" for n in range(ITEMS)))
    return folder


def recbole(folder: Path, log: list[Row]) -> Path:
    head = "user_id:token\titem_id:token\ttimestamp:float\tlabel:float\n"
    (folder / "small.inter").write_text(head + "".join("\t".join(map(str, row)) + "\n" for row in log))
    items = "".join(f"i{n}\tfirst {n % 3}\t{n / 3}\n" for n in range(ITEMS))
    (folder / "small.item").write_text("item_id:token\tclass:token_seq\tprice:float\n" + items)
    return folder


def mind(folder: Path, log: list[Row]) -> Path:
    lines = []
    for page in range(ROWS // 2):
        shown = " ".join(f"N{item[1:]}-{label}" for _, item, _, label in log[2 * page : 2 * page + 2])
        at = f"11/{1 + page // 24}/2019 {1 + page % 12}:05:58 {'AM' if page % 24 < 12 else 'PM'}"
        lines.append(f"{page}\tU{page % USERS}\t{at}\t\t{shown}\n")
    (folder / "behaviors.tsv").write_text("".join(lines))
    news = "".join(f'N{n}\tnews\tlocal{n % 4}\tOn "{n}"\t\t\t[]\t[]\n' for n in range(ITEMS))
    (folder / "news.tsv").write_text(news)
    return folder


@pytest.mark.parametrize("form", [csv, parts, mapped, movielens, recbole, mind])
def test_a_log_is_checked_and_run_at_the_first_try(
    tmp_path: Path, flicker: Terminal, form: Callable[[Path, list[Row]], Path]
) -> None:
    log = form(tmp_path, rows(random.Random(7)))
    write = ["--write", tmp_path / "guess.toml"] if form in (csv, parts) else []
    checked = flicker("check", log, *write)
    assert checked.code == 0 and "1,200" in checked.out and f"{USERS} " in checked.out, checked.err
    data = write[1] if write else log
    page = "--page" if form is mapped else "--no-page"  # one of them is enough: it takes most of the time
    ran = flicker("run", *SMALL_RUN, "--data", data, page, "--out", tmp_path / "out")
    assert ran.code == 0 and (tmp_path / "out" / "result.json").is_file(), ran.err
    assert (tmp_path / "out" / "report.html").is_file() == (form is mapped)


ODD = {
    "too few cells": (b"u1,i1", "2 cells where there are 5 columns"),
    "too many cells": (b"u1,i1,1700000000,1,b,c", "6 cells where there are 5 columns"),
    "no user": (b",i1,1700000000,1,b", "user_id = None is not a user"),
    "an id of 10 kB": (b"u1," + b"x" * 10_000 + b",1700000000,1,b", "is not an item of 1 to 1,024 bytes"),
    "a time that is none": (b"u1,i1,soon,1,b", "timestamp = 'soon' is not a time"),
    "milliseconds among seconds": (b"u1,i1,1700000000000,1,b", "milliseconds?"),
    "a label that is none": (b"u1,i1,1700000000,2,b", "label = '2' is not 0 or 1"),
    "a quote that is never closed": (b'"u1,i1,1700000000,1,b', "cells where there are 5 columns"),
}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_row_is_one_line_with_its_place_or_counted(tmp_path: Path, flicker: Terminal, odd: str) -> None:
    text = csv(tmp_path, rows(random.Random(7))).read_bytes().replace(b'"', b"").splitlines()
    row, fault = ODD[odd]
    text[700] = row
    text[20] = "ü1,ï1,1700000000,1,b".encode("latin-1")  # odd, and sound
    (tmp_path / "log.csv").write_bytes(b"\n".join(text) + b"\n")
    flicker("check", tmp_path / "log.csv", "--write", tmp_path / "map.toml", "--bad-rows", "skip")
    assert_refused(flicker("check", tmp_path / "map.toml"), f"{tmp_path / 'log.csv'}:701: ", fault, "--bad-rows skip")
    skipped = flicker("check", tmp_path / "map.toml", "--bad-rows", "skip")
    assert skipped.code == 0 and "1,199   1 damaged ones left out" in skipped.out
