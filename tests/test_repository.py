"""What a newcomer meets: nothing of our own machines in the files, every package pinned, every make target there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from simulator.files import DISTRIBUTION

ROOT = Path(__file__).parents[1]
TARGETS = ("help", "setup", "up", "run", "test", "slow", "endure", "soak", "test-containers", "check", "protos")
TARGETS += ("fuzz", "bench", "bench-gpu", "bench-peers", "scaling", "docs", "tutorial", "pictures", "clean")
NEED_NO_SETUP = ("help", "test-containers", "clean")

# Home folders of one machine and hosts of package registries, spelt so that this file does not hold them.
HOMES = ["/".join(("", folder, "")) for folder in ("root", "work", "Users")]
HOSTS = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("download", "pytorch", "org"))]
FORBIDDEN = re.compile("|".join(map(re.escape, HOMES + HOSTS)), re.IGNORECASE)


def run(*command: str) -> str:
    """Standard output of a command in the repository, away from the flags of a `make` around us."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, text=True, capture_output=True).stdout


def pins() -> dict[str, str]:
    """Package -> version in constraints.txt."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_no_file_names_our_machines_or_a_registry() -> None:
    files = [ROOT / name for name in run("git", "ls-files", "-z").split("\0") if name]
    assert files
    found = {str(file): FORBIDDEN.findall(file.read_text(errors="ignore")) for file in files if file.is_file()}
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize("word", HOMES + HOSTS)
def test_a_forbidden_word_is_found(word: str) -> None:
    assert FORBIDDEN.findall(f"cd {word.upper()} and https://files.{word}/x")


def test_every_dependency_is_pinned() -> None:
    """Direct or not; one that its parent names with `==` (the CUDA libraries of torch) is pinned already."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [Requirement(line) for line in project["dependencies"]]
    waiting += [Requirement(line) for extra in project["optional-dependencies"].values() for line in extra]
    seen, missing = set[str](), set[str]()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        if name in pins():
            waiting += [Requirement(line) for line in requires(name) or []]
        elif not str(requirement.specifier).startswith("=="):
            missing.add(name)
    assert missing == set()
    assert len(seen) > len(project["dependencies"])


def test_every_pin_is_one_exact_release() -> None:
    release = re.compile(r"[0-9.]+(\.post[0-9]+)?")  # no local versions such as +cpu: one file serves every machine
    assert [f"{name}=={version}" for name, version in pins().items() if not release.fullmatch(version)] == []


def test_the_distribution_has_one_name() -> None:
    """What is installed is looked up under the name that pyproject.toml gives it."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"] == DISTRIBUTION


@pytest.mark.parametrize("target", TARGETS)
def test_make_knows_the_target(target: str, tmp_path: Path) -> None:
    planned = run("make", "--dry-run", target, f"VENV={tmp_path}/venv", f"PYTHON={sys.executable}")
    assert ("pip install --constraint constraints.txt" in planned) == (target not in NEED_NO_SETUP)


def test_make_help_lists_every_target() -> None:
    listing = run("make")
    assert [line.split()[1] for line in listing.splitlines()] == list(TARGETS)


def test_make_names_the_way_out_without_python(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failure:
        run("make", "setup", "PYTHON=no-such-python", f"VENV={tmp_path}/venv")
    assert "Flicker needs Python 3.11" in failure.value.stderr
    assert not (tmp_path / "venv").exists()
