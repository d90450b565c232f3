"""Sweeps with real runs: failures that stop nothing, interruptions that lose nothing, the same numbers on Ray."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import FlickerError, SettingError
from simulator.flags import Resources
from simulator.sweep.backend import Processes, run_cell
from simulator.sweep.grid import Grid
from simulator.sweep.main import parse
from simulator.sweep.record import Cell, claim
from tests.conftest import ROOT
from tests.nodes import ray_cluster
from tests.small_runs import timeless
from tests.sweep import quick
from tests.terminal import Terminal

TINY = ["--preset", "smoke", "--events", "6000", "--users", "80", "--items", "60", "--batch", "64", "--window", "4"]
TINY += ["--dim", "4", "--hidden", "8", "--duplicates", "2", "--k", "5", "--candidates", "30", "--queries", "20"]
AXES = {"arms": ["relu", "relu smelu:beta=1"], "seed": [0]}
BROKEN = ["--vary", "learning-rate", "0.01", "1e30"]
"""The second one diverges."""


def results(folder: Path) -> dict[str, Any]:
    """Cell -> all of its result that must be repeatable."""
    return {path.parent.name: timeless(json.loads(path.read_text())) for path in folder.glob("*/result.json")}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Cell], Path]:
    """A grid that ran on this machine, and where."""
    cells, folder = Grid(TINY, AXES).cells(), tmp_path_factory.mktemp("local")
    assert [one.failure for one in Processes(2).run(cells, folder)] == [None, None]
    return cells, folder


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells draw no report: those of `local` do."""
    monkeypatch.setattr("simulator.sweep.backend.command", quick.command)


def test_a_cell_is_what_flicker_run_gives(local: tuple[list[Cell], Path], flicker: Terminal, tmp_path: Path) -> None:
    cells, folder = local
    assert flicker("run", *cells[0].arguments, "--out", tmp_path / "run").code == 0
    alone = timeless(json.loads((tmp_path / "run" / "result.json").read_text()))
    assert results(folder)[cells[0].name] == alone
    assert (folder / cells[0].name / "report.html").exists() and not list(folder.glob("*.log"))


@pytest.mark.usefixtures("undrawn")
def test_a_failure_is_told_and_stops_nothing_and_resume_runs_only_what_is_missing(
    flicker: Terminal, tmp_path: Path
) -> None:
    out = tmp_path / "sweep"
    first = flicker("sweep", *TINY, *BROKEN, "--jobs", "2", "--out", out)
    assert first.code == 1 and "1 cell failed" in first.out
    assert "learning-rate=1e30: learning_rate = 1e+30: relu diverged" in first.out
    assert "diverged" in (out / "cells" / "learning-rate=1e30.log").read_text()
    rows = list(csv.DictReader((out / "sweep.csv").read_text().splitlines()))
    assert [(row["axis_learning-rate"], row["arm"]) for row in rows] == [("0.01", "relu"), ("0.01", "smelu:beta=0.1")]
    kept = out / "cells" / "learning-rate=0.01" / "result.json"
    held = json.loads(kept.read_text())["arms"]["relu"]["pd"]
    assert [float(rows[0][name]) for name in ("pd", "pd_low", "pd_high")] == list(held.values())

    refused = flicker("sweep", *TINY, *BROKEN, "--out", out)
    assert refused.code == 2 and refused.err.count("\n") == 1 and "--resume" in refused.err
    before = kept.stat().st_mtime_ns
    again = flicker("sweep", *TINY, "--vary", "learning-rate", "0.01", "0.02", "--resume", "--out", out)
    assert again.code == 0 and "2 cells, 1 done already" in again.out
    assert kept.stat().st_mtime_ns == before and (out / "cells" / "learning-rate=0.02" / "result.json").exists()
    other = flicker("sweep", *TINY, "--seed", "5", *BROKEN[:3], "--resume", "--out", out)
    assert other.code == 2 and "cell learning-rate=0.01 ran with" in other.err


