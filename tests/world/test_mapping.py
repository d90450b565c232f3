"""The mapping file: what it may say, and that each mistake is named with its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simulator.errors import DataError
from simulator.world.families import read_mapping
from simulator.world.label import Label
from simulator.world.mapping import FEATURE_KEYS, KEYS, TABLE_KEYS, EntityTable, FeatureColumn, Mapping, Table

GOOD = 'log = "clicks.csv"\nuser = "visitor"\nitem = "sku"\ntime = "at"\n'
ITEMS = GOOD + '[items]\nfile = "items.csv"\nid = "id"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "clicks.toml"
    path.write_text(text)
    return path


def test_the_page_about_data_names_every_key_and_its_example_reads_as_it_says(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    told = set(re.findall(r"`\[?(\w+)\]?`", "".join(line for line in page.splitlines() if line.startswith("| `"))))
    assert {*KEYS, *TABLE_KEYS, *FEATURE_KEYS} - told == {"sort"}
    path = written(tmp_path, page.split("```toml\n")[1].split("```")[0])
    price, tags = FeatureColumn("price", "item", kind="number"), FeatureColumn("tags", "item", "|")
    assert read_mapping(path) == Mapping(
        path=path,
        log=Table(f"{tmp_path}/impressions/*.parquet"),
        user="visitor",
        item="sku",
        time="at",
        label=Label("event == 'buy' or event == 'view' and seconds > 30"),
        weight="w",
        slate="page_id",
        position="rank",
        history=20,
        features=(
            FeatureColumn("country", "user"),
            FeatureColumn("device", "context"),
            FeatureColumn("hour", "context", kind="number", buckets=24),
        ),
        items=EntityTable(Table(f"{tmp_path}/items.csv"), "sku", "name", (FeatureColumn("brand", "item"), tags, price)),
    )
    assert read_mapping(path).columns == (
        *("visitor", "sku", "at", "w", "page_id", "rank"),
        *("event", "seconds", "country", "device", "hour"),
    )


def test_a_file_of_the_first_version_still_reads(tmp_path: Path) -> None:
    more = 'columns = ["at"]\ntime_unit = "iso8601"\nlabel = "clicked"\nsort = true\ndelimiter = ";"\n'
    more += '[features]\nitem = ["brand"]\n'
    mapping = read_mapping(written(tmp_path, GOOD + more))
    assert mapping.log == Table(f"{tmp_path}/clicks.csv", ";", ("at",)) and mapping.label == Label("clicked")
    assert mapping.time_unit == "iso8601" and mapping.features == (FeatureColumn("brand", "item"),)
    assert mapping.columns == ("visitor", "sku", "at", "clicked", "brand")


@pytest.mark.parametrize(
    ("log", "path", "delimiter"),
    [
        ("s3://bucket/log", "s3://bucket/log", ","),
        ("a/b.tsv", "{}/a/b.tsv", "\t"),
        ("/a/b.tsv.gz", "/a/b.tsv.gz", "\t"),
    ],
)
def test_a_log_is_beside_the_file_or_anywhere_by_url(tmp_path: Path, log: str, path: str, delimiter: str) -> None:
    mapping = read_mapping(written(tmp_path, GOOD.replace("clicks.csv", log)))
    assert mapping.log == Table(path.format(tmp_path), delimiter)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (GOOD + 'itme = "sku"\n', 5, "itme: unknown key; the keys are log, user, item, time, time_unit, label, weight"),
        (GOOD + '[features]\nitems = ["x"]\n', 6, "features.items: unknown key; the keys are user, item, context"),
        (GOOD + '[features]\nitem = [{column = "x", by = "|"}]\n', 6, "by: unknown key; the keys are column, kind"),
        (GOOD + 'features = ["x"]\n', 5, "features = ['x']: expected a section [features]"),
        (GOOD + '[features]\nitem = "x"\n', 6, 'features.item = \'x\': expected a list such as ["a", "b"]'),
        (GOOD + "[features]\nitem = [3]\n", 6, "features of the item: 3: expected"),
        (GOOD + '[features]\nitem = [{column = "x", separator = ""}]\n', 6, "separator = '': expected a text"),
        (GOOD + '[features]\nitem = [{column = "x", kind = "text"}]\n', 6, "kind = 'text': one of category, number"),
        (GOOD + '[features]\nitem = [{column = "x", buckets = 3}]\n', 6, 'buckets = 3: only with kind = "number"'),
        (
            GOOD + '[features]\nitem = [{column = "x", kind = "number", separator = "|"}]\n',
            6,
            "separator = '|': only with",
        ),
        (GOOD + '[features]\nitem = [{column = "x", vocabulary = 0}]\n', 6, "a whole number, 1 to 10000000"),
        (
            GOOD + 'time_unit = "minutes"\n',
            5,
            "time_unit = 'minutes': one of seconds, milliseconds, microseconds, nano",
        ),
        (GOOD + 'sort = "yes"\n', 5, "sort = 'yes': expected true or false"),
        (GOOD + "history = 65\n", 5, "history = 65: expected a whole number, 0 to 64"),
        (GOOD + "history = true\n", 5, "history = True: expected a whole number"),
        (GOOD + 'delimiter = "::"\n', 5, "delimiter = '::': a single character"),
        (GOOD + 'columns = ["a", "a"]\n', 5, "columns = ['a', 'a']: a list of distinct texts"),
        (GOOD + "label = 3\n", 5, "label = 3: expected a text in quotes"),
        (GOOD + 'label = "a == "\n', 5, "label = 'a == ': no expression (invalid syntax)"),
        (GOOD + 'label = "sku"\n', 5, "column 'sku' is named twice"),
        (GOOD + 'weight = "w"\nslate = "w"\n', 6, "column 'w' is named twice"),
        (
            GOOD + 'label = "a > 3"\n[features]\nuser = ["a"]\n',
            7,
            "column 'a' decides the label, and would give it away",
        ),
        (GOOD + '[features]\nuser = ["item"]\n', 6, "feature 'item' has the name of the item itself"),
        (GOOD + '[items]\nfile = "x"\n', 5, "[items]: id is missing"),
        (ITEMS + 'sort = "x"\n', 8, "items.sort: unknown key; the keys are file, id, title, features"),
        (ITEMS + 'title = "id"\n', 8, "column 'id' is named twice"),
        (ITEMS + 'features = ["a"]\n[features]\nuser = ["a"]\n', 10, "feature 'a' has the name of another feature"),
        (ITEMS + "features = 3\n", 8, "items.features = 3: expected a list such as"),
    ],
)
def test_each_mistake_is_named_with_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read_mapping(path)
    assert str(caught.value).startswith(f"{path}:{line}: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_key_and_a_file_that_is_not_toml_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="clicks.toml: time is missing; a mapping needs log, user, item, time"):
        read_mapping(written(tmp_path, 'log = "a"\nuser = "b"\nitem = "c"\n'))
    with pytest.raises(DataError, match=r"clicks.toml: not a readable TOML file .*line 1"):
        read_mapping(written(tmp_path, "log = clicks.csv\n"))


def test_a_column_that_is_not_there_or_twice_is_named(tmp_path: Path) -> None:
    mapping = read_mapping(written(tmp_path, GOOD))
    with pytest.raises(DataError, match=r"clicks.toml:3: column 'sku': no such column .* it has visitor, article, at"):
        mapping.check_columns(mapping.log, mapping.columns, ("visitor", "article", "at"))
    with pytest.raises(DataError, match=r"clicks.toml:4: column 'at': more than one such column"):
        mapping.check_columns(mapping.log, mapping.columns, ("visitor", "sku", "at", "at"))


def test_a_path_that_is_no_log_says_what_would_be_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such file or folder; give a mapping file"):
        read_mapping(tmp_path / "nowhere")
    (tmp_path / "clicks.csv").write_text("visitor,sku,at\n1,2,3\n")
    with pytest.raises(DataError, match=r"neither a mapping file nor a family .*; flicker check .*clicks.csv --write"):
        read_mapping(tmp_path / "clicks.csv")
