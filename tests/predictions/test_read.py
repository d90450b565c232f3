"""Every format gives the same numbers, and what cannot be used is one line: file, row or column, way out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from simulator.compare import CompareFlags, run_compare
from simulator.errors import DataError, FlickerError
from simulator.predictions import parts
from simulator.predictions.compare import compare_frames
from simulator.predictions.read import codes
from tests.predictions.logs import Frame, frame, means, measured, write

ROOT = Path(__file__).parents[2]
FRAMES = [frame(seed) for seed in (1, 2)]
PLAIN = [{name: each[name] for name in ("q_id", "doc_id", "score")} for each in FRAMES]


def table(columns: Frame) -> pa.Table:
    return pa.table(dict(columns))


def as_csv(columns: Frame, path: Path) -> Path:
    pyarrow.csv.write_csv(table(columns), path)
    return path


def as_trec(columns: Frame, path: Path) -> Path:
    rows = zip(columns["q_id"], columns["doc_id"], columns["score"], strict=True)
    path.write_text("".join(f"{q} Q0  {d}\t0 {float(s)!r} tag\n" for q, d, s in rows))
    return path


def as_lenskit(columns: Frame, path: Path) -> Path:
    """Its native layout: a row per user with a list of items."""
    queries = np.unique(columns["q_id"])
    lists = [
        [{"item_id": int(d), "score": float(s)} for q, d, s in zip(*columns.values(), strict=True) if q == query]
        for query in queries
    ]
    pq.write_table(pa.table({"user_id": queries, "items": lists}), path)
    return path


def as_flat_lenskit(columns: Frame, path: Path) -> Path:
    """Its flat layout, with ranks in place of scores."""
    flat = {"user_id": columns["q_id"], "item_id": columns["doc_id"], "rank": np.zeros(len(columns["q_id"]), np.int32)}
    for query in np.unique(columns["q_id"]):
        mine = columns["q_id"] == query
        flat["rank"][mine] = (-columns["score"][mine]).argsort().argsort() + 1
    return write(path, flat)


def as_parquet(columns: Frame, path: Path) -> Path:
    return write(path, columns, row_group_size=10)


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [(as_parquet, "parquet"), (as_csv, "csv"), (as_trec, "run"), (as_lenskit, "parquet"), (as_flat_lenskit, "parquet")],
)
def test_every_format_gives_the_same(tmp_path: Path, kind: Any, suffix: str) -> None:
    written = [kind(each, tmp_path / f"{number}.{suffix}") for number, each in enumerate(PLAIN)]
    assert measured(*written) == pytest.approx(measured(*PLAIN))


@pytest.mark.parametrize("kind", ["int32", "uint16", "string", "large_string", "string_view", "dictionary"])
def test_ids_of_any_type_are_the_same_ids(kind: str) -> None:
    """7 is the query that "7" is, so a CSV file can be compared with a Parquet file."""
    numbers = pa.array([0, 7, 300, 7])
    column = (
        numbers.cast(pa.string()).dictionary_encode() if kind == "dictionary" else numbers.cast(getattr(pa, kind)())
    )
    assert codes(column).tolist() == [0, 7, 300, 7]


def test_text_ids_differ_where_the_text_does() -> None:
    words = ["", "a", "b", "ab", "ba", "07", "+7", "-0", "7 ", "12345678", "123456789", "1234567x", "12345678x"]
    words += ["a" * n for n in (7, 8, 9, 15, 16, 17)] + ["a\0", "a\0\0", "ü", "9" * 18, "9" * 19, "-5"]
    found = codes(pa.array(words)).tolist()
    assert len(set(found)) == len(set(words))
    assert found[words.index("12345678")] == 12345678 and found[words.index("-5")] == -5
    sliced = pa.array(["x", *words, "y"]).slice(1, len(words))
    assert codes(sliced).tolist() == found


def test_text_ids_of_queries_that_are_numbers_match_numbers() -> None:
    texts = PLAIN[1] | {name: [str(v) for v in PLAIN[1][name]] for name in ("q_id", "doc_id")}
    assert measured(PLAIN[0], texts) == measured(*PLAIN)


def test_names_of_columns() -> None:
    renamed = [{"q": each["q_id"], "sku": each["doc_id"], "logit": each["score"]} for each in PLAIN]
    assert measured(*renamed, query="q", item="sku", score="logit") == measured(*PLAIN)


def row(number: int, **values: Any) -> Frame:
    """A log in which a row holds something else."""
    columns = {name: list(column) for name, column in FRAMES[0].items()}
    for name, value in values.items():
        columns[name][number] = value
    return columns


BAD: dict[str, tuple[Any, str]] = {
    "score": (row(4, score=float("nan")), "row 5: score = nan is no number: leave the row out"),
    "missing score": (row(4, score=None), "row 5: score = None is no number"),
    "item": (row(3, doc_id=None), "row 4: doc_id = None is empty"),
    "label": (row(9, label=-1.0), "row 10: label = -1.0 is below 0"),
    "role": (FRAMES[0] | {"role": ["query"] * 80 + ["click"] * 4}, "row 81: role = click is no role: `query` or"),
    "probability": (
        FRAMES[0] | {"probability": [0.5] * 83 + [1.5]}, "row 84: probability = 1.5 is no probability",
    ),
    "twice": (row(1, doc_id=FRAMES[0]["doc_id"][0]), "row 1 and .*: row 2: q_id = 0, doc_id = .* twice"),
    "type": (FRAMES[0] | {"score": ["high"] * 84}, "column 'score' holds string: it takes numbers"),
    "id type": (FRAMES[0] | {"q_id": np.linspace(0, 1, 84)}, "column 'q_id' holds double: ids are whole"),
    "column": ({"query": [1], "doc_id": [1], "score": [1.0]}, r"no column 'q_id' \(it has query, doc_id, score\)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_line(tmp_path: Path, kind: str) -> None:
    columns, words = BAD[kind]
    good, bad = (
        write(tmp_path / name, each | {"probability": [0.5] * 84} if "probability" in columns else each)
        for name, each in (("good.parquet", FRAMES[1]), ("bad.parquet", FRAMES[0]))
    )
    bad = write(tmp_path / "bad.parquet", columns)
    with pytest.raises(DataError, match=f"bad.parquet: {words}") as caught:
        compare_frames([good, bad])
    assert "\n" not in str(caught.value)


def test_models_are_named_in_every_row_and_flags_name_columns_that_are_there() -> None:
    with pytest.raises(DataError, match="frame 2: column 'arm' is empty in some rows"):
        compare_frames([FRAMES[0], FRAMES[1] | {"arm": [None, *["relu"] * 83]}])
    with pytest.raises(DataError, match="frame 1: column 'generation' holds string: it takes whole numbers"):
        compare_frames([FRAMES[0] | {"generation": ["May"] * 84}, FRAMES[1]])
    with pytest.raises(DataError, match="frame 1: no column 'customer'"):
        compare_frames(FRAMES, user="customer")


def test_bad_rows_are_found_behind_the_first_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 10)
    bad = write(tmp_path / "bad.parquet", row(70, score=float("nan")), row_group_size=9)
    with pytest.raises(DataError, match="row 71: score"):
        compare_frames([FRAMES[1], bad])


def test_files_that_have_nothing_in_common(tmp_path: Path) -> None:
    a = write(tmp_path / "a.parquet", PLAIN[0])
    b = write(tmp_path / "b.parquet", PLAIN[1] | {"q_id": PLAIN[1]["q_id"] + 100})
    c = write(tmp_path / "c.parquet", PLAIN[1] | {"doc_id": PLAIN[1]["doc_id"] + 100})
    with pytest.raises(DataError, match=r"a.parquet, .*b.parquet: no query in common \(q_id\)"):
        compare_frames([a, b])
    with pytest.raises(DataError, match=r"a.parquet, .*c.parquet: no item in common \(doc_id\)"):
        compare_frames([a, c])
    empty = write(tmp_path / "empty.parquet", {name: column[:0] for name, column in PLAIN[0].items()})
    with pytest.raises(DataError, match="empty.parquet: no rows"):
        compare_frames([empty, empty])
    with pytest.raises(DataError, match="empty.parquet: no rows"):
        compare_frames([a, empty])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.parquet", b"not Parquet at all", "cannot be read"),
        ("a.csv", b"q_id,doc_id,score\n1,2,0.5\n1,3,high\n", "cannot be read .*invalid value 'high'"),
        ("a.csv", b"q_id,doc_id,score\n1,2,0.5\n1,3\n", "cannot be read .*Expected 3 columns"),
        ("a.csv", b"", "empty: give a file with a header line"),
        ("a.run", b"1 Q0 a 1 0.5 tag\n1 Q0 b\n", "cannot be read .*Expected 6 words: 1 Q0 b"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: {words}"):
        compare_frames([PLAIN[0], tmp_path / name])


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none.parquet: no such file or folder"):
        compare_frames([PLAIN[0], tmp_path / "none.parquet"])
    with pytest.raises(DataError, match="no file of predictions in it"):
        compare_frames([PLAIN[0], tmp_path])


def test_duplicates_that_are_missing() -> None:
    rows = [each | {"fleet": [f] * 84, "duplicate": [d] * 84} for f, d, each in ((0, 0, FRAMES[0]), (0, 1, FRAMES[1]))]
    third = frame(3) | {"fleet": [1] * 84, "duplicate": [0] * 84}
    with pytest.raises(DataError, match="arm model: its fleets have 1 to 2 duplicates"):
        compare_frames([*rows, third])


def test_temporary_files_are_gone_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 20)
    draws = np.random.default_rng(0)
    shuffled = [write(tmp_path / f"{n}.parquet", {c: v[draws.permutation(84)] for c, v in each.items()})
                for n, each in enumerate(PLAIN)]  # fmt: skip
    temp = tmp_path / "temp"
    temp.mkdir()
    seen: list[str] = []
    monkeypatch.setattr(parts, "_back", lambda files, layout: seen.extend(os.listdir(temp)) or iter(()))
    with pytest.raises(FlickerError):  # nothing comes back
        run_compare(CompareFlags(predictions=tuple(shuffled), temp=temp), "")
    assert seen == [] and list(temp.iterdir()) == []  # they never had a name
    with pytest.raises(DataError, match="temp = .*none: .*name a folder that exists"):
        run_compare(CompareFlags(predictions=tuple(shuffled), temp=temp / "none"), "")


def flicker(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "simulator", "compare", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True)


def test_the_command(tmp_path: Path) -> None:
    a, b = (write(tmp_path / f"{n}.parquet", each) for n, each in enumerate(FRAMES))
    ran = flicker(a, b, "--log-odds", "--by", "country", "--out", tmp_path / "out", "--k", 4)
    assert ran.returncode == 0, ran.stderr
    assert all(words in ran.stdout for words in ("pair swaps", "PD", "AUC", "country", "NL", "12 queries in common"))
    assert (tmp_path / "out" / "report.html").exists()
    from simulator.result import read_result

    result = read_result(tmp_path / "out")
    assert result.kind == "compare" and means(result.arms[0]) == pytest.approx(measured(a, b, k=4, log_odds=True))
    again = flicker(a, b, "--out", tmp_path / "out")
    assert again.returncode == 2 and again.stderr.startswith("flicker: out = ") and again.stderr.count("\n") == 1


def test_help_teaches_and_mistakes_are_one_line(tmp_path: Path) -> None:
    told = flicker("--help")
    assert told.returncode == 0
    assert all(words in told.stdout for words in ("flicker compare monday.parquet", "--probability", "--by", "TREC"))
    for words in ((), ("--k", 0), (tmp_path / "none.csv", tmp_path / "none.csv")):
        ran = flicker(*words)
        assert ran.returncode == 2 and ran.stdout == "" and ran.stderr.count("\n") == 1
