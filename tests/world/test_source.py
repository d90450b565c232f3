"""Raw rows out of files of every form, and where each stands."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
from datetime import time, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.config import ReplayConfig
from simulator.errors import DataError
from simulator.world import source as module
from simulator.world.mapping import Table
from simulator.world.open import open_log
from simulator.world.source import DamagedRows, Part, Source

Rows = list[tuple[str, dict[str, Any]]]
"""Places and cells."""


def read(table: Table | Path | str, wanted: list[str], damage: DamagedRows | None = None) -> Rows:
    """Every row with its place; damage stops unless told otherwise."""
    table = table if isinstance(table, Table) else Table(str(table))
    batches = Source(table, damage or DamagedRows("stop")).batches(wanted)
    return [(place.of(number), row) for place, batch in batches for number, row in enumerate(batch.to_pylist())]


def cells(rows: Rows, column: str) -> list[Any]:
    return [row[column] for _, row in rows]


def lines(rows: Rows) -> list[int]:
    return [int(place.rpartition(":")[2]) for place, _ in rows]


CELL = st.text(st.sampled_from('ab1 ,"\n;üñ'), max_size=6)


@given(st.lists(st.tuples(CELL, CELL, CELL), max_size=30), st.integers(40, 90), st.sampled_from(["\n", "\r\n"]))
def test_any_csv_is_read_as_the_standard_library_reads_it(rows: list[tuple[str, ...]], block: int, end: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end).writerows([("x", "y", "z"), *rows])
    written, expected, line = csv.reader(io.StringIO(text.getvalue(), newline="")), [], 1
    for row in written:
        expected.append((line, [cell or None for cell in row]))
        line = written.line_num + 1
    fsspec.filesystem("memory").pipe("/any.csv", text.getvalue().encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        found = read("memory://any.csv", ["z", "x", "y"])
    assert lines(found) == [line for line, _ in expected[1:]]
    assert [[row["x"], row["y"], row["z"]] for _, row in found] == [row for _, row in expected[1:]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.csv", b"u,i\n1,caf\xc3\xa9\n2,\n"),
        ("mark.csv", b"\xef\xbb\xbfu,i\r\n1,caf\xc3\xa9\r\n\r\n2,\r\n"),
        ("latin.csv", b"u,i\n1,caf\xe9\n2,"),
        ("packed.csv.gz", gzip.compress(b"u,i\n1,caf\xe9\n2,\n", mtime=0)),
        ("packed.csv.bz2", bz2.compress(b'"u","i"\n"1","caf\xc3\xa9"\n2,""\n')),
    ],
)
def test_encodings_line_ends_and_packed_files_are_understood(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    found = read(tmp_path / name, ["i", "u"])
    assert [row for _, row in found] == [{"i": "café", "u": "1"}, {"i": None, "u": "2"}]
    assert lines(found) == [2, 4 if name == "mark.csv" else 3]


def test_text_without_header_and_other_delimiters_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1|2\n3|4\n")
    found = read(Table(str(tmp_path / "a.txt"), "|", ("x", "y")), ["y"])
    assert cells(found, "y") == ["2", "4"] and lines(found) == [1, 2]


@pytest.mark.parametrize(
    ("bad", "line", "fault"),
    [
        ("4", 6, "1 cells where there are 2 columns: '4'"),
        ("4,5,6", 6, "3 cells where there are 2 columns: '4,5,6'"),
        ('"4,5', 6, "1 cells where there are 2 columns: '\"4,5\\n6,7"),
    ],
)
def test_a_row_that_cannot_be_taken_apart_is_named_or_counted(tmp_path: Path, bad: str, line: int, fault: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'u,i\n1,2\n\n"2\n",3\n{bad}\n6,7\n8\n9,10\n')
    with pytest.raises(DataError) as caught:
        read(path, ["u"])
    assert str(caught.value).startswith(f"{path}:{line}: {fault}") and "--bad-rows skip" in str(caught.value)
    damage = DamagedRows("skip")
    assert sorted(cells(read(path, ["u"], damage), "u")) == ["1", "2\n", "6", "9"]
    assert damage.skipped == 2


def test_damage_stops_behind_the_sound_rows_before_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("u,i\n1,2\n\n3,4\n5\n6,7\n")
    batches = Source(Table(str(tmp_path / "a.csv")), DamagedRows("stop")).batches(["u"])
    assert next(batches)[1].to_pylist() == [{"u": "1"}, {"u": "3"}]
    with pytest.raises(DataError, match=r"a.csv:5: 1 cells"):
        next(batches)


def test_parts_are_unified_by_name_and_folders_are_columns(tmp_path: Path) -> None:
    for name, text in {
        "day=1/a.csv": "u,i\n1,2\n",
        "day=2/b.csv": "i,u,k\n3,4,5\n",
        "day=a%3Ab/c.csv": "u\n6\n",
        "day=__HIVE_DEFAULT_PARTITION__/d.csv": "u\n7\n",
        "_SUCCESS": "",
        ".x.csv": "?",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    expected = [{"k": None, "u": "1", "day": "1"}, {"k": "5", "u": "4", "day": "2"}]
    expected += [{"k": None, "u": "7", "day": None}, {"k": None, "u": "6", "day": "a:b"}]
    for path in (tmp_path, tmp_path / "*/*.csv"):
        assert [row for _, row in read(path, ["k", "u", "day"])] == expected
    assert Source(Table(str(tmp_path)), DamagedRows("stop")).columns == ("u", "i", "day", "k")
    part = Source(Table(str(tmp_path / "day=1/a.csv")), DamagedRows("stop")).parts[0]
    stat = (tmp_path / "day=1/a.csv").stat()
    assert part == Part(str(tmp_path / "day=1/a.csv"), 8, str(stat.st_mtime_ns))


def test_parquet_keeps_its_types_and_names_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 2)
    pq.write_table(pa.table({"u": [1, 2, 3], "tags": [["a"], None, []], "x": [1.5, None, 2]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"x": pa.nulls(1), "u": pa.array([4], pa.int16())}), tmp_path / "1.parquet")
    found = read(tmp_path, ["tags", "u", "x"])
    assert [row for _, row in found] == [
        {"tags": ["a"], "u": 1, "x": 1.5},
        {"tags": None, "u": 2, "x": None},
        {"tags": [], "u": 3, "x": 2.0},
        {"tags": None, "u": 4, "x": None},
    ]
    first, second = tmp_path / "0.parquet", tmp_path / "1.parquet"
    assert [place for place, _ in found] == [f"{first}: row {n}" for n in (1, 2, 3)] + [f"{second}: row 1"]


def test_texts_of_parquet_that_are_no_utf8_are_latin_1(tmp_path: Path) -> None:
    bytes_ = pa.array([b"caf\xe9", "ü".encode(), None])
    text = pa.StringArray.from_buffers(3, bytes_.buffers()[1], bytes_.buffers()[2], bytes_.buffers()[0])
    parquet(tmp_path / "log.parquet", u=text, n=[1, 2, 3])
    found = read(tmp_path / "log.parquet", ["u", "n"])
    assert cells(found, "u") == ["café", "ü", None] and cells(found, "n") == [1, 2, 3]


def test_urls_are_read_as_files_are(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    with memory.open("/log/0.parquet", "wb") as file:
        pq.write_table(pa.table({"u": ["a", "b"]}), file)
    memory.pipe("/csv/0.csv", b"u\n7\n")
    assert cells(read("memory://log/*.parquet", ["u"]), "u") == ["a", "b"]
    assert cells(read("memory://csv", ["u"]), "u") == ["7"]
    before = Source(Table("memory://csv/0.csv"), DamagedRows("stop")).parts
    memory.pipe("/csv/0.csv", b"u\n8\n")
    assert Source(Table("memory://csv/0.csv"), DamagedRows("stop")).parts != before  # of the same size


def parquet(path: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), path)


def test_what_cannot_be_read_is_one_line_with_the_file(tmp_path: Path) -> None:
    parquet(tmp_path / "0.parquet", u=[1], s=[{"a": 1}], m=[[{"a": 1}]], d=[time(9)], e=[timedelta(9)], n=[[[1]]])
    parquet(tmp_path / "1.parquet", u=["1"])
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 but nothing else")
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "wide.csv").write_bytes("u,i\n1,2\n".encode("utf-16"))
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"u,i\n" + bytes(range(48, 58)) * 1_000)[:-20])
    (tmp_path / "old.csv").write_bytes(b"u,i\r1,2\r")
    (tmp_path / "nothing").mkdir()
    for path, wanted, message in [
        (
            tmp_path / "[01].parquet",
            "u",
            f"{tmp_path}/1.parquet: column 'u' is string here and int64 in {tmp_path}/0.par",
        ),
        (tmp_path / "0.parquet", "s", "0.parquet: column 's' holds struct<a: int64>; columns may hold"),
        (tmp_path / "0.parquet", "m", "0.parquet: column 'm' holds list<element: struct<a: int64>>; columns may hold"),
        (tmp_path / "0.parquet", "d", "0.parquet: column 'd' holds time64[us]; columns may hold"),
        (tmp_path / "0.parquet", "e", "0.parquet: column 'e' holds duration[us]; columns may hold"),
        (tmp_path / "0.parquet", "n", "0.parquet: column 'n' holds list<element: list<element: int64>>; columns may"),
        (tmp_path / "damaged.parquet", "u", "damaged.parquet: damaged or not Parquet ("),
        (tmp_path / "empty.csv", "u", "empty.csv: no header line; the first line must name the columns"),
        (tmp_path / "wide.csv", "u", "wide.csv: no text in UTF-8"),
        (tmp_path / "cut.csv.gz", "u", "cut.csv.gz: damaged or not text ("),
        (tmp_path / "old.csv", "u", "old.csv: damaged or not text (new-line character seen"),
        (tmp_path / "none.csv", "u", "none.csv: no such file"),
        (tmp_path / "nothing", "u", "nothing: no such file, or none of CSV or Parquet in the folder"),
        (tmp_path, "u", "both Parquet and text in it"),
        ("gs://bucket/log.parquet", "u", "gs://bucket/log.parquet: Please install gcsfs to access Google Storage"),
        ("nothing://log", "u", "nothing://log: cannot be reached (Protocol not known: nothing)"),
    ]:
        with pytest.raises(DataError) as caught:
            read(str(path), [wanted])
        assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["user", "time", "label", "weight", "slate", "position", "price", "label >"])
def test_lists_where_one_value_is_wanted_are_one_line(tmp_path: Path, key: str) -> None:
    sound = [1, 1, 0, 1]
    columns = {name: sound for name in ("user", "item", "time", "label", "weight", "slate", "position", "price")}
    parquet(tmp_path / "log.parquet", **columns | {key.split()[0]: [[1, 2]] * 4})
    (tmp_path / "log.toml").write_text(
        'log = "log.parquet"\n'
        + "".join(f'{name} = "{name}"\n' for name in columns if name != "price" and name != key.split()[0])
        + (f'{key.split()[0]} = "{key}{" 1" * (">" in key)}"\n' if key != "price" else "")
        + '[features]\ncontext = [{ column = "price", kind = "number" }]\n'
    )
    with pytest.raises(DataError, match=f"column '{key.split()[0]}' holds list<.*only a feature of kind category may"):
        open_log(ReplayConfig(tmp_path / "log.toml"))


def test_a_damaged_page_of_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"u": [str(n * 7_919 % 5_000) for n in range(5_000)]}), path, use_dictionary=False)
    damaged = bytearray(path.read_bytes())
    damaged[4:400] = b"\xff" * 396
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"a.parquet: damaged or not Parquet \("):
        read(path, ["u"])


def test_a_long_line_and_a_huge_cell_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 1 << 16)
    (tmp_path / "a.csv").write_text(f"u,i\n1,{'x' * 3_000_000}\n2,3\n")
    assert [len(cell) for cell in cells(read(tmp_path / "a.csv", ["i"]), "i")] == [3_000_000, 1]
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 1 << 20)
    with pytest.raises(DataError, match=r"a.csv: a line of more than 1 MB; is it CSV\?"):
        read(tmp_path / "a.csv", ["i"])


def test_parts_whose_lists_are_all_empty_fit_those_that_hold_something(tmp_path: Path) -> None:
    parquet(tmp_path / "0.parquet", tags=[["a"]])
    parquet(tmp_path / "1.parquet", tags=[[], None])
    assert [row for _, row in read(tmp_path, ["tags"])] == [{"tags": ["a"]}, {"tags": []}, {"tags": None}]
