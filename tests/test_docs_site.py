"""The site of the pages: strict, with all of them on it; and the tutorial, run as its reader would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.documents import PAGES, ROOT

TUTORIAL = ROOT / "docs" / "tutorial.ipynb"
MINUTE = 60


def sphinx(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """As `make docs` calls it."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(source), str(out)]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=10 * MINUTE)


def test_the_site_is_strict_and_has_every_page(tmp_path: Path) -> None:
    done = sphinx(ROOT / "docs", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    names = {page.stem for page in PAGES if page.parent.name == "docs"}
    assert {f"{name}.html" for name in names} <= {path.name for path in tmp_path.glob("*.html")}
    texts = {name: (tmp_path / f"{name}.html").read_text() for name in ("index", "commands", "api", "tutorial")}
    assert "Train the same recommender twice" in texts["index"] and 'href="compare.html"' in texts["index"]
    assert "docs/" not in {link.partition('"')[0] for link in texts["index"].split('href="')}
    assert "--max-swap-increase" in texts["commands"] and "flicker.SmeLU" in texts["api"]
    assert "data:image/png" in texts["tutorial"]


def test_a_broken_link_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "conf.py").write_text('extensions = ["myst_parser"]\nnitpicky = True\n')
    (source / "index.md").write_text("# Here\n\n[there](there.md)\n")
    done = sphinx(source, tmp_path / "out")
    assert done.returncode != 0 and "there.md" in done.stderr


def test_the_tutorial_runs(tmp_path: Path) -> None:
    """Every cell, in a folder of its own; what is kept of it was made by the same cells."""
    command = [sys.executable, "-m", "tests.tutorial", str(tmp_path / "made.ipynb")]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=10 * MINUTE)
    assert done.returncode == 0, done.stderr
    made, kept = (json.loads(file.read_text())["cells"] for file in (tmp_path / "made.ipynb", TUTORIAL))
    for one, other in zip(made, kept, strict=True):
        assert one["source"] == other["source"]
        assert bool(one.get("outputs")) == bool(other.get("outputs")), "make tutorial"
    said = json.dumps(made)
    assert all(words in said for words in ("image/png", "swaps", "first result changed", "<table"))
