"""The command line as people meet it: a whole run, its help, and a run that is killed."""

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

from simulator.cli import main
from simulator.config import as_json, smoke
from simulator.flags import parse_run
from simulator.models.snapshot import read_snapshot, write_snapshot
from tests.interrupted import cut_off
from tests.result_schema import assert_schema
from tests.small_runs import timeless
from tests.terminal import SMALL_RUN, Terminal, assert_refused


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


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process draw no report, which takes them most of their time: `smoke_run` has one."""

    def write_report(folder: Path) -> Path:
        (folder / "report.html").touch()
        return folder / "report.html"

    monkeypatch.setattr("simulator.experiment.main.write_report", write_report)


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


@pytest.mark.usefixtures("undrawn")
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


@pytest.mark.usefixtures("undrawn")
def test_without_a_folder_a_new_one_is_made_under_results(
    flicker: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = flicker("run", *SMALL_RUN, "--events", "3000")
    (folder,) = (tmp_path / "results").iterdir()
    assert said.code == 0 and folder.name.endswith("-smoke")
    assert (folder / "report.html").is_file()


@pytest.mark.usefixtures("undrawn")
def test_an_interrupted_run_says_how_to_go_on(
    flicker: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("simulator.experiment.folder.Folder.save", interrupt)
        said = flicker("run", *SMALL_RUN, "--events", "3000", "--out", tmp_path / "out")
    assert said.code == 130 and "--resume" in said.err
    assert flicker("run", *SMALL_RUN, "--events", "3000", "--out", tmp_path / "out", "--resume").code == 0


@pytest.mark.usefixtures("undrawn")
def test_what_cannot_go_on_says_that_it_stopped(flicker: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("simulator.compare.run_compare", stopped)
    said = flicker("compare", "a.csv", "b.csv")
    assert said.code == 130 and said.err == "\nflicker: stopped\n"


def test_report_has_no_flags(flicker: Terminal, tmp_path: Path) -> None:
    said = flicker("report", tmp_path, "--out", tmp_path)
    assert_refused(said, "--out: report has no flags: name folders alone")


def test_the_time_before_an_interruption_counts(flicker: Terminal, tmp_path: Path) -> None:
    arguments = [*SMALL_RUN, "--events", "3000"]
    cut_off(parse_run(arguments).config(), tmp_path / "out", 1)
    checkpoint = tmp_path / "out" / "checkpoint" / "1"
    tensors, about = read_snapshot(checkpoint)
    write_snapshot(checkpoint, tensors, about | {"seconds": 1_000.0})
    assert flicker("run", *arguments, "--out", tmp_path / "out", "--resume").code == 0
    assert json.loads((tmp_path / "out" / "result.json").read_text())["seconds"] > 1_000


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
