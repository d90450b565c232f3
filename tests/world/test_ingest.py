"""Logs that are read once: what comes of every cell, damaged rows, and what is fitted on the past alone."""

from __future__ import annotations

import io
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.config import ReplayConfig
from simulator.errors import DataError
from simulator.world import coding, values
from simulator.world import rows as rows_module
from simulator.world.clicklog import ClickLog
from simulator.world.coding import time_order
from simulator.world.open import open_log
from simulator.world.values import buckets
from tests.world.logs import MORE, as_parquet, assert_is, rows_of, same, written


def opened(path: Path, native: bool = True, **settings: Any) -> ClickLog:
    return open_log(ReplayConfig(path, **settings), native)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLICKER_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["native", "plain"])
def native(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "native")


def test_every_cell_of_an_unsorted_log_arrives(tmp_path: Path, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "CHUNK", 100)  # so that a short log has many
    rows = rows_of(3_000)
    path = written(tmp_path / "a", rows)
    log = opened(path, native)
    assert_is(log, rows)
    assert log.name == "map" and log.labelled and log.history == 5 and not log.notes
    assert_is(opened(as_parquet(path, rows), native), rows)


def test_the_order_of_rows_means_nothing_and_a_limit_takes_the_first(tmp_path: Path) -> None:
    rows = [[str(1_600_000_000 + number), *row[1:]] for number, row in enumerate(rows_of(1_000))]
    mixed = random.Random(1).sample(rows, len(rows))
    assert same(opened(written(tmp_path / "a", rows)), opened(written(tmp_path / "b", mixed)))
    assert_is(opened(written(tmp_path / "c", mixed), limit=500), rows[:500])
    old = written(tmp_path / "d", mixed, MORE + "\nsort = true")
    assert same(opened(old, limit=500), opened(written(tmp_path / "e", rows[:500])))


def test_times_in_other_units_are_the_same_times(tmp_path: Path) -> None:
    rows = rows_of(300)
    seconds = opened(written(tmp_path / "s", rows))

    def iso(seconds: float) -> str:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z" if seconds % 2 else "")

    for unit, form in (("milliseconds", lambda seconds: f"{seconds * 1e3:.0f}"), ("iso8601", iso)):
        other = [[form(float(row[0])), *row[1:]] for row in rows]
        assert same(seconds, opened(written(tmp_path / unit, other, f'{MORE}\ntime_unit = "{unit}"')))


@pytest.mark.parametrize(
    ("column", "cell", "fault"),
    [
        (0, "yesterday", "at = 'yesterday' is not a time in unix seconds"),
        (0, "inf", "at = 'inf' is not a time in unix seconds"),
        (0, "-1", "at = '-1' is not a time in unix seconds from 1970 on"),
        (0, "1600000000000", "at = '1600000000000' is not a time in unix seconds from 1970 on (milliseconds? set"),
        (1, "", "visitor = None is not a user of 1 to 1,024 bytes"),
        (2, "", "sku = None is not an item"),
        (1, "u" * 10_000, f"visitor = '{'u' * 59}... is not a user of 1 to 1,024 bytes"),
        (4, "ü" * 513, "... is not a value of at most 1,024 bytes"),
        (5, "|".join(map(str, range(65))), "is not at most 64 values"),
        (7, "2", "clicked = '2' is not 0 or 1"),
        (7, "", "clicked = None is not 0 or 1"),
        (8, "", "page = None is not a page"),
        (9, "2.5", "rank = '2.5' is not a position, a whole number from 0 to 10,000"),
        (10, "-0.1", "w = '-0.1' is not a weight, 0 or more"),
        (10, "", "w = None is not a weight"),
        (None, "", "10 cells where there are 11 columns"),
    ],
)
def test_a_damaged_row_is_named_or_skipped_and_counted(
    tmp_path: Path, column: int | None, cell: str, fault: str
) -> None:
    rows = rows_of(600)
    rows[400] = rows[400][:-1] if column is None else [*rows[400][:column], cell, *rows[400][column + 1 :]]
    rows[500] = ["?", *rows[500][1:]]  # a later one, which is not the first
    path = written(tmp_path / "bad", rows)
    with pytest.raises(DataError) as caught:
        opened(path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'bad' / 'log.csv'}:402: ") and fault in message
    assert message.endswith("; correct the row, or leave damaged rows out with --bad-rows skip") and "\n" not in message
    log = opened(path, bad_rows="skip")
    assert log.skipped_rows == 2
    assert_is(log, rows[:400] + rows[401:500] + rows[501:])


