"""Grids: every combination once, in the flags of `flicker run`; what cannot be run is refused before anything is."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.errors import FlickerError
from simulator.flags import parse_run
from simulator.sweep.grid import Grid, arguments, read_grid
from simulator.sweep.main import parse


def test_all_combinations_come_once_the_last_axis_fastest() -> None:
    cells = Grid(["--preset", "smoke"], {"arms": ["relu", "gelu"], "seed": [0, 1, 2]}).cells()
    assert [cell.name for cell in cells] == [f"arms={arm},seed={seed}" for arm in ("relu", "gelu") for seed in range(3)]
    assert cells[4].arguments == ("--preset", "smoke", "--arms", "gelu", "--seed", "1")


def test_a_value_may_hold_several_words_or_be_a_list_or_a_switch() -> None:
    assert arguments("arms", "relu smelu:beta=1") == ("--arms", "relu", "smelu:beta=1")
    assert arguments("hidden", [8, 4]) == ("--hidden", "8", "4")
    assert arguments("reductions", True) == arguments("reductions", "true") == ("--reductions",)
    assert arguments("learning_rate", "0.01") == ("--learning-rate", "0.01")
    assert arguments("reductions", False) == ("--no-reductions",)


def test_a_table_is_several_flags_at_once_under_its_name() -> None:
    noise = [{"name": "none", "window": 0}, {"window": 4, "reductions": True}]
    cells = Grid([], {"noise": noise}).cells()
    assert [cell.name for cell in cells] == ["noise=none", "noise=window=4-reductions=True"]
    assert parse_run(list(cells[1].arguments)).config().noise.reductions


def test_a_file_says_the_same_as_flags(tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    file.write_text('[run]\npreset = "smoke"\nfleets = 2\n[vary]\narms = ["relu", "relu gelu"]\nseed = [0, 1]\n')
    (grid,) = read_grid(file)
    flags = Grid(["--preset", "smoke", "--fleets", "2"], {"arms": ["relu", "relu gelu"], "seed": ["0", "1"]})
    assert grid.cells() == flags.cells()


def test_a_file_may_hold_several_grids_and_flags_for_one_kind_of_world(tmp_path: Path) -> None:
    file = tmp_path / "grids.toml"
    file.write_text(
        "[run]\nfleets = 2\n[replay]\nlimit = 500\n[synthetic]\nevents = 9000\n"
        '[[grid]]\nname = "one"\nvary = { seed = [0, 1] }\n'
        '[[grid]]\nname = "two"\nrun = { norm = "none" }\nvary = { window = [4] }\n'
    )
    first, second = read_grid(file)
    cells = [*first.cells(), *second.cells()]
    assert [cell.name for cell in cells] == ["grid=one,seed=0", "grid=one,seed=1", "grid=two,window=4"]
    assert cells[0].arguments == ("--fleets", "2", "--events", "9000", "--seed", "0")
    assert cells[2].arguments == ("--fleets", "2", "--events", "9000", "--norm", "none", "--window", "4")
    assert read_grid(file, replay=True)[1].shared == ("--fleets", "2", "--limit", "500", "--norm", "none")


def worlds(arguments: list[str]) -> set[bool]:
    """Whether the runs of a file for both worlds were made for a log: those of a log have --limit."""
    return {"--limit" in cell.arguments for cell in parse(arguments).cells}


@pytest.mark.parametrize(
    ("run", "own", "replay"),
    [
        ("", [], False),
        ("", ["--data", "log"], True),
        ("", ["--data=log"], True),
        ("", ["--vary", "data", "log", "other"], True),
        ('data = "log"', [], True),
    ],
)
def test_a_log_is_seen_however_it_is_named(tmp_path: Path, run: str, own: list[str], replay: bool) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(f"[run]\n{run}\n[replay]\nlimit = 500\n[synthetic]\nevents = 9000\n[vary]\nseed = [0, 1]\n")
    assert worlds([str(file), *own]) == {replay}


def test_one_grid_of_a_file_may_be_for_a_log_and_another_not(tmp_path: Path) -> None:
    file = tmp_path / "grids.toml"
    file.write_text(
        "[replay]\nlimit = 500\n[synthetic]\nevents = 9000\n"
        '[[grid]]\nname = "log"\nrun = { data = "log" }\nvary = { seed = [0] }\n'
        '[[grid]]\nname = "logs"\nvary = { data = ["log"] }\n[[grid]]\nname = "none"\nvary = { seed = [0] }\n'
    )
    assert ["--limit" in grid.shared for grid in read_grid(file)] == [True, True, False]


def test_an_axis_of_the_command_line_goes_before_that_of_the_file_in_either_spelling(tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    file.write_text("[vary]\nlearning_rate = [0.1, 0.2, 0.3]\nseed = [1]\n")
    cells = parse([str(file), "--vary", "learning-rate", "0.5"]).cells
    assert [cell.arguments for cell in cells] == [("--learning-rate", "0.5", "--seed", "1")]


def test_a_preset_is_that_of_a_run() -> None:
    (cell,) = parse(["--preset", "smoke", "--vary", "seed", "3"]).cells
    assert cell.arguments == ("--preset", "smoke", "--seed", "3")


def test_names_are_safe_as_folders_and_never_shared() -> None:
    (cell,) = Grid([], {"arms": ["gsmelu:alpha=1,beta=2 relu"]}).cells()
    assert cell.name == "arms=gsmelu-alpha=1-beta=2-relu"
    with pytest.raises(FlickerError, match="two cells are both called seed=1"):
        Grid([], {"seed": [1, 1]}).cells()


@pytest.mark.parametrize(
    ("shared", "axes", "complaint"),
    [
        ([], {}, "vary = nothing"),
        ([], {"arms": ['"relu']}, 'arms = "relu: close the quotation mark'),
        ([], {"out": ["a", "b"]}, "out = a: the sweep gives each run a folder of its own"),
        (["--events", "many"], {"seed": [1]}, "seed=1: .*many"),
        ([], {"arms": ["relu", "rely"]}, "arms=rely: .*rely"),
        ([], {"duplicates": [1, 2]}, "duplicates=1: .*at least 2"),
        (["--bogus"], {"seed": [1]}, "seed=1: .*bogus"),
    ],
)
def test_what_flicker_run_would_refuse_is_refused_before_anything_runs(
    shared: list[str], axes: dict[str, list[object]], complaint: str
) -> None:
    with pytest.raises(FlickerError, match=complaint):
        Grid(shared, axes).cells()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[vary", "flicker sweep --help"),
        ("[grid]\na = 1", "grid: only the tables"),
        ("[data]\na = 1", "data: only the tables"),
        ("[[grid]]\nvery = 1", "grid.very: only name, run and vary"),
        ("[[grid]]\nvary = { seed = [1] }\n[[grid]]\nvary = { seed = [2] }", "a name of its own"),
        ("[vary]\nseed = 3", "vary.seed = 3"),
        ("[[grid]]\nname = 3\nvary = { seed = [1] }", "grid.name = 3: text"),
        ("[[grid]]\nrun = 3\nvary = { seed = [1] }", "grid.run = 3: a table"),
        ("grid = [3]", "grid: only the tables"),
        ("grid = []", "grid: only the tables"),
        ("[run]\narms = '\"relu'", 'arms = "relu: close the quotation mark'),
        ("[vary]\narms = ['\"relu']", 'arms = "relu: close the quotation mark'),
    ],
)
def test_a_file_that_is_no_grid_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(text)
    with pytest.raises(FlickerError, match=f"grid.toml: .*{complaint}"):
        read_grid(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FlickerError, match=r"gone\.toml: no such file"):
        read_grid(tmp_path / "gone.toml")
