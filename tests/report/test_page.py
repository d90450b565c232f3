"""The page stands alone, holds the numbers of the file, and keeps hostile names as text."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from simulator.report import write_report
from tests.report.fake_results import CONFIG, RESULTS, fake_result, write
from tests.report.parsed import Page, draw


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    """The usual page: three arms, twenty generations."""
    return draw(tmp_path_factory.mktemp("three"), fake_result())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "largest" else []) for name in RESULTS]
)
def test_page_is_whole_and_loads_nothing(name: str, three: tuple[str, Page], tmp_path: Path) -> None:
    text, page = three if name == "three arms" else draw(tmp_path, RESULTS[name]())
    assert page.open == [], "every element is closed, in order"
    assert page.texts["h1"] == page.texts["title"], "the tab says what the page says"
    assert not page.tags.keys() & {"script", "link", "img", "iframe", "object", "embed"}
    assert all(reference.startswith("#") for reference in page.references)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert "http" not in text and "@import" not in text
    assert len(text.encode()) < 1_500_000


def test_every_reference_meets_its_only_target(three: tuple[str, Page]) -> None:
    text, page = three
    used = {reference[1:] for reference in page.references} | set(re.findall(r"url\(#([^)]*)\)", text))
    assert used and used <= set(page.ids)
    assert [name for name, times in Counter(page.ids).items() if times > 1] == []


def test_same_files_same_page(tmp_path: Path, three: tuple[str, Page]) -> None:
    again, _ = draw(tmp_path, fake_result())
    assert again == three[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "report.html", "result.json"]


def test_drawings_take_every_colour_from_the_style_sheet(three: tuple[str, Page]) -> None:
    style, drawings = three[0].split("</style>")
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", three[0]))
    assert {"ink", "grid", "paper", "arm-0", "arm-1", "arm-2"} <= used
    assert all(f"--{name}:" in style for name in used)
    assert re.findall(r"(?:fill|stroke): ?#[0-9a-f]{3,6}", drawings) == [], "a fixed colour is lost in the dark"


def test_without_torch() -> None:
    code = "import sys, simulator.report; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_headings_tell_the_finding(three: tuple[str, Page]) -> None:
    page = three[1]
    assert page.texts["h1"] == ["SmeLU (beta = 1) swaps 0.21 of the pairs that ReLU swaps, at 0.65 % lower log loss"]
    claims = " | ".join(page.texts["h2"])
    for part in (
        "What you see",
        "What to do next",
        "in 18.9 % of queries with ReLU, in 4.0 % of queries with SmeLU (beta = 1)",
        "ReLU has PD 0.147, 0.121 without the common shift",
        "Pair swaps of ReLU fall over the run",
        "SmeLU (beta = 1) has both the lowest PD and the lowest log loss",
        "The gradient of ReLU jumps by 1.0; the gradient of SmeLU (beta = 1) has no jump",
        "How to get these numbers again",
    ):
        assert part in claims


def test_summary_table_holds_the_numbers_of_the_file(three: tuple[str, Page]) -> None:
    result, (head, *rows) = fake_result(), three[1].rows
    columns = {
        "PD": ("pd",),
        "pair swaps": ("swaps", "pair"),
        "slot swaps": ("swaps", "slot"),
        "top-1 swaps": ("swaps", "top1"),
        "pair swaps at a refresh": ("refresh_swaps", "pair"),
        "log loss": ("log_loss",),
        "AUC": ("auc",),
        "ranking loss": ("ranking_loss",),
    }
    assert head == ["arm", *columns, "train time"]
    assert len(rows) == len(result["arms"])
    for row, (spec, arm) in zip(rows, result["arms"].items(), strict=True):
        assert spec in row[0]
        assert row[-1].startswith("41.3 s")
        for text, path in zip(row[1:-1], columns.values(), strict=True):
            value = arm
            for key in path:
                value = value[key]
            shown = re.match(r"([\d.]+) \(([\d.]+) to ([\d.]+)\)", text)
            assert shown is not None, text
            for digits, exact in zip(shown.groups(), (value["mean"], value["low"], value["high"]), strict=True):
                step = 10.0 ** -len(digits.partition(".")[2])
                assert float(digits) == pytest.approx(exact, abs=0.5001 * step)
                assert step <= 0.01 * value["mean"], "three significant digits"
            assert ("×" in text) == (spec != "relu")


def test_ratios_with_their_intervals(three: tuple[str, Page]) -> None:
    smelu = three[1].rows[2]
    assert "× 0.21 (0.18 to 0.24)" in smelu[2] and "× 0.21 (0.18 to 0.24)" in smelu[5]
    assert "× 0.994 (0.993 to 0.995)" in smelu[6]


def test_intervals_without_width_and_absent_measures(tmp_path: Path) -> None:
    result = fake_result(generations=0)
    for arm in result["arms"].values():
        arm["pd"] = {"mean": 0.5, "low": 0.5, "high": 0.5}
        arm["auc"], arm["activation"] = {"mean": None, "low": None, "high": None}, None
        del arm["refresh_swaps"], arm["both_swaps"], arm["train_seconds"], arm["ranking_loss"]
    text, page = draw(tmp_path, result)
    head, relu, *_ = page.rows
    assert head == ["arm", "PD", "pair swaps", "slot swaps", "top-1 swaps", "log loss"], "no empty columns"
    assert relu[1] == "0.500"
    for what in ("activations", "generations one by one"):
        assert f"Not in this result: {what}." in text


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    names = ["<script>alert(1)</script>", '"><img src=x onerror=y>', "$\\frac{1}{2}$", "{0} %s </style> ]]> &amp; `x`"]
    result = fake_result(dict.fromkeys(names, (0.5, 0.43)))
    result["notes"] = ["<iframe src='x'>"]
    result["world"]["name"] = "</title><b>"
    config = CONFIG | {"command": "flicker run --arms '</pre><script>'", "machine": {"<svg onload=x>": "<object>"}}
    write(tmp_path, result, config)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert not page.tags.keys() & {"script", "img", "iframe", "object", "b "}
    assert not [name for name in page.attributes if name.startswith("on")]
    assert [row[0] for row in page.rows[1:]] == names
    assert f">{names[2]}</text>" in text, "a name in a drawing is not mathematics"
