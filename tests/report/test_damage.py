"""A missing, damaged or unknown result is one line that names the file, and nothing is half-written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import ResultError
from simulator.report import write_report
from tests.report.fake_results import Json, fake_result, write


def damaged(path: str, value: Any) -> Json:
    """The usual result with one value replaced, or removed where the value is None."""
    result = fake_result(generations=2)
    *parents, last = path.split("/")
    inner: Any = result
    for key in parents:
        inner = inner[int(key) if isinstance(inner, list) else key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return result


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("schema", 1, "schema = 1: this version of flicker reads schema 2"),
        ("schema", None, "schema = None"),
        ("arms", {}, "arms: empty"),
        ("arms", [], "arms: not a JSON object"),
        ("arms/relu", 7, "arms.relu: not a JSON object"),
        ("arms/relu/log_loss", None, "arms.relu.log_loss: missing"),
        ("arms/relu/pd/mean", "much", "arms.relu.pd.mean: not a number"),
        ("arms/relu/swaps/pair", True, "arms.relu.swaps.pair.mean: not a number"),
        ("arms/relu/activation/y", [1.0], "arms.relu.activation: x, y and gradient need one length"),
        ("arms/relu/ratio_to", [1.0], "arms.relu.ratio_to: not a JSON object"),
        ("arms/relu/ratio_to/smelu:beta=1", [1.0], "arms.relu.ratio_to.smelu:beta=1: not a JSON object"),
        ("arms/relu/ratio_to/smelu:beta=1/pd/mean", "1", "arms.relu.ratio_to.smelu:beta=1.pd.mean: not a number"),
        ("generations", 7, "generations: not a JSON array"),
        ("kind", "walk", "kind: 'walk': not one of run, live, compare"),
        ("world", None, "world: missing"),
        ("generations/1/generation", "two", "generations[1].generation: not a number"),
        ("generations/0/arms", 1, "generations[0].arms: not a JSON object"),
    ],
)
def test_damaged_result_is_one_line(tmp_path: Path, path: str, value: Any, says: str) -> None:
    with pytest.raises(ResultError) as caught:
        write_report(write(tmp_path, damaged(path, value)))
    message = str(caught.value)
    assert says in message and str(tmp_path / "result.json") in message and "\n" not in message
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("name", ["result.json", "config.json"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        (b"", "not JSON (line 1)"),
        (b'{"a": \n', "not JSON (line 2)"),
        (b"[1]", "not a JSON object"),
    ]
    + [(b"\xff\xfe", "not UTF-8"), (b"[" * 100_000, "not JSON"), (b"{}", "json: ")],
)
def test_damaged_file_is_one_line(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    path = write(tmp_path, fake_result(generations=1)) / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ResultError, match=re.escape(says)) as caught:
        write_report(tmp_path)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_failed_report_leaves_the_old_one(tmp_path: Path) -> None:
    write(tmp_path, fake_result(generations=1))
    (tmp_path / "report.html").write_text("the old one")
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(ResultError):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_text() == "the old one"


def test_a_sweep_is_no_result_and_its_runs_are_named(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ResultError, match=re.escape(f"{tmp_path}: a sweep of several runs: name one of them")):
        write_report(tmp_path)
