"""The grid's cells are runs that can start; what was stopped goes on; pages are made from lines alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from simulator.article import grid
from simulator.article.__main__ import main
from simulator.article.claims import CLAIMS
from simulator.article.figures import DRAWN, all_figures
from simulator.article.grid import GridFlags, recorded, run_grid
from simulator.article.pages import WriteFlags, in_order, summary, write
from simulator.article.table import read_lines, worlds, write_lines
from simulator.errors import ResultError, SettingError
from simulator.flags import parse_run
from simulator.models.specs import parse_arms
from tests.article.made import world
from tests.small_runs import small_log

ROOT = Path(__file__).parents[2]


def unseeded(arguments: Sequence[str]) -> tuple[str, ...]:
    """The flags of a cell but for its seed, of which every one is as good as another."""
    return tuple(word for before, word in zip(["", *arguments], arguments, strict=False) if before != "--seed")


@pytest.mark.parametrize("size", ["core", "quick", pytest.param("full", marks=pytest.mark.slow)])
def test_every_cell_is_a_run_that_can_start(size: str) -> None:
    cells = GridFlags(data=(Path("my/log"),), size=size).cells()  # type: ignore[arg-type]
    for cell in {unseeded(cell.arguments): cell for cell in cells}.values():
        parse_arms(parse_run(list(cell.arguments)).config().arms)
    assert len({cell.name for cell in cells}) == len(cells)
    assert {cell.place["world"] for cell in cells} == {"log", "made-up 0.1", "made-up 0.5", "made-up 0.9"}


def test_a_part_of_the_grid_is_run_by_the_names_of_its_groups() -> None:
    cells = GridFlags(only=("norms", "noise order")).cells()
    assert {cell.place["group"] for cell in cells} == {"norms", "noise order"}
    with pytest.raises(SettingError, match="only = walks: of activations, norms"):
        GridFlags(only=("walks",)).cells()


def test_the_core_grid_keeps_to_its_size() -> None:
    assert sum(len(group.arms) for group in grid.core(everything=True)) <= 200


def test_a_grid_that_was_stopped_goes_on_and_its_lines_name_no_folder(tmp_path: Path) -> None:
    log, out = small_log(tmp_path / "films", ratings=9_000), tmp_path / "out"
    flags = GridFlags(out=out, data=(log,), made_up=(), size="quick", limit=1, jobs=1)
    assert run_grid(flags) == 0
    (first,) = read_lines(out / "cells.jsonl")
    assert first.name == "films activations 0" and str(tmp_path) not in (out / "cells.jsonl").read_text()
    assert first.arguments == recorded(flags.cells()[0]) and list((out / "work").iterdir()) == []
    assert run_grid(flags) == 0
    again, second = read_lines(out / "cells.jsonl")
    assert first == next(line for line in (again, second) if line.group == "activations")
    assert {again.group, second.group} == {"activations", "norms"} and again.seed == second.seed == 0


def test_a_cell_that_fails_is_told_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "films"
    flags = GridFlags(out=tmp_path / "out", data=(missing,), made_up=(), size="quick", limit=1, jobs=1)
    assert run_grid(flags) == 1
    assert (
        f"failed: {missing}" in capsys.readouterr().out.replace("\n", "")
        and read_lines(tmp_path / "out/cells.jsonl") == []
    )


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [({"jobs": 0}, "jobs = 0"), ({"made_up": ("0.3",)}, "made-up = 0.3"), ({"made_up": ()}, "made-up = none")],
)
def test_flags_that_cannot_be_are_refused(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint):
        GridFlags(**settings)  # type: ignore[arg-type]


def test_pages_are_made_from_lines_alone_and_are_the_same_each_time(tmp_path: Path) -> None:
    lines = [line for name in ("films", "made-up 0.5") for line in world({"gelu": {"pd": 0.6}}, name=name).lines]
    write_lines(tmp_path / "cells.jsonl", lines)
    flags = WriteFlags(cells=tmp_path, pages=tmp_path / "pages")
    flags.pages.mkdir()
    before, after = "# Ours\n\n<!-- results: by flicker article write -->\n", "<!-- end of results -->\nand more\n"
    (tmp_path / "README.md").write_text(f"{before}as it was\n{after}")
    pages = {path: path.read_bytes() for path in write(flags)}
    files = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    assert {path: path.read_bytes() for path in write(flags)} == pages
    assert {path: path.read_bytes() for path in tmp_path.glob("*.*")} == files
    readme = (tmp_path / "README.md").read_text()
    assert readme.startswith(before) and readme.endswith(after) and "as it was" not in readme and "| films | " in readme
    text = (tmp_path / "pages" / "results.md").read_text()
    assert all(claim.words in text for claim in CLAIMS) and "not run" not in text
    for link in ("../1-frontiers.svg", "../settings.csv", "decide.md"):
        assert f"]({link})" in text and (flags.pages / link).exists()
    with pytest.raises(ResultError, match="no finished cell: flicker article run"):
        write(WriteFlags(cells=tmp_path / "none"))


def test_readme_says_what_the_cells_say() -> None:
    lines = read_lines(ROOT / "docs" / "article" / "cells.jsonl")
    assert summary(in_order(worlds(lines))) in (ROOT / "README.md").read_text()


def test_figures_are_titled_in_fifteen_words_and_say_how_many_units() -> None:
    figures = all_figures([world()])
    assert [figure.number for figure in figures] == list(range(1, len(DRAWN) + 1))
    for figure in figures:
        assert len(figure.claim.split()) <= 15 and "units of 2 duplicates" in figure.note and figure.panels
        assert len(figure.csv().splitlines()) > 3


def test_without_the_article_all_else_stands() -> None:
    own = ROOT / "simulator" / "article"
    for path in (
        path for top in ("simulator", "serving", "trainer", "load", "flicker") for path in (ROOT / top).rglob("*.py")
    ):
        names = {
            node.module or "" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)
        }
        assert own in path.parents or not any(name.startswith("simulator.article") for name in names), path


BAD = (["run", "--jobs", "0"], 2, "jobs = 0"), (["write", "--cells", "/nowhere"], 2, "no finished cell")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [([], 0, "flicker article run"), (["draw"], 2, "command = draw: run or write"), *BAD],
)
def test_the_command_line_says_what_it_can_and_what_is_wrong(
    arguments: list[str], code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["flicker article", *arguments])
    assert main() == code
    said = capsys.readouterr()
    assert words in said.out + said.err


def test_flicker_article_becomes_that_program() -> None:
    command = [sys.executable, "-m", "simulator", "article", "draw"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 2 and ran.stderr.startswith("flicker: command = draw") and ran.stderr.count("\n") == 1


@pytest.mark.slow  # starting Ray takes longer than all else here
@pytest.mark.filterwarnings("default")  # Ray's own are not ours to mend
def test_a_ray_cluster_finds_the_same_numbers(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'flicker-recsys[ray]'")
    log, found = small_log(tmp_path / "films", ratings=9_000), []
    for name in ("local", "ray"):
        out: Any = {"out": tmp_path / name, "backend": name}
        assert run_grid(GridFlags(**out, data=(log,), made_up=(), size="quick", limit=1, jobs=1)) == 0
        (line,) = read_lines(tmp_path / name / "cells.jsonl")
        found.append({arm: {k: v for k, v in own.items() if "seconds" not in k} for arm, own in line.arms.items()})
    assert found[0] == found[1]
