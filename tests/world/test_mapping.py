"""The mapping file: what it may say, and that each mistake is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.config import ReplayConfig
from simulator.errors import DataError
from simulator.world.mapping import FeatureColumn, read_mapping
from simulator.world.replay import ReplayWorld

GOOD = 'log = "clicks.csv"\nuser = "visitor"\nitem = "sku"\ntime = "at"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "clicks.toml"
    path.write_text(text)
    return path


def test_the_example_of_the_documentation_reads_as_it_says(tmp_path: Path) -> None:
    import simulator.world.mapping as module

    assert module.__doc__ is not None
    example = "\n".join(line[4:] for line in module.__doc__.splitlines() if line.startswith("    "))
    mapping = read_mapping(written(tmp_path, example))
    assert mapping.log == tmp_path / "clicks.csv"
    assert (mapping.user, mapping.item, mapping.time, mapping.label) == ("visitor", "sku", "at", "clicked")
    assert (mapping.time_unit, mapping.sort, mapping.delimiter) == ("milliseconds", True, ";")
    assert mapping.features == (
        FeatureColumn("country", "user", None),
        FeatureColumn("brand", "item", None),
        FeatureColumn("tags", "item", "|"),
        FeatureColumn("device", "context", None),
    )


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (GOOD + 'itme = "sku"\n', 5, "itme: unknown key; the keys are log, user, item, time, time_unit, label, sort"),
        (GOOD + '[features]\nitems = ["x"]\n', 6, "features.items: unknown key; the keys are user, item, context"),
        (
            GOOD + '[features]\nitem = [{column = "x", by = "|"}]\n',
            6,
            "by: unknown key; the keys are column",
        ),
        (GOOD + 'features = ["x"]\n', 5, "features = ['x']: expected a section [features]"),
        (GOOD + '[features]\nitem = "x"\n', 6, "features.item = 'x': expected [\"column\""),
        (GOOD + "[features]\nitem = [3]\n", 6, "features.item = 3: expected"),
        (GOOD + '[features]\nitem = [{column = "x", separator = ""}]\n', 6, "separator = '': expected a text"),
        (GOOD + 'time_unit = "minutes"\n', 5, "time_unit = 'minutes': one of seconds, milliseconds, iso8601"),
        (GOOD + 'sort = "yes"\n', 5, "sort = 'yes': expected true or false"),
        (GOOD + 'delimiter = "::"\n', 5, "delimiter = '::': a single character"),
        (GOOD + "label = 3\n", 5, "label = 3: expected a text in quotes"),
        (GOOD + 'label = "sku"\n', 5, "column 'sku' is named twice"),
        (GOOD + '[features]\nuser = ["item"]\n', 6, "feature 'item' has the name of the item itself"),
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


def test_an_unknown_column_is_answered_with_the_columns_there_are(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text("visitor,article,at,at\n1,2,3,3\n")
    with pytest.raises(DataError, match=r"clicks.toml:3: column 'sku': no such column .* it has visitor, article, at"):
        ReplayWorld(ReplayConfig(written(tmp_path, GOOD)), seed=0)
    with pytest.raises(DataError, match=r"clicks.toml:4: column 'at': more than one such column"):
        ReplayWorld(ReplayConfig(written(tmp_path, GOOD.replace("sku", "article"))), seed=0)


def test_a_missing_log_and_a_missing_or_strange_path_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"clicks.csv: no such file; correct `log` in .*clicks.toml"):
        ReplayWorld(ReplayConfig(written(tmp_path, GOOD)), seed=0)
    with pytest.raises(DataError, match=r"nowhere: no such file or folder; give a folder"):
        ReplayWorld(ReplayConfig(tmp_path / "nowhere"), seed=0)
    (tmp_path / "clicks.csv").write_text("visitor,sku,at\n1,2,3\n")
    with pytest.raises(DataError, match=r"clicks.csv: not a mapping file; give a \*.toml"):
        ReplayWorld(ReplayConfig(tmp_path / "clicks.csv"), seed=0)
