"""The command line as people meet it: a whole run, its help, its complaints, and a run that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from simulator.cli import main
from simulator.folder import as_json
from simulator.presets import smoke
from tests.result_schema import assert_schema
from tests.small_runs import small_log, timeless

SMALL = "--preset smoke --batch 32 --window 4 --hidden 16 8 --k 5 --candidates 30 --queries 40 --generations 3".split()


class Said(NamedTuple):
    """What a command left behind on the terminal."""

    code: int
    out: str
    err: str


class Terminal:
    """Runs the command line in this process, which has torch imported already."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._captured = monkeypatch, capfd

    def __call__(self, *arguments: str | Path) -> Said:
        self._monkeypatch.setattr(sys, "argv", ["flicker", *map(str, arguments)])
        code: Any = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        return Said(code, *self._captured.readouterr())


@pytest.fixture
def flicker(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(monkeypatch, capfd)


def process(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A process of its own."""
    command = [sys.executable, "-m", "simulator", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


class Smoke(NamedTuple):
    """A finished run of the preset `smoke`."""

    folder: Path
    out: str
    err: str
    result: dict[str, Any]


@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    folder = tmp_path_factory.mktemp("smoke") / "out"
    done = process("run", "--preset", "smoke", "--out", folder)
    assert done.returncode == 0, done.stderr
    return Smoke(folder, done.stdout, done.stderr, json.loads((folder / "result.json").read_text()))


def assert_refused(said: Said, *words: str) -> None:
    """One line on standard error that holds the words; exit code 2."""
    assert said.code == 2
    assert said.err.count("\n") == 1 and said.err.endswith("\n") and said.err.startswith("flicker: "), said.err
    assert [word for word in words if word not in said.err] == [], said.err


def test_a_run_leaves_three_files_and_no_complaint(smoke_run: Smoke) -> None:
    assert sorted(entry.name for entry in smoke_run.folder.iterdir()) == ["config.json", "report.html", "result.json"]
    assert smoke_run.err == ""


def test_the_result_is_of_the_documented_schema(smoke_run: Smoke) -> None:
    assert_schema(smoke_run.result, list(smoke().arms), generations=4)  # 5, rounded to whole shuffle windows


def test_the_config_beside_it_is_the_resolved_preset(smoke_run: Smoke) -> None:
    held = json.loads((smoke_run.folder / "config.json").read_text())
    assert held["config"] == as_json(smoke())
    assert held["command"] == f"flicker run --preset smoke --out {smoke_run.folder}"


def test_the_terminal_shows_progress_the_table_and_where_the_page_is(smoke_run: Smoke) -> None:
    for words in ("events/s", "PD", "pair swaps", "log loss", "AUC", "train time", "ReLU", "SmeLU", "×"):
        assert words in smoke_run.out
    mean = smoke_run.result["arms"]["relu"]["log_loss"]["mean"]
    assert f"{mean:.4f}" in smoke_run.out and str(smoke_run.folder / "report.html") in smoke_run.out
    assert "\x1b" not in smoke_run.out and max(map(len, smoke_run.out.splitlines()[:-1])) <= 120


def test_a_report_is_drawn_again_identically(smoke_run: Smoke, flicker: Terminal) -> None:
    page = smoke_run.folder / "report.html"
    before = page.read_bytes()
    page.unlink()
    said = flicker("report", smoke_run.folder)
    assert (said.code, said.out, said.err) == (0, f"{page}\n", "")
    assert page.read_bytes() == before and before.startswith(b"<!")


def test_a_killed_run_goes_on_with_identical_numbers(smoke_run: Smoke, flicker: Terminal, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "simulator", "run", "--preset", "smoke", "--out", str(out)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while running.poll() is None and not (out / "checkpoint").is_dir():
            time.sleep(0.002)
        while running.poll() is None and not any((out / "checkpoint").iterdir()):
            time.sleep(0.002)
    finally:
        os.kill(running.pid, signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert not (out / "result.json").exists()
    said = flicker("run", "--preset", "smoke", "--out", out, "--resume")
    assert said.code == 0 and "Going on after generation" in said.out, said
    assert timeless(json.loads((out / "result.json").read_text())) == timeless(smoke_run.result)
    assert sorted(entry.name for entry in out.iterdir()) == ["config.json", "report.html", "result.json"]


def test_a_finished_run_is_neither_overwritten_nor_resumed(smoke_run: Smoke, flicker: Terminal) -> None:
    before = {entry.name: entry.stat().st_mtime_ns for entry in smoke_run.folder.iterdir()}
    again = ("run", "--preset", "smoke", "--out", smoke_run.folder)
    assert_refused(flicker(*again), f"out = {smoke_run.folder}", "holds another run", "name another folder")
    assert_refused(flicker(*again, "--resume"), f"out = {smoke_run.folder}", "complete", "flicker report")
    other = flicker(*again, "--resume", "--seed", "4")
    assert_refused(other, f"out = {smoke_run.folder}", "seed: 0 there, 4 here", "use the same")
    assert {entry.name: entry.stat().st_mtime_ns for entry in smoke_run.folder.iterdir()} == before


SETTINGS = {
    "unknown activation": ("--arms relu reluu", ("reluu", "one of", "smelu")),
    "negative beta": ("--arms relu smelu:beta=-1", ("beta = -1", "0 (ReLU) or more")),
    "k larger than the candidates": ("--k 31", ("k = 31", "number of candidates (30)")),
    "zero duplicates": ("--duplicates 0", ("duplicates = 0", "at least 2")),
    "resume without a folder": ("--resume", ("resume", "--out")),
    "unknown flag": ("--duplicate-s 3", ("--duplicate-s", "--help")),
    "unknown preset": ("--preset huge", ("huge", "smoke")),
    "a log too short": ("--events 1000 --batch 512", ("events = 1000", "more than", "smaller batch (512)")),
    "too few items": ("--items 100 --candidates 95", ("candidates = 95", "at most", "items present")),
    "flags of a log without a log": ("--bad-rows skip", ("--bad-rows = skip", "--data")),
    "a learning rate that diverges": ("--events 5000 --learning-rate 1e20", ("learning_rate = 1e+20", "smaller")),
    "a missing log": ("--data nowhere", ("nowhere", "no such file or folder", "ratings.dat")),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_bad_setting_is_one_line_and_leaves_nothing(
    name: str, flicker: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, words = SETTINGS[name]
    out = [] if "--resume" in arguments else ["--out", "out"]
    assert_refused(flicker("run", *SMALL, *out, *arguments.split()), *words)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_not_there_cannot_be_resumed(flicker: Terminal, tmp_path: Path) -> None:
    said = flicker("run", *SMALL, "--out", tmp_path / "out", "--resume")
    assert_refused(said, f"out = {tmp_path / 'out'}", "no run to resume", "leave --resume away")
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_that_is_not_there_is_named(flicker: Terminal, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    said = flicker("run", *SMALL, "--device", "cuda", "--out", tmp_path / "out")
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
    "a row too short": ("log.toml", MAPPING, CSV.replace(",500\n", "\n"), ("log.csv:502", "2 cells", "header has 3")),
    "times out of order": ("log.toml", MAPPING, CSV.replace(",500\n", ",3\n"), ("log.csv:502", "sort = true")),
    "no rows": ("log.toml", MAPPING, "who,what,when\n", ("log.csv", "no rows", "at least one row")),
    "a log too short": ("log.toml", MAPPING, csv_log(rows=50), ("events = ", "too few for two generations")),
    "too few items": ("log.toml", MAPPING, csv_log(items=25), ("candidates = 30", "at most")),
    "not a mapping file": ("log.csv", MAPPING, CSV, ("log.csv", "not a mapping file", "*.toml")),
}


@pytest.mark.parametrize("name", LOGS)
def test_a_bad_log_is_one_line_with_its_place_and_leaves_nothing(name: str, flicker: Terminal, tmp_path: Path) -> None:
    data, mapping, log, words = LOGS[name]
    (tmp_path / "log.toml").write_text(mapping)
    (tmp_path / "log.csv").write_text(log)
    assert_refused(flicker("run", *SMALL, "--data", tmp_path / data, "--out", tmp_path / "out"), *words)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["log.csv", "log.toml"]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens but cannot be read")
@pytest.mark.parametrize("name", ["log.csv", "log.toml"])
def test_a_file_that_cannot_be_read_is_one_line(name: str, flicker: Terminal, tmp_path: Path) -> None:
    (tmp_path / "log.toml").write_text(MAPPING)
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).symlink_to("/proc/self/mem")
    said = flicker("run", *SMALL, "--data", tmp_path / "log.toml", "--out", tmp_path / "out")
    assert_refused(said, str(tmp_path / "log.toml"), "Input/output error")
    assert not (tmp_path / "out").exists()


def test_a_message_is_one_line_even_where_a_name_is_two(flicker: Terminal, tmp_path: Path) -> None:
    assert_refused(flicker("run", "--data", tmp_path / "two\nlines"), "two lines", "no such file or folder")


def damaged_log(folder: Path) -> Path:
    """A log with three damaged rows, the first in line 101."""
    ratings = small_log(folder) / "ratings.dat"
    rows = ratings.read_text().splitlines()
    rows[100], rows[200], rows[300] = "7::x::3::100", "7::8::3", "seven::8::3::200"
    ratings.write_text("\n".join(rows) + "\n")
    return folder


def test_damaged_rows_stop_a_run_at_the_first(flicker: Terminal, tmp_path: Path) -> None:
    log = damaged_log(tmp_path / "log")
    said = flicker("run", *SMALL, "--data", log, "--out", tmp_path / "out")
    assert_refused(said, f"{log / 'ratings.dat'}:101", "7::x::3::100", "--bad-rows skip")
    assert not (tmp_path / "out").exists()


def test_damaged_rows_can_be_skipped_and_are_counted(flicker: Terminal, tmp_path: Path) -> None:
    log = damaged_log(tmp_path / "log")
    said = flicker("run", *SMALL, "--data", log, "--out", tmp_path / "out", "--bad-rows", "skip")
    assert said.code == 0 and said.err == "" and "3 damaged rows of the log were skipped." in said.out
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    rows = len((log / "ratings.dat").read_text().splitlines())
    assert result["world"]["skipped_rows"] == 3 and result["world"]["events"] == 5 * (rows - 3)
    assert "3 damaged rows of the log were skipped." in result["notes"]
    assert "3 damaged rows" in (tmp_path / "out" / "report.html").read_text()


def test_without_a_folder_a_new_one_is_made_under_results(
    flicker: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = flicker("run", *SMALL, "--events", "3000")
    (folder,) = (tmp_path / "results").iterdir()
    assert said.code == 0 and folder.name.endswith("-smoke")
    assert (folder / "report.html").is_file()


def test_an_interrupted_run_says_how_to_go_on(
    flicker: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("simulator.folder.Folder.save", interrupt)
        said = flicker("run", *SMALL, "--events", "3000", "--out", tmp_path / "out")
    assert said.code == 130 and "--resume" in said.err
    assert flicker("run", *SMALL, "--events", "3000", "--out", tmp_path / "out", "--resume").code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("walk", ("command = walk", "run, report")),
        ("--version-of-yours", ("command = --version-of-yours", "flicker --help")),
        ("report", ("report", "flicker report DIR")),
        ("report a b", ("report = a b", "flicker report DIR")),
        ("report nowhere", ("nowhere", "result.json", "flicker run --out")),
    ],
)
def test_a_command_that_cannot_be_is_one_line(arguments: str, words: tuple[str, ...], flicker: Terminal) -> None:
    assert_refused(flicker(*arguments.split()), *words)


@pytest.mark.parametrize("arguments", ["", "-h", "--help"])
def test_help_names_both_commands(arguments: str, flicker: Terminal) -> None:
    said = flicker(*arguments.split())
    assert said.code == 0 and said.err == ""
    assert "flicker run" in said.out and "flicker report DIR" in said.out and "--help" in said.out


@pytest.mark.parametrize(("command", "word"), [("run", "--candidates"), ("report", "DIR/report.html")])
def test_each_command_has_help(command: str, word: str, flicker: Terminal) -> None:
    for flag in ("-h", "--help"):
        said = flicker(command, flag)
        assert said.code == 0 and said.err == "" and "usage: flicker" in said.out and word in said.out


@pytest.mark.parametrize("command", ["run", "report"])
def test_help_does_not_wait_for_torch(command: str) -> None:
    program = f"""
import sys
from simulator.cli import main
sys.argv = ["flicker", {command!r}, "--help"]
try:
    main()
except SystemExit as ended:
    assert not ended.code
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "usage: flicker" in done.stdout, done.stderr


def test_the_command_is_installed_as_flicker() -> None:
    (command,) = entry_points(group="console_scripts", name="flicker")
    assert command.load() is main