def test_an_empty_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="log.csv: no rows in it; give a log with at least one row"):
        opened(written(tmp_path, []))
    with pytest.raises(DataError, match="log.csv: no rows in it .1 damaged ones left out.; give"):
        opened(written(tmp_path, [["?"]]), bad_rows="skip")


def test_a_log_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, rows_of(100))
    run = coding.Coding.run

    def slow(*arguments: Any) -> None:
        run(*arguments)
        written(tmp_path, rows_of(101))

    monkeypatch.setattr(coding.Coding, "run", slow)
    with pytest.raises(DataError, match="log.csv: changed while it was being read"):
        opened(path)
    monkeypatch.undo()


def test_an_item_feature_that_changes_is_context_and_a_user_feature_is_its_first_value(tmp_path: Path) -> None:
    rows = [[str(1_600_000_000 + number), *row[1:]] for number, row in enumerate(rows_of(400))]
    later = [[*row[:3], "elsewhere" if number > 350 else row[3], *row[4:]] for number, row in enumerate(rows)]
    before, after = opened(written(tmp_path / "a", rows)), opened(written(tmp_path / "b", later))
    assert same(before, after) and not after.notes
    for row in rows[300:]:
        row[4] = "sale"
    log = opened(written(tmp_path / "c", rows))
    assert log.notes == ["brand changes between the rows of an item: it is taken as context"]
    assert [feature.name for feature in log.items.features] == ["tags"]
    assert [feature.name for feature in log.context_features] == ["brand", "device", "rank"]
    brand, found = log.context_features[0], log.context[:, 0].tolist()
    assert [brand.names[value] if value >= 0 else "" for value in found] == [row[4] for row in rows]


TABLES = """
log = "log.csv"
user = "visitor"
item = "sku"
time = "at"
[items]
file = "items.csv"
id = "sku"
title = "name"
features = ["maker", { column = "price", kind = "number", buckets = 4 }, { column = "tags", separator = ";" }]
[users]
file = "users.csv"
id = "who"
features = ["age"]
"""


def test_tables_beside_the_log_are_joined_by_id(tmp_path: Path, native: bool) -> None:
    written(tmp_path, [[str(1_600_000_000 + n), f"u{n % 3}", f"i{9 - n % 10}", *[""] * 8] for n in range(1_000)])
    (tmp_path / "map.toml").write_text(TABLES)
    table = [f"i{n},{'' if n == 4 else f'Thing {n}'},m{n % 2},{n * 10 if n != 7 else ''},a;b" for n in range(2, 13)]
    (tmp_path / "items.csv").write_text("\n".join(["sku,name,maker,price,tags", *table, "i5,twice,m9,0,c"]))
    (tmp_path / "users.csv").write_text("who,age\nu2,30\nnobody,99\nu0,31\n")
    log = opened(tmp_path / "map.toml", native)
    assert list(log.users.ids) == ["u0", "u1", "u2"]
    assert list(log.items.ids) == [*(f"i{n}" for n in range(9, -1, -1)), "i10", "i11", "i12"]
    assert log.items.titles is not None
    titles = dict(zip(log.items.ids, log.items.titles, strict=True))
    assert titles["i9"] == "Thing 9" and titles["i4"] == "i4" and titles["i0"] == "i0" and titles["i5"] == "Thing 5"
    maker, price, tags = ({i: v for i, v in zip(log.items.ids, f.values, strict=True)} for f in log.items.features)
    assert [maker[f"i{n}"].tolist() for n in (9, 8, 0, 12)] == [[0], [1], [-1], [1]]
    assert price["i7"].tolist() == [-1] and price["i12"] > price["i3"] and tags["i3"].tolist() == [0, 1]
    (age,) = log.users.features
    assert age.values is not None and [age.names[v] if v >= 0 else "" for v in age.values[:, 0]] == ["31", "", "30"]