@pytest.mark.usefixtures("undrawn")
def test_a_folder_s_table_holds_the_cells_of_all_commands_and_a_damaged_result_is_made_again(
    local: tuple[list[Cell], Path], flicker: Terminal, tmp_path: Path
) -> None:
    cells, folder = local
    out, resume = tmp_path / "sweep", ["--vary", "seed", "0", "--resume", "--jobs", "1", "--out"]
    claim(out, cells, "flicker sweep", resume=False)
    shutil.copytree(folder, out / "cells", dirs_exist_ok=True)
    relu, both = (out / "cells" / cell.name / "result.json" for cell in cells)
    kept = both.stat().st_mtime_ns
    relu.write_text("{")

    other = flicker("sweep", *TINY, "--vary", "window", "2", "--resume", "--out", out)
    assert other.code == 0 and f"Left out: {relu}: not JSON" in other.out
    held = list(csv.DictReader((out / "sweep.csv").read_text().splitlines()))
    expected = [("relu smelu:beta=1", "0", "", "relu"), ("relu smelu:beta=1", "0", "", "smelu:beta=1")]
    expected += [("", "", "2", "relu"), ("", "", "2", "smelu:beta=0.1")]
    columns = ("axis_arms", "axis_seed", "axis_window", "arm")
    assert [tuple(row[name] for name in columns) for row in held] == expected

    again = flicker("sweep", *TINY, "--vary", "arms", *AXES["arms"], *resume, out)
    aside = out / "damaged" / f"{cells[0].name}.1"
    assert again.code == 0 and "2 cells, 1 done already" in again.out and f"now in {aside}" in again.out
    assert (aside / "result.json").read_text() == "{" and both.stat().st_mtime_ns == kept
    assert {name: found for name, found in results(out / "cells").items() if "window" not in name} == results(folder)
    assert len((out / "sweep.csv").read_text().splitlines()) == 1 + 5


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"command": "c", "cells": []}', "cells = "),
        ('{"command": "c", "cells": {"seed=0": 3}}', "cells = "),
        ('{"command": 3, "cells": {}}', "command = 3"),
        ('{"command": "c", "cells": {}, "places": {"seed=0": {"seed": 0}}}', "places = "),
    ],
)
def test_a_record_that_is_damaged_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(FlickerError, match=rf"sweep\.json: {complaint}.*: mend it, or name another folder"):
        claim(tmp_path, Grid(TINY, {"seed": [0]}).cells(), "flicker sweep", resume=True)
    assert (tmp_path / "sweep.json").read_text() == text


def test_a_record_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    old, new = Cell({"arms": "smelu:beta=1", "seed": "0"}, ("--seed", "0")), Cell({"seed": "1"}, ("--seed", "1"))
    (tmp_path / "sweep.json").write_text(json.dumps({"command": "c", "cells": {old.name: list(old.arguments)}}))
    first, second = claim(tmp_path, [new], "flicker sweep", resume=True)
    assert first.name == old.name and first.place == {"arms": "smelu-beta=1", "seed": "0"} and second == new


@pytest.mark.usefixtures("undrawn")
def test_a_signal_ends_every_run_and_resume_gives_the_same_numbers(
    local: tuple[list[Cell], Path], flicker: Terminal, tmp_path: Path
) -> None:
    """Two of them: each in the middle of a cell, the second in a sweep that goes on."""
    cells, folder = local
    out, axes = tmp_path / "sweep", ["--vary", "arms", *AXES["arms"], "--vary", "seed", "0"]
    stop_within(cells[0], signal.SIGINT, out, *axes)
    first = json.loads((out / "sweep.json").read_text())["command"]
    stop_within(cells[1], signal.SIGTERM, out, *axes, "--resume")
    assert (out / "cells" / cells[0].name / "result.json").exists()
    assert flicker("sweep", *TINY, *axes, "--resume", "--out", out).code == 0
    assert json.loads((out / "sweep.json").read_text())["command"] == first and "--resume" not in first
    assert results(out / "cells") == results(folder)


