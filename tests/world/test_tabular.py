"""CSV and Parquet logs through a mapping file: values, units, damaged rows, order, and memory."""

from __future__ import annotations

import csv
import random
import sys
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from simulator.config import ReplayConfig
from simulator.errors import DataError
from simulator.types import Batch
from simulator.world.replay import ReplayWorld

MAPPING = """
log = "{log}"
user = "visitor"
item = "sku"
time = "at"
{more}
[features]
user = ["country"]
item = ["brand", {{ column = "tags", separator = "|" }}]
context = ["device"]
"""
HEADER = ["at", "visitor", "sku", "country", "brand", "tags", "device", "clicked"]
Row = list[str]


def rows_of(count: int, users: int = 50, items: int = 40, seed: int = 0) -> list[Row]:
    """A log in time order; whatever describes a user or item is the same in every row, and sometimes unknown."""
    draw = random.Random(seed)
    tags = [draw.sample(["red", "green, light", "blue"], draw.randrange(4)) for _ in range(items)]
    rows = []
    for number in range(count):
        user, item = draw.randrange(users), draw.randrange(items)
        device = draw.choice(["phone", "desk", ""])
        who = [str(1_600_000_000 + number // 2), f"u{user}", f"i{item}", f"c{user % 3}"]
        rows.append([*who, f"b{item % 4}", "|".join(tags[item]), device, str(int(draw.random() < 0.3))])
    return rows


def written(folder: Path, rows: list[Row], more: str = "", delimiter: str = ",") -> Path:
    folder.mkdir(exist_ok=True)
    with (folder / "log.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([HEADER, *rows])
    (folder / "map.toml").write_text(MAPPING.format(log="log.csv", more=more))
    return folder / "map.toml"


def world_of(path: Path, **settings: object) -> ReplayWorld:
    return ReplayWorld(ReplayConfig(path, **{"negatives": 2, **settings}), seed=3)  # type: ignore[arg-type]


def whole(world: ReplayWorld) -> Batch:
    return Batch.concatenate(list(world.batches(100_000)))


def same(left: ReplayWorld, right: ReplayWorld) -> bool:
    a, b = whole(left), whole(right)
    names = ("user", "item", "time", "features", "label")
    return left.schema == right.schema and all(np.array_equal(getattr(a, n), getattr(b, n)) for n in names)


def test_every_cell_arrives_where_the_schema_says(tmp_path: Path) -> None:
    rows = rows_of(20_000)
    world = world_of(written(tmp_path, rows, 'label = "clicked"'))
    events, schema = whole(world), world.schema
    assert [f.name for f in schema.fields] == ["user", "country", "item", "brand", "tags", "device"]
    assert world.name == "map" and world.events == len(rows)
    assert events.time.tolist() == [float(row[0]) for row in rows]
    assert events.label.tolist() == [float(row[7]) for row in rows]
    for name, column in [("user", 1), ("country", 3), ("item", 2), ("brand", 4), ("tags", 5), ("device", 6)]:
        values: dict[str, int] = {}
        found = events.features[:, schema.slot_range(name)] - schema.first_row(name)
        for row, numbers in zip(rows, found.tolist(), strict=True):
            cells = row[column].split("|") if name == "tags" else [row[column]]
            expected = [values.setdefault(cell, len(values)) for cell in cells if cell]
            assert [number for number in numbers if number >= 0] == expected
        assert [world.name_of(name, number) for number in values.values()] == list(values) or name in ("user", "item")


def test_what_describes_a_user_or_item_is_its_first_value(tmp_path: Path) -> None:
    rows = rows_of(300)
    changed = [row.copy() for row in rows]
    seen: set[str] = set()
    for row in changed:
        if row[1] in seen:
            row[3] = "c1"  # a country that others have
        seen.add(row[1])
    assert same(world_of(written(tmp_path / "a", rows)), world_of(written(tmp_path / "b", changed)))


def test_sorting_an_unsorted_log_gives_what_the_sorted_one_gives(tmp_path: Path) -> None:
    rows = rows_of(20_000)
    for number, row in enumerate(rows):
        row[0] = str(1_600_000_000 + number)
    mixed = random.Random(1).sample(rows, len(rows))
    sorted_world = world_of(written(tmp_path / "a", rows))
    assert same(sorted_world, world_of(written(tmp_path / "b", mixed, "sort = true")))
    limited = world_of(written(tmp_path / "c", mixed, "sort = true"), limit=500)
    assert same(limited, world_of(written(tmp_path / "d", rows), limit=500)) and limited.events == 1_500


def test_times_in_other_units_are_the_same_times(tmp_path: Path) -> None:
    rows = rows_of(300)
    seconds = world_of(written(tmp_path / "s", rows))

    def iso(seconds: int) -> str:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z" if seconds % 2 else "")

    for unit, form in (("milliseconds", lambda seconds: f"{seconds}000"), ("iso8601", iso)):
        other = [[form(int(row[0])), *row[1:]] for row in rows]
        assert same(seconds, world_of(written(tmp_path / unit, other, f'time_unit = "{unit}"')))


def test_delimiter_byte_order_mark_line_ends_and_latin_1_are_understood(tmp_path: Path) -> None:
    rows = rows_of(300)
    path = written(tmp_path / "a", rows, 'delimiter = ";"', delimiter=";")
    log = tmp_path / "a" / "log.csv"
    text = log.read_text().replace("blue", "blüe").replace("\n", "\r\n")
    log.write_bytes(b"\xef\xbb\xbf" + text.encode("latin-1") + b"\r\n")
    assert same(world_of(path), world_of(written(tmp_path / "b", rows)))


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    rows = rows_of(10_000)
    columns = dict(zip(HEADER, map(list, zip(*rows, strict=True)), strict=True))
    table = pyarrow.table(
        {
            **columns,
            "at": pyarrow.array([int(t) * 1_000_000 for t in columns["at"]], pyarrow.timestamp("us", "Europe/Madrid")),
            "tags": [list(filter(None, cell.split("|"))) for cell in columns["tags"]],
            "device": [cell or None for cell in columns["device"]],
            "clicked": [cell == "1" for cell in columns["clicked"]],
        }
    )
    for more in ("", 'label = "clicked"'):
        path = written(tmp_path, rows, more)
        pyarrow.parquet.write_table(table, tmp_path / "log.parquet", row_group_size=2_501)
        (tmp_path / "other.toml").write_text(MAPPING.format(log="log.parquet", more=more))
        other = world_of(tmp_path / "other.toml")
        assert same(world_of(path), other)
        part = Batch.concatenate(list(other.batches(1_000, start=8_500, stop=9_500)))
        assert np.array_equal(part.features, whole(other).features[8_500:9_500])


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(MAPPING.format(log="log.parquet", more=""))
    log = tmp_path / "log.parquet"
    log.write_bytes(b"PAR1 but nothing else")
    with pytest.raises(DataError, match=r"log.parquet: damaged or not Parquet \("):
        world_of(tmp_path / "map.toml")
    columns = dict(zip(HEADER, map(list, zip(*rows_of(5_000), strict=True)), strict=True))
    pyarrow.parquet.write_table(pyarrow.table(columns), log)
    damaged = bytearray(log.read_bytes())
    damaged[4:400] = b"\xff" * 396
    log.write_bytes(damaged)
    with pytest.raises(DataError, match=r"log.parquet: damaged or not Parquet \("):
        world_of(tmp_path / "map.toml")


def test_a_parquet_column_of_structures_is_refused(tmp_path: Path) -> None:
    columns = dict(zip(HEADER, map(list, zip(*rows_of(100), strict=True)), strict=True))
    pyarrow.parquet.write_table(pyarrow.table({**columns, "tags": [[{"a": 1}]] * 100}), tmp_path / "log.parquet")
    (tmp_path / "map.toml").write_text(MAPPING.format(log="log.parquet", more=""))
    with pytest.raises(DataError, match=r"log.parquet: column 'tags' holds list<.*; columns may hold"):
        world_of(tmp_path / "map.toml")


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "map.toml").write_text(MAPPING.format(log="log.parquet", more=""))
    (tmp_path / "log.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"needs pyarrow; pip install 'flicker-recsys\[parquet\]'"):
        world_of(tmp_path / "map.toml")


@pytest.mark.parametrize(
    ("column", "cell", "fault"),
    [
        (0, "yesterday", "at = 'yesterday' is not a unix time in seconds"),
        (0, "inf", "at = 'inf' is not a unix time in seconds"),
        (0, "1600000000000", "at = '1600000000000' is not a unix time in seconds (milliseconds? set time_unit"),
        (1, "", "visitor = '' is not a user"),
        (2, "", "sku = '' is not an item"),
        (5, "|".join(map(str, range(65))), "is not at most 64 values"),
        (7, "2", "clicked = '2' is not 0 or 1"),
        (7, "", "clicked = '' is not 0 or 1"),
        (None, "", "7 cells where the header has 8"),
    ],
)
def test_a_damaged_row_is_named_or_skipped_and_counted(
    tmp_path: Path, column: int | None, cell: str, fault: str
) -> None:
    rows = rows_of(9_000)
    good = rows[:8_500] + rows[8_501:]
    rows[8_500] = rows[8_500].copy()
    if column is None:
        rows[8_500].pop()
    else:
        rows[8_500][column] = cell
    rows[8_700] = rows[8_700][:3]  # a later one, which is not the first
    del good[8_699]
    path = written(tmp_path / "bad", rows, 'label = "clicked"')
    with pytest.raises(DataError) as caught:
        world_of(path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'bad' / 'log.csv'}:8502: ") and fault in message
    assert "--bad-rows skip" in message and "\n" not in message
    world = world_of(path, bad_rows="skip")
    assert world.skipped_rows == 2
    assert same(world, world_of(written(tmp_path / "good", good, 'label = "clicked"')))
    assert world_of(path, limit=8_500).events == 8_500  # damage beyond the limit is never met


def test_a_cell_with_a_line_break_keeps_line_numbers_right(tmp_path: Path) -> None:
    rows = rows_of(100)
    rows[10][4] = "two\nlines"
    rows[50][0] = "?"
    with pytest.raises(DataError, match=r"log.csv:53: at = '\?'"):
        world_of(written(tmp_path, rows))


def test_times_out_of_order_stop_even_where_damaged_rows_are_skipped(tmp_path: Path) -> None:
    rows = rows_of(9_000)
    rows[8_192][0] = "1599999999"  # first of the second block
    path = written(tmp_path, rows)
    with pytest.raises(DataError, match=r"log.csv:8194: at = 1599999999 s is earlier than 1600004095 s .*sort = true"):
        world_of(path, bad_rows="skip")


def test_an_empty_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="log.csv: no rows in it; give a log with at least one row"):
        world_of(written(tmp_path, []))
    with pytest.raises(DataError, match="log.csv: no rows in it .1 damaged ones left out.; give"):
        world_of(written(tmp_path, [["?"]]), bad_rows="skip")
    with pytest.raises(DataError, match="log.csv: no rows"):
        world_of(written(tmp_path, [], "sort = true"))
    (tmp_path / "log.csv").write_text("")
    with pytest.raises(DataError, match="log.csv: no header line"):
        world_of(tmp_path / "map.toml")


def test_a_log_that_changes_between_the_passes_is_noticed(tmp_path: Path) -> None:
    rows = rows_of(300)
    world = world_of(written(tmp_path, rows))
    rows[299][1] = "somebody else"
    written(tmp_path, rows)
    with pytest.raises(DataError, match="log.csv: changed while it was being read"):
        whole(world)
    (tmp_path / "log.csv").unlink()
    with pytest.raises(DataError, match="log.csv: changed while it was being read"):
        whole(world)


def peak(folder: Path, rows: int, more: str = "") -> int:
    """Bytes that Python allocates at most for opening a log, going through it, and asking near its end."""
    path = written(folder, rows_of(rows, users=100, items=100), more)
    tracemalloc.start()
    world = world_of(path, recent=500, horizon=10)
    for batch in world.batches(512):
        assert len(batch)
    world.queries(20, 50, world.events - 3_000, "test")
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return used


def test_memory_stays_bounded_while_the_log_grows_tenfold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.world.tabular.BLOCK", 512)  # so that short logs have many blocks
    peak(tmp_path / "first", 2_000)  # what is imported on first use is not counted
    small, large = peak(tmp_path / "small", 2_000), peak(tmp_path / "large", 20_000)
    assert large < 1.2 * small
    assert peak(tmp_path / "sorted", 20_000, "sort = true") > 3 * large  # a log that is held would be noticed
