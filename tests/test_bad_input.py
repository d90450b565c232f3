"""Whatever is wrong with settings, logs or folders: one line that names it, exit code 2, and nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.small_runs import small_log
from tests.terminal import SMALL_RUN, Terminal, assert_refused

SETTINGS = {
    "unknown activation": ("--arms relu reluu", ("reluu", "one of", "smelu")),
    "negative beta": ("--arms relu smelu:beta=-1", ("beta = -1", "0 (ReLU) or more")),
    "k larger than the candidates": ("--k 31", ("k = 31", "number of candidates (30)")),
    "zero duplicates": ("--duplicates 0", ("duplicates = 0", "at least 2")),
    "an odd number of partners": ("--partners 3", ("partners = 3", "an even number")),
    "resume without a folder": ("--resume", ("resume", "--out")),
    "unknown flag": ("--duplicate-s 3", ("--duplicate-s", "--help")),
    "unknown preset": ("--preset huge", ("huge", "smoke")),
    "a log too short": ("--events 1000 --batch 512", ("events = 1000", "more than", "smaller batch (512)")),
    "too few items": ("--items 100 --candidates 95", ("candidates = 95", "at most", "items present")),
    "flags of a log without a log": ("--bad-rows skip", ("--bad-rows = skip", "--data")),
    "a learning rate that diverges": ("--events 5000 --learning-rate 1e20", ("learning_rate = 1e+20", "smaller")),
    "a missing log": ("--data nowhere", ("nowhere", "no such file or folder", "mapping file *.toml")),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_bad_setting_is_one_line_and_leaves_nothing(
    name: str, flicker: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, words = SETTINGS[name]
    out = [] if "--resume" in arguments else ["--out", "out"]
    said = flicker("run", *SMALL_RUN, *out, *arguments.split())
    assert_refused(said, *words)
    assert ("held out" in said.out) == ("diverges" in name), "all but one are found before learning begins"
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_not_there_cannot_be_resumed(flicker: Terminal, tmp_path: Path) -> None:
    said = flicker("run", *SMALL_RUN, "--out", tmp_path / "out", "--resume")
    assert_refused(said, f"out = {tmp_path / 'out'}", "no run to resume", "leave --resume away")
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_that_is_not_there_is_named(flicker: Terminal, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    said = flicker("run", *SMALL_RUN, "--device", "cuda", "--out", tmp_path / "out")
    assert_refused(said, "device = cuda", "--device cpu")
    assert list(tmp_path.iterdir()) == []


def csv_log(rows: int = 900, items: int = 40) -> str:
    """Row n, on line n + 2, is at second n."""
    return "who,what,when\n" + "".join(f"{n % 7},{n % items},{n}\n" for n in range(rows))


CSV = csv_log()
MAPPING = 'log = "log.csv"\nuser = "who"\nitem = "what"\ntime = "when"\n'
LOGS = {
    "an unknown column": ("log.toml", MAPPING.replace("what", "which"), CSV, ("log.toml:3", "'which'", "it has who")),
    "an unknown key": ("log.toml", MAPPING + "colour = 1\n", CSV, ("log.toml:5", "colour", "the keys are")),
    "a damaged mapping": ("log.toml", "log = = 3", CSV, ("log.toml", "TOML")),
    "a missing log file": ("log.toml", MAPPING.replace("log.csv", "gone.csv"), CSV, ("gone.csv", "no such file")),
    "a row that does not parse": ("log.toml", MAPPING, CSV.replace(",500\n", ",soon\n"), ("log.csv:502", "soon")),
    "a row too short": ("log.toml", MAPPING, CSV.replace(",500\n", "\n"), ("log.csv:502", "2 cells", "3 columns")),
    "no rows": ("log.toml", MAPPING, "who,what,when\n", ("log.csv", "no rows", "at least one row")),
    "a log too short": ("log.toml", MAPPING, csv_log(rows=50), ("events = ", "too few for two generations")),
    "too few items": ("log.toml", MAPPING, csv_log(items=25), ("candidates = 30", "at most")),
    "not a mapping file": ("log.csv", MAPPING, CSV, ("log.csv", "neither a mapping file", "flicker check")),
}


@pytest.mark.parametrize("name", LOGS)
def test_a_bad_log_is_one_line_with_its_place_and_leaves_nothing(name: str, flicker: Terminal, tmp_path: Path) -> None:
    data, mapping, log, words = LOGS[name]
    (tmp_path / "log.toml").write_text(mapping)
    (tmp_path / "log.csv").write_text(log)
    assert_refused(flicker("run", *SMALL_RUN, "--data", tmp_path / data, "--out", tmp_path / "out"), *words)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["log.csv", "log.toml"]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens but cannot be read")
@pytest.mark.parametrize(("name", "words"), [("log.csv", "damaged or not text"), ("log.toml", "Input/output error")])
def test_a_file_that_cannot_be_read_is_one_line(name: str, words: str, flicker: Terminal, tmp_path: Path) -> None:
    (tmp_path / "log.toml").write_text(MAPPING)
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).symlink_to("/proc/self/mem")
    said = flicker("run", *SMALL_RUN, "--data", tmp_path / "log.toml", "--out", tmp_path / "out")
    assert_refused(said, str(tmp_path / name), words)
    assert not (tmp_path / "out").exists()


def test_a_message_is_one_line_even_where_a_name_is_two(flicker: Terminal, tmp_path: Path) -> None:
    assert_refused(flicker("run", "--data", tmp_path / "two\nlines"), "two lines", "no such file or folder")


def damaged_log(folder: Path) -> Path:
    """A log with three damaged rows, the first in line 101."""
    ratings = small_log(folder) / "ratings.dat"
    rows = ratings.read_text().splitlines()
    rows[100], rows[200], rows[300] = "7::::3::100", "7::8::3", "7::8::3::soon"
    ratings.write_text("\n".join(rows) + "\n")
    return folder


def test_damaged_rows_stop_a_run_at_the_first(flicker: Terminal, tmp_path: Path) -> None:
    log = damaged_log(tmp_path / "log")
    said = flicker("run", *SMALL_RUN, "--data", log, "--out", tmp_path / "out")
    assert_refused(said, f"{log / 'ratings.dat'}:101", "item = None", "--bad-rows skip")
    assert not (tmp_path / "out").exists()


def test_damaged_rows_can_be_skipped_and_are_counted(flicker: Terminal, tmp_path: Path) -> None:
    log = damaged_log(tmp_path / "log")
    said = flicker("run", *SMALL_RUN, "--data", log, "--out", tmp_path / "out", "--bad-rows", "skip")
    assert said.code == 0 and said.err == "" and "3 damaged rows of the log were skipped." in said.out
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    rows = len((log / "ratings.dat").read_text().splitlines())
    assert result["world"]["skipped_rows"] == 3 and result["world"]["events"] == 5 * (rows - 3)
    assert "3 damaged rows of the log were skipped." in result["notes"]
    assert "3 damaged rows" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("walk", ("command = walk", "run, tune, check, sweep, article, compare, report")),
        ("--version-of-yours", ("command = --version-of-yours", "flicker --help")),
        ("report", ("report", "flicker report DIR")),
        ("report a b", ("a/result.json", "no such file")),
        ("report nowhere", ("nowhere", "result.json", "`flicker run`, `up` or `compare` wrote with --out")),
    ],
)
def test_a_command_that_cannot_be_is_one_line(arguments: str, words: tuple[str, ...], flicker: Terminal) -> None:
    assert_refused(flicker(*arguments.split()), *words)
