"""Every block of commands in README and docs, as a reader would type it.

A real shell reads each block; the `flicker`, `make` and `python` that it finds note what they are called with. What
answers in a second is then run, in a folder that holds what the pages speak of: a log, files of predictions, finished
runs. Of what would take minutes, or not end, the real parser reads the flags. A block that can be neither has a reason
before it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from page.main import PageFlags
from serving.proxy.flags import ShadowFlags
from serving.query import QueryFlags
from serving.replica.main import ReplicaFlags
from serving.router.main import RouterFlags
from simulator.article.grid import GridFlags as ArticleFlags
from simulator.article.pages import WriteFlags
from simulator.article.pages import write as write_article
from simulator.article.table import write_lines
from simulator.experiment.main import MergeFlags, run_experiment
from simulator.flags import RunFlags, parse, parse_flags, parse_run
from simulator.live.flags import UpFlags
from simulator.models.specs import parse_arms
from simulator.sweep import main as sweep
from tests.article.made import world
from tests.documents import NOT_RUN, PAGES, ROOT, Block, blocks, prose, recipes
from tests.predictions.logs import frame, write
from tests.small_runs import small_log
from tests.terminal import SMALL_RUN, Terminal
from trainer.flags import TrainerFlags

EVERY = [block for page in PAGES for block in blocks(page)]
COMMANDS = [block for block in EVERY if block.language in ("sh", "bash", "console", "shell")]
TYPED = [block for steps in recipes().values() for block in steps]
"""What test_recipes.py runs, in a copy of the project."""
RUN = [block for block in COMMANDS if not NOT_RUN.fullmatch(block.before) and block not in TYPED]
MARKED = [block for block in COMMANDS if NOT_RUN.fullmatch(block.before)]
QUICK = {"check": {0}, "compare": {0}, "report": {0}, "recommend": {0, 3}, "gate": {0, 1, 3}, "size": {0}}
"""Commands of `flicker` that are run, with the exit codes that the pages tell of."""
NOTING = """#!{python}
import json, os, sys
called = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
own = {{name: value for name, value in os.environ.items() if name.startswith("FLICKER_")}}
print(json.dumps([called, own]), file=open({file!r}, "a"))
"""
Call = tuple[list[str], dict[str, str]]
"""The words of a command, and the FLICKER_ variables that it was given."""


def typed(block: Block, folder: Path) -> list[Call]:
    """What the shell makes of a block; fails where it knows a command no more than we do."""
    shims, notes = folder / "shims", folder / "called.jsonl"
    shims.mkdir()
    for name in ("flicker", "make", "python"):
        (shims / name).write_text(NOTING.format(python=sys.executable, file=str(notes)))
        (shims / name).chmod(0o755)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").touch()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=folder,
        env={"PATH": f"{shims}:/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": "0"},
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{block.place}: {done.stderr}; mark it <!-- not run: reason --> where it cannot be"
    return [tuple(json.loads(line)) for line in notes.read_text().splitlines()] if notes.exists() else []


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the pages speak of."""
    folder = tmp_path_factory.mktemp("reader")
    small_log(folder / "ml-1m")
    shutil.copytree(folder / "ml-1m", folder / "movietweetings-100k")
    ratings = [line.split("::") for line in (folder / "ml-1m" / "ratings.dat").read_text().splitlines()]
    rows = [f"u{user},i{item},{1_700_000_000 + int(time)},{int(item) % 2}" for user, item, _, time in ratings]
    (folder / "clicks.csv").write_text("\n".join(["user_id,item_id,timestamp,label", *rows, ""]))
    for number, name in enumerate(("monday", "tuesday")):
        write(folder / f"{name}.parquet", frame(number + 1))
    duplicated(folder / "log.parquet")
    for number, name in enumerate(("old", "new")):
        scores = frame(number + 1)
        lines = zip(scores["q_id"], scores["doc_id"], scores["score"], strict=True)
        (folder / f"{name}.run").write_text("".join(f"{q} Q0 {d} 1 {s} tag\n" for q, d, s in lines))
    for side in ("first", "second"):
        (folder / "shadowed" / side).mkdir(parents=True)
        write(folder / "shadowed" / side / "0.parquet", frame(1 + (side == "second")))
    for seed, name in enumerate(("results/NEW", "results/OLD")):
        asked = [*SMALL_RUN, "--data", str(folder / "ml-1m"), "--seed", str(seed), "--keep-predictions", "--no-page"]
        flags = parse_run([*asked, "--out", str(folder / name)])
        run_experiment(flags, flags.config(), "flicker run")
    for name in ("old", "new", "native", "torch", "warm", "scratch", "results/RUN"):
        shutil.copytree(folder / "results/NEW", folder / name)
    for cells in ("results/article", "docs/article"):
        (folder / cells).mkdir(parents=True)
        write_lines(folder / cells / "cells.jsonl", world().lines)
    return folder


def duplicated(path: Path) -> None:
    """One file of two models."""
    one, other = frame(1), frame(2)
    number = [0] * len(one["q_id"]) + [1] * len(other["q_id"])
    write(path, {name: [*one[name], *other[name]] for name in one} | {"duplicate": number})


