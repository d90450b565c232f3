"""What is there to read: short enough, every link, path and name in it there, a runbook for every alert."""

from __future__ import annotations

import functools
import json
import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from simulator.cli import COMMANDS
from tests.documents import PAGES, ROOT, anchor, blocks, headings, prose
from tests.metric_names import declared, rules

MAX_WORDS = 1_600
"""Of README, all of it counted."""
MAX_TITLE = 15
LINK = re.compile(r"(?<!`)\[(?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*\]\(([^)\s]+)\)")
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)+\.(?:py|md|toml|yml|jsonl?|sh|css|proto|csv|png)\b")
ELSEWHERE = re.compile(r"^(results|secrets|my_pkg|snapshots|clicks|impressions|ca|grafana|user|DIR|OUT|log|logs)/")
"""Paths of a reader's own, or of what a run leaves."""
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@functools.cache
def tracked() -> list[str]:
    """Paths of all files, as git has them, or as they lie there where it has none."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        return subprocess.run(command, cwd=ROOT, check=True, text=True, capture_output=True).stdout.splitlines()
    return [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= MAX_WORDS


@every_page
def test_titles_are_short(page: Path) -> None:
    assert [title for title in headings(page) if len(title.split()) > MAX_TITLE] == []


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(prose(page)):
        target, _, place = unquote(link).partition("#")
        if target.startswith(("https://", "http://")):
            continue
        file = page.parent / target if target else page
        if not file.is_file():  # a folder is no page of the site
            broken.append(link)
        elif place and place not in map(anchor, headings(file)):
            broken.append(link)
    assert broken == []


@every_page
def test_files_that_are_named_are_there(page: Path) -> None:
    """What stands in backticks and looks like the path of a file, from the root, or from a folder that it is in."""
    files, named = tracked(), set(re.findall(r"`([^`\n]+)`", prose(page)))
    paths = {path for text in named for path in PATH.findall(text) if "://" not in text and not text.startswith("/")}
    ends = {path for path in paths if not ELSEWHERE.match(path)}
    assert {path for path in ends if not any(f"/{file}".endswith(f"/{path}") for file in files)} == set()


@every_page
def test_commands_in_sentences_exist(page: Path) -> None:
    """`flicker X` and `make X` in backticks; blocks of commands are run (test_docs_commands.py)."""
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    said = re.findall(r"`(flicker|make) ([a-z-]+)", prose(page))
    assert [name for which, name in said if name not in (COMMANDS if which == "flicker" else targets)] == []


def test_every_page_can_be_reached_from_the_first() -> None:
    waiting, seen = [ROOT / "README.md"], set[Path]()
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        links = [link.partition("#")[0] for link in LINK.findall(prose(page)) if "://" not in link]
        waiting += [(page.parent / link).resolve() for link in links if link]
    of_the_site = {ROOT / "docs" / name for name in ("index.md", "contributing.md", "changelog.md", "api.md")}
    assert set(PAGES) - seen - of_the_site - {ROOT / "docs" / "commands.md"} == set()


def test_the_map_has_every_folder() -> None:
    folders = {path.split("/")[0] for path in tracked() if "/" in path and not path.startswith(".")}
    (drawn,) = (block.text for block in blocks(ROOT / "README.md") if block.text.startswith("simulator/"))
    assert set(re.findall(r"^([a-z]+)/", drawn, re.MULTILINE)) == folders - {"secrets"}  # empty but for its .gitignore


def test_architecture_names_every_part_of_the_simulator() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    parts = {path.split("/")[1] for path in tracked() if path.startswith("simulator/") and path.endswith(".py")}
    parts -= {"__init__.py", "__main__.py"}
    assert {part for part in parts if (part if part.endswith(".py") else f"{part}/") not in text} == set()


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    page = ROOT / "docs" / "operations.md"
    told = dict(re.findall(r"^### (Flicker\w+)\n\n\*(\w+)\.\*", page.read_text(), re.MULTILINE))
    assert told == {alert["alert"]: alert["labels"]["severity"] for alert in rules("alerts.yml")}
    names = set(re.findall(r"`((?:flicker|grpc)[_:][a-z_:]+)`", page.read_text()))
    recorded = {rule["record"] for rule in rules("rules.yml")}
    assert names - declared().keys() - recorded == set()


def test_the_citation_has_what_the_format_asks_for() -> None:
    """Citation File Format 1.2.0: its required keys, of the right kinds, and what README says."""
    held = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert held["cff-version"] == "1.2.0" and held["type"] == "software" and held["license"] == "Apache-2.0"
    assert held.keys() <= {
        "cff-version", "message", "title", "type", "authors", "abstract", "keywords", "license", "version",
        "date-released", "references",
    }  # fmt: skip
    assert all(held[key] for key in ("message", "title", "authors")) and isinstance(held["authors"], list)
    (paper,) = held["references"]
    assert {"type", "title", "authors", "url"} <= paper.keys()
    assert paper["url"] in (ROOT / "README.md").read_text()
    assert f'version = "{held["version"]}"' in (ROOT / "pyproject.toml").read_text()


def test_the_changelog_is_of_its_format() -> None:
    """Keep a Changelog 1.1.0: versions, newest first, and kinds of change that it knows."""
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(.+?)\]( - \d{4}-\d{2}-\d{2})?$", text, re.MULTILINE)
    assert len(versions) >= 2 and len(versions) == len(re.findall("^## ", text, re.MULTILINE))
    dates = [date for _, date in versions if date]
    assert dates == sorted(dates, reverse=True) and versions[0][0] == "Unreleased"
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= kinds


def test_the_tutorial_is_kept_small() -> None:
    held = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text())
    assert len(json.dumps(held)) < 100_000 and held["nbformat"] == 4
