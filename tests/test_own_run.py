"""A whole run of modules of the user's: what it leaves behind, its page, and a run that is interrupted."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from simulator.experiment import folder as folder_module
from simulator.flags import parse_run
from simulator.models.factories import _content, load_factory
from tests.interrupted import cut_off, files
from tests.report.parsed import Page
from tests.result_schema import assert_schema
from tests.small_runs import timeless
from tests.terminal import SMALL_RUN, Terminal, assert_refused

ARMS = ("torch:examples.two_tower:make", "torch:examples.two_tower:make,relu=smelu:beta=1")
FLAGS = (
    *SMALL_RUN,
    "--events",
    "3000",
    "--queries",
    "10",
    "--duplicates",
    "2",
    "--learning-rate",
    "0.02",
    "--arms",
    *ARMS,
)


def test_its_result_its_page_and_the_same_when_it_was_interrupted(
    flicker: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = flicker("run", *FLAGS, "--out", tmp_path / "out")
    assert (said.code, said.err) == (0, "")
    assert re.search(rf"^{re.escape(ARMS[-1])}: ReLUs replaced: \d$", said.out, re.MULTILINE)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert_schema(result, list(ARMS), generations=len(result["generations"]))
    plain, smooth = (result["arms"][label] for label in ARMS)
    assert plain["design"] == smooth["design"]
    assert plain["design"] | {"source": ""} == {"engine": "torch", "learning_rate": 0.02, "source": ""}
    assert plain["activation"] is None and smooth["activation"]["name"] == "smelu:beta=1"
    assert plain["log_loss"] != smooth["log_loss"] and plain["pd"]["mean"] > 0
    designs = json.loads((tmp_path / "out" / "config.json").read_text())["arms"]
    assert designs == {label: arm["design"] for label, arm in result["arms"].items()}

    page = Page((tmp_path / "out" / "report.html").read_text())
    assert page.open == []
    labels = [row[0] for row in page.rows[1 : 1 + len(ARMS)]]
    assert labels == [f"two_tower {ARMS[0]}", f"two_tower, SmeLU (beta = 1) {ARMS[-1]}"]

    monkeypatch.setattr(folder_module, "CHECKPOINT_SHARE", float("inf"))
    monkeypatch.setattr("simulator.experiment.main.write_report", lambda folder: folder / "report.html")
    cut_off(parse_run([*FLAGS]).config(), tmp_path / "again", 2)
    before = files(tmp_path / "again")
    other = [flag if flag != ARMS[0] else f"{flag},dim=8" for flag in FLAGS]
    assert_refused(flicker("run", *other, "--out", tmp_path / "again", "--resume"), "cannot resume", "arms")
    assert files(tmp_path / "again") == before
    said = flicker("run", *FLAGS, "--out", tmp_path / "again", "--resume")
    assert said.code == 0 and "Going on after generation 2" in said.out, said
    assert timeless(json.loads((tmp_path / "again" / "result.json").read_text())) == timeless(result)


def test_a_run_whose_file_was_edited_is_not_resumed(
    flicker: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "CHECKPOINT_SHARE", float("inf"))
    monkeypatch.syspath_prepend(tmp_path)
    file, out = tmp_path / "own_edited.py", tmp_path / "out"
    file.write_text("from tests.models.own_modules import Plain\n\n\ndef make(schema):\n    return Plain(schema, 5)\n")
    flags = [*SMALL_RUN, "--events", "3000", "--duplicates", "2", "--arms", "torch:own_edited:make"]
    cut_off(parse_run(flags).config(), out, 1)
    before = files(out)
    file.write_text(file.read_text() + "# edited\n")
    sys.modules.pop("own_edited")  # as in another process
    for cached in (load_factory, _content):
        cached.cache_clear()
    said = flicker("run", *flags, "--out", out, "--resume")
    assert_refused(said, "torch:own_edited:make: saved with another source of own_edited:make", "start anew")
    assert files(out) == before
