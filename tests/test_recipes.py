"""The recipes of CONTRIBUTING.md, typed word by word into a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import ROOT, recipes

NEEDED = ("flicker", "simulator", "trainer", "serving", "load", "page", "protos", "deploy", "examples", "docs", "tests")
PLACE = re.compile(r"# ([\w/.-]+\.py)(?:, below: ([^\n]+))?\n(.*)", re.DOTALL)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project, without what git leaves out but for the kernels, which would take a compiler its time."""
    for name in NEEDED:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def typed(code: str, project: Path) -> None:
    """A new file, or what goes below a line of one."""
    found = PLACE.fullmatch(code)
    assert found, f"a block of Python begins with the file it belongs to: {code[:80]}"
    name, line, text = found.groups()
    if line is None:
        assert not (project / name).exists(), f"{name} is there already"
        (project / name).write_text(text)
        return
    held = (project / name).read_text().split("\n")
    (place,) = (number for number, each in enumerate(held) if each.strip() == line)
    (project / name).write_text("\n".join([*held[: place + 1], *text.splitlines(), *held[place + 1 :]]))


def run(commands: str, project: Path) -> str:
    """What they say, all of which must succeed."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "FLICKER", "COLUMNS"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), own["PATH"]])
    environment = own | {"PATH": path, "PYTHONPATH": str(project), "COLUMNS": "200"}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # which take longer than the tests here
    command = ["bash", "-euo", "pipefail", "-c", commands]
    done = subprocess.run(command, cwd=project, env=environment, text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("title", recipes())
def test_a_recipe_word_by_word(title: str, copy: Path) -> None:
    said, languages = "", set[str]()
    for block in recipes()[title]:
        languages.add(block.language)
        if block.language == "python":
            typed(block.text, copy)
        elif block.language == "sh":
            said = run(block.text, copy)
        else:
            assert block.language == "text" and [line for line in block.text.splitlines() if line not in said] == []
    assert languages == {"python", "sh", "text"}


def test_there_are_three() -> None:
    assert list(recipes()) == ["An activation", "A measure", "A model"]