def of_run(words: list[str]) -> None:
    parse_arms(parse_run(words).config().arms)


def of_up(words: list[str]) -> None:
    parse_arms(parse(UpFlags, "flicker up", words).config().arms)


def of_sweep(words: list[str]) -> None:
    assert sweep.parse(words).cells


def of_show(words: list[str]) -> None:
    flags = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
    runs = ["--runs", *words[:flags]] if flags else []
    parse_flags(PageFlags, "flicker show", [*words[flags:], *runs])


PARSED: dict[tuple[str, ...], Callable[[list[str]], Any]] = {
    ("flicker", "run"): of_run,
    ("flicker", "tune"): lambda words: parse(RunFlags, "flicker tune", words),
    ("flicker", "merge"): lambda words: parse_flags(MergeFlags, "flicker merge", words),
    ("flicker", "up"): of_up,
    ("flicker", "sweep"): of_sweep,
    ("flicker", "query"): lambda words: parse_flags(QueryFlags, "flicker query", words),
    ("flicker", "shadow"): lambda words: parse_flags(ShadowFlags, "flicker shadow", words),
    ("flicker", "show"): of_show,
    ("flicker", "article", "write"): lambda words: write_article(parse_flags(WriteFlags, "flicker article", words)),
    ("flicker", "article", "run"): lambda words: parse_flags(ArticleFlags, "flicker article run", words),
    ("python", "-m", "trainer"): lambda words: parse(TrainerFlags, "python -m trainer", words),
    ("python", "-m", "serving", "replica"): lambda words: parse_flags(ReplicaFlags, "python -m serving replica", words),
    ("python", "-m", "serving", "router"): lambda words: parse_flags(RouterFlags, "python -m serving router", words),
}
"""What begins so is parsed, and what it would do is left, but for writing the article's pages."""


def made(words: list[str]) -> None:
    """`make TARGET ARGS=...`: the target is there; the flags of `up` and `run` are theirs."""
    target = words[1] if len(words) > 1 else "help"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--dry-run", f"PYTHON={sys.executable}", *words[1:]]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    arguments = next((word.removeprefix("ARGS=").split() for word in words if word.startswith("ARGS=")), [])
    if target in ("up", "run"):
        PARSED["flicker", target](arguments)


@pytest.mark.parametrize("block", RUN, ids=lambda block: block.place)
def test_a_block_of_commands(
    block: Block, shelf: Path, tmp_path: Path, flicker: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(shelf, tmp_path / "here")
    monkeypatch.chdir(folder)
    (tmp_path / "shell").mkdir()
    for words, variables in typed(block, tmp_path / "shell"):
        with monkeypatch.context() as patched:
            for name, value in variables.items():
                patched.setenv(name, value)
            called(words, flicker)


def called(words: list[str], flicker: Terminal) -> None:
    """Run or parse a command. Fails where it can be neither."""
    if words[0] == "make":
        return made(words)
    if words[0] == "flicker" and ("--help" in words or words[1] in QUICK):
        said = flicker(*words[1:])
        allowed = {0} if "--help" in words else QUICK[words[1]]
        assert said.code in allowed and "Traceback" not in said.err, (words, said.err)
        return
    for start, parsed in PARSED.items():
        if tuple(words[: len(start)]) == start:
            parsed(words[len(start) :])
            return
    raise AssertionError(f"{' '.join(words)}: neither run nor parsed here; mark its block <!-- not run: reason -->")


def test_there_are_commands_and_few_are_left_out() -> None:
    assert len(RUN) > 20 and len(MARKED) < len(RUN)
    assert [block.place for block in EVERY if not block.language] == [], "say what a block holds: sh, text, python"
    indented = {page.name: re.findall(r"\n\n {4,}(\S.*)", prose(page)) for page in PAGES}
    assert {name: lines for name, lines in indented.items() if lines} == {}, "fence it: nobody reads these"


@pytest.mark.parametrize("block", MARKED, ids=lambda block: block.place)
def test_what_is_not_run_names_variables_that_exist(block: Block) -> None:
    known = set(re.findall(r"FLICKER_\w+", (ROOT / ".env").read_text() + (ROOT / "docker-compose.yml").read_text()))
    assert set(re.findall(r"(FLICKER_\w+)=", block.text)) - known == set()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("flicker run --arms relu no-such", "no-such"),
        ("flicker run --sede 3", "sede"),
        ("flicker compare nowhere.csv monday.parquet", "nowhere.csv"),
        ("make no-such-target", "no-such-target"),
        ("kubectl get pods", "kubectl"),
        ("python -m no.such", "neither run nor parsed"),
    ],
)
def test_a_wrong_command_is_seen(
    text: str, complaint: str, shelf: Path, tmp_path: Path, flicker: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shelf)
    block = Block(ROOT / "README.md", 1, "sh", text + "\n", "")
    with pytest.raises(Exception) as failure:  # whoever complains
        for words, _ in typed(block, tmp_path):
            called(words, flicker)
    assert complaint in str(failure.value) + str(getattr(failure.value, "stderr", ""))