HEARING = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("simulator", run_name="__main__", alter_sys=True)
"""
"""`python -m simulator` that hears Ctrl-C, which is ignored where tests run in the background; it sees to that itself,
for a fork beside threads of gRPC may abort."""


def stop_within(cell: Cell, sign: signal.Signals, out: Path, *arguments: str) -> None:
    """Start a sweep and send it a signal while it runs the cell: nothing goes on."""
    command = [sys.executable, "-c", HEARING, "sweep", *TINY, *arguments, "--jobs", "1", "--out", str(out)]
    sweep = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not (out / "cells" / cell.name / "config.json").exists():
            assert time.monotonic() < deadline and sweep.poll() is None
            time.sleep(0.02)
        children = subprocess.run(["pgrep", "-P", str(sweep.pid)], capture_output=True, text=True).stdout.split()
        assert children
        sweep.send_signal(sign)
        _, said = sweep.communicate(timeout=60)
    finally:
        sweep.kill()
        sweep.wait()
    assert sweep.returncode == 130 and "--resume" in said
    assert not [pid for pid in children if _alive(int(pid))]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--vary", "seed"], "vary = seed: values after it"),
        (["--vary", "seed", "1", "--jobs", "0"], "jobs = 0: at least 1"),
        (["--vary", "seed", "1", "--cpus", "2"], "cpus, gpus, memory = 2.0: with --backend ray alone"),
        (["--vary", "seed", "1", "--backend", "ray", "--memory", "much"], "memory = much: a size such as 20 GB"),
        (["--vary", "seed", "1", "--part", "0/2"], "a sweep runs whole runs: give the sweep --backend ray"),
        (["--vary", "seed", "1", "--backend", "slurm"], "slurm.*; see flicker sweep --help"),
        (["nothing.toml"], "nothing.toml: no such file"),
        (["some/file.json"], "file = some/file.json: name a grid file that ends in .toml"),
        (["--data", "log", "grid.toml"], "vary = nothing: .* or a grid file before all flags"),
        (["--vary", "seed", "1", "2", "--vary", "seed", "3"], "vary = seed: given twice"),
        (["--vary", "learning-rate", "1", "--vary", "learning_rate", "3"], "vary = learning_rate: given twice"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], complaint: str) -> None:
    with pytest.raises(FlickerError, match=complaint):
        parse(arguments)


@pytest.mark.slow  # starting Ray takes longer than all else here: below is what a node does, without it
@pytest.mark.filterwarnings("default")  # Ray's own are not ours to mend
def test_a_cluster_of_two_nodes_gives_the_same_numbers(local: tuple[list[Cell], Path], tmp_path: Path) -> None:
    from simulator.sweep.backend import OnRay

    cells, folder = local
    broken = Cell({"arms": "broken"}, (*TINY, "--learning-rate", "1e30"))
    with ray_cluster(1, 2) as nodes:
        backend = OnRay(nodes.address)
        assert backend.workers == 3 and OnRay(nodes.address, Resources(cpus=2)).workers == 1
        with pytest.raises(SettingError, match="cpus, gpus, memory = CPU 3: no node of the cluster has as much"):
            OnRay(nodes.address, Resources(cpus=3))
        ended = {one.cell.name: one.failure for one in backend.run([*cells, broken], tmp_path)}
    assert "diverged" in str(ended.pop(broken.name)) and list(ended.values()) == [None, None]
    assert results(tmp_path) == results(folder)


@pytest.mark.usefixtures("undrawn")
def test_a_node_sends_back_all_files_of_a_cell_or_why_it_failed(local: tuple[list[Cell], Path]) -> None:
    cells, folder = local
    files, failure, _ = run_cell(cells[0], 1)
    assert failure is None and files.keys() == {"config.json", "result.json"}
    assert timeless(json.loads(files["result.json"])) == results(folder)[cells[0].name]
    files, failure, _ = run_cell(Cell({"arms": "broken"}, (*TINY, "--k", "31")), 1)
    assert not files and failure is not None and "k = 31" in failure


def test_what_ray_says_of_a_lost_task_is_told_in_one_line() -> None:
    kinds = pytest.importorskip("ray", reason="needs Ray: pip install 'flicker-recsys[ray]'").exceptions
    from simulator.cluster import error_message

    trace = "Traceback (most recent call last):\n  File 'x', line 1\nOSError: [Errno 28] No space left on device\n"
    problem = kinds.RayTaskError("run_cell", trace, OSError())
    assert error_message(problem, kinds) == "OSError: [Errno 28] No space left on device"
    assert error_message(kinds.WorkerCrashedError(), kinds).startswith("WorkerCrashedError: The worker died")