def test_what_there_are_too_many_of_shares_what_is_left(tmp_path: Path) -> None:
    rows = [[str(1_600_000_000 + n), f"u{n % 7}", "i", *[""] * 3, f"d{n % 300}", *[""] * 4] for n in range(900)]
    path = written(tmp_path, rows, "")
    path.write_text(path.read_text().replace('["device"]', '[{ column = "device", vocabulary = 50 }]'))
    log = opened(path)
    (device,) = log.context_features
    assert list(device.names) == [*(f"d{n}" for n in range(45)), *(f"others, {n} of 5" for n in range(1, 6))]
    found = log.context[:, 0]
    assert found[:45].tolist() == list(range(45)) and set(found[45:300]) == set(range(45, 50))
    assert (found[:300] == found[300:600]).all()


def test_buckets_are_fitted_on_the_past_and_say_what_they_hold(tmp_path: Path) -> None:
    numbers = np.round(np.random.default_rng(0).lognormal(3, 1, 5_000), 2)
    logs = []
    for future in (1, 10):
        cells = [f"{x * (future if n >= 500 else 1):g}" if n % 50 else "" for n, x in enumerate(numbers)]
        rows = [[str(1_600_000_000 + n), "u", "i", *[""] * 3, cell, *[""] * 4] for n, cell in enumerate(cells)]
        path = written(tmp_path / str(future), rows, "")
        number = '[{ column = "device", kind = "number", buckets = 8 }]'
        path.write_text(path.read_text().replace('["device"]', number))
        logs.append(opened(path))
        (price,) = logs[-1].context_features
        found = logs[-1].context[:, 0].tolist()
        assert np.bincount(np.array(found[:500]) + 1)[1:].min() > 40  # equal shares of the past
        for cell, bucket in zip(cells, found, strict=True):
            name = price.names[bucket].replace("below", "-inf to").replace("or more", "to inf")
            assert bucket == -1 if not cell else float(name.split()[0]) <= float(cell) < float(name.split()[2])
    assert list(logs[0].context_features[0].names) == list(logs[1].context_features[0].names)


def test_few_distinct_numbers_have_a_bucket_each() -> None:
    found = buckets(np.array([0.0, 2, 1, 2, np.nan, 7]), np.array([2.0, 1, 0, 0]), 24)
    assert found.names.to_pylist() == ["below 1", "1 to 2", "2 or more"] and found.cell.tolist() == [0, 2, 1, 2, -1, 2]
    nothing = buckets(np.array([1.0]), np.array([np.nan]), 24)
    assert nothing.names.to_pylist() == ["any number"] and nothing.cell.tolist() == [0]


@given(st.lists(st.sampled_from([0.0, 0.001, 5.0, 5.0005, 1e9, 9.9e10]), min_size=1), st.integers(1, 50))
def test_rows_are_sorted_by_time_and_equal_times_stay(times: list[float], limit: int) -> None:
    found = np.arange(len(times))[time_order(np.array(times), limit)]
    assert found.tolist() == sorted(range(len(times)), key=times.__getitem__)[:limit]


def test_a_terminal_is_told_how_far_a_long_log_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    path = written(tmp_path, rows_of(300))
    for large, told in ((1, True), (10**9, False)):
        monkeypatch.setattr(rows_module, "SLOW_BYTES", large)
        monkeypatch.setattr("sys.stderr", screen := Screen())
        opened(path, limit=100 + large % 7)
        assert ("reading log.csv: 300 rows" in screen.getvalue()) == told
