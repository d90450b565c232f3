"""Figures of made-up sweeps: files, claims that follow the numbers, and CSV files that hold what was drawn."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from html import escape
from pathlib import Path

import pytest

from simulator.errors import FlickerError
from simulator.figures import surface
from simulator.figures.main import FIGURES, FigureFlags, run_figures
from simulator.figures.pages import table
from simulator.figures.sweep import Sweep, read_sweep
from simulator.measures.intervals import Interval, exact
from simulator.report.charts import Axis, Line, Point, chart, dots
from tests.figures.fake_sweep import PLANE, Arms, article, cell, result, rows_of, silent
from tests.report.fake_results import spread
from tests.report.parsed import Page
from tests.sweep import quick
from tests.terminal import Terminal

SHAPES = re.compile(r"<(?:use|path)\b")


@pytest.fixture(scope="module", autouse=True)
def fewer_slices() -> None:
    """Figure 4 in a second."""
    surface.SLICES, surface.GRID, surface.BETAS = 3, 21, (0.0, 2.0)
    surface.surfaces.cache_clear()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return read_sweep(article(tmp_path_factory.mktemp("sweep") / "made"))


def verdicts(sweep: Sweep) -> list[str]:
    return [row.findings[0].verdict for row in table([sweep])]


def made(folder: Path, plane: Arms, **more: str) -> Sweep:
    return read_sweep(article(folder / "sweep", plane, **more))


ROWS = {
    1: {"plane-pd-log-loss": 12, "plane-pair-log-loss": 12, "plane-pd-ranking-loss": 12},
    2: {"beta-pd": 6, "beta-pair": 6, "beta-log-loss": 6},
    3: {"activation": 6 * 161, "gradient": 6 * 161},
    4: {"surface-0": 21 * 21, "surface-2": 21 * 21, "surface-minima": 2},
    5: {"time-pd": 6, "time-swaps-pair": 6, "time-refresh-swaps-pair": 6},
    6: {f"conditions-{init}-{measure}": 5 for init in ("same", "own") for measure in ("pd", "pair")},
    7: {"sources-pd": 18, "sources-swaps-pair": 18, "sources-log-loss": 18},
    8: {"costs-lookups": 8, "costs-train-seconds": 8, "costs-score-seconds": 8, "costs-routing": 12},
    9: {"pd-by-score": 10, "pd-by-popularity": 10},
    10: {"churn-refresh": 20, "churn-duplicates": 10},
}
"""Points of each panel of the made-up sweep, by counting its arms: 5 settings of SmeLU with ReLU, and so on."""


def test_every_figure_is_drawn_and_its_files_say_the_same(sweep: Sweep, tmp_path: Path) -> None:
    (page,) = run_figures(FigureFlags((sweep.folder,), out=tmp_path), [str(sweep.folder)])
    text = page.read_text()
    assert Page(text).open == [] and "http" not in text.replace("http://www.w3.org", "")
    for number, draw in FIGURES.items():
        (drawn,) = tmp_path.glob(f"synthetic-{number}-*.svg")
        assert ElementTree.parse(drawn).getroot().tag.endswith("svg") and "var(" not in drawn.read_text()
        rows = rows_of(drawn.with_suffix(".csv").read_text())
        assert Counter(row["panel"] for row in rows) == ROWS[number]
        assert all(float(row["y"] or row["x"]) >= -100 for row in rows), "a number in every row"
        panels = draw(sweep).panels
        assert [panel.name for panel in panels] == list(ROWS[number])
        assert all(escape(panel.heading) in drawn.read_text() and SHAPES.search(panel.svg) for panel in panels)
        assert f"Figure {number} · synthetic" in text


def test_every_row_of_the_csv_says_what_its_place_stands_for(sweep: Sweep) -> None:
    def labels(number: int, panel: str, series: str) -> list[str]:
        rows = rows_of(FIGURES[number](sweep).csv())
        return [row["label"] for row in rows if row["panel"] == panel and row["series"] == series]

    betas = ["beta=0", "beta=0.5", "beta=1", "beta=4", "beta=100"]
    assert labels(1, "plane-pd-log-loss", "SmeLU") == labels(2, "beta-pd", "SmeLU") == betas
    assert labels(1, "plane-pd-log-loss", "Swish") == ["beta=1"]
    assert labels(6, "conditions-same-pd", "norm after") == ["window=16", "window=128"]
    assert labels(9, "pd-by-score", "ReLU") == [
        "0 to 0.18", "0.18 to 0.36", "0.36 to 0.54", "0.54 to 0.72", "0.72 to 0.9"
    ]  # fmt: skip
    assert "beta=" not in FIGURES[2](sweep).panels[0].svg, "not beside the points"


def test_gsmelu_is_a_point_of_the_plane(sweep: Sweep) -> None:
    figure, name = FIGURES[1](sweep), "gSmeLU (alpha = 1, beta = 2)"
    assert (7, name) in figure.legend
    (row,) = (r for r in rows_of(figure.csv()) if r["panel"] == "plane-pd-log-loss" and r["series"] == name)
    assert (float(row["x"]), float(row["y"])) == pytest.approx((100 * (0.4365 / 0.44 - 1), 0.65))


def test_the_csv_of_the_plane_holds_the_ratios_of_the_runs(sweep: Sweep) -> None:
    rows = rows_of(FIGURES[1](sweep).csv())
    found = {(float(r["x"]), float(r["y"])) for r in rows if r["panel"] == "plane-pd-log-loss"}
    expected = {(100 * (loss / 0.44 - 1), factor) for factor, loss in [*PLANE.values(), (1.02, 0.44)]}
    assert sorted(found) == [pytest.approx(pair) for pair in sorted(expected)]
    (swish,) = (r for r in rows if r["panel"] == "plane-pd-log-loss" and r["series"] == "Swish")
    assert (float(swish["y_low"]), float(swish["y_high"])) == pytest.approx((0.7 * 0.95, 0.7 * 1.05))


def test_all_claims_hold_where_the_numbers_say_so(sweep: Sweep) -> None:
    assert verdicts(sweep) == ["holds"] * 9
    rows = table([sweep])
    assert "beta 1, 4" in rows[0].findings[0].say and "100" not in rows[0].findings[0].say, "100 costs accuracy"
    lower = "SmeLU has no more PD at no more log loss than Swish (0.33 of ReLU's less), GELU ("
    assert rows[1].findings[0].say.startswith(lower)  # (0.438, 0.30) to (0.435, 0.40) passes 0.367
    assert "to beta = 1 and rises again" in rows[2].findings[0].say
    assert "3 ReLU networks have 0.70 (0.66 to 0.73) of one's PD and" in rows[4].findings[0].say
    assert (
        rows[4]
        .findings[0]
        .say.endswith("both together, SmeLU, ensemble (beta = 1, m = 2), 0.30 (0.28 to 0.32) for 2 times")
    )
    assert rows[8].findings[0].say.startswith("ReLU again has 1.02 (0.97 to 1.07) of its own PD, ")


def test_claims_say_not_where_the_numbers_say_not(tmp_path: Path) -> None:
    worse = {spec: (1.2 if "smelu" in spec else 0.5, 0.46 if "smelu" in spec else 0.44) for spec in PLANE}
    found = made(tmp_path, worse | {"relu": (1.0, 0.44)}, nothing="sums")
    assert verdicts(found) == ["not", "not", "not", "not", "partly", "not", "partly", "holds", "holds"]
    assert "does not lie below Swish anywhere" in FIGURES[1](found).claim
    assert "no difference comes from: order of sums" in FIGURES[7](found).claim


def test_the_rise_of_the_u_is_paired_where_both_arms_are_of_one_run(tmp_path: Path) -> None:
    """2.3 % more log loss at beta = 100: clear by its own interval, or lost in one that is ten times as wide."""
    folder = article(tmp_path / "sweep")
    path = folder / "cells" / "grid=plane,activation=smelu" / "result.json"
    found = json.loads(path.read_text())
    for half, verdict in ((0.001, "holds"), (0.03, "partly")):
        found["arms"]["smelu:beta=100"]["ratio_to"]["smelu:beta=1"]["log_loss"] = spread(0.445 / 0.435, half)
        path.write_text(json.dumps(found))
        u = table([read_sweep(folder)])[2].findings[0]
        assert u.verdict == verdict and "by 2.3\u00a0% to beta = 100" in u.say
    for one, other in (("smelu:beta=100", "smelu:beta=1"), ("smelu:beta=1", "smelu:beta=100")):
        del found["arms"][one]["ratio_to"][other]  # no pair of the two
    path.write_text(json.dumps(found))
    assert table([read_sweep(folder)])[2].findings[0].verdict == "holds"


def test_a_gain_within_the_interval_holds_partly(tmp_path: Path) -> None:
    cell(tmp_path / "one", "only", result({"relu": (1.0, 0.44), "smelu:beta=1": (0.48, 0.43)}, wide=0.2))
    first = table([read_sweep(tmp_path / "one")])[0].findings[0]
    assert first.verdict == "partly" and "not beyond doubt" in first.say


def test_what_a_sweep_has_no_runs_for_is_said_and_not_drawn(tmp_path: Path) -> None:
    cell(tmp_path / "one", "only", result({"relu": (1.0, 0.44)}))
    found = read_sweep(tmp_path / "one")
    for number in (1, 2, 5, 6, 7, 8):
        figure = FIGURES[number](found)
        assert not figure.panels and figure.claim
    *others, sticky, again = verdicts(found)
    assert {*others, again} == {"not measured"} and sticky == "holds", "refreshes are in every run"


def test_differences_without_noise_are_no_claim_that_holds(tmp_path: Path) -> None:
    folder = article(tmp_path / "sweep")
    both = {"relu": PLANE["relu"], "smelu:beta=1": PLANE["smelu:beta=1"]}
    cell(folder, "grid=noise,source=none again", result(both), window=0, init="same")
    (folder / "cells" / "grid=noise,source=none" / "result.json").unlink()
    assert verdicts(read_sweep(folder))[6] == "not"


def test_silent_runs_are_drawn_where_nothing_is_divided_by_0(tmp_path: Path) -> None:
    cell(tmp_path / "silent", "a", silent(PLANE), window=0)
    found = read_sweep(tmp_path / "silent")
    figures = {number: draw(found) for number, draw in FIGURES.items()}
    assert [number for number, figure in figures.items() if figure.panels] == [2, 3, 4, 9, 10]
    assert [panel.name for panel in figures[2].panels] == ["beta-pd", "beta-pair", "beta-log-loss"]
    losses = [row for row in rows_of(figures[2].csv()) if row["panel"] == "beta-log-loss"]
    assert [float(row["y"]) for row in losses[1:]] == pytest.approx([1, 437 / 440, 435 / 440, 438 / 440, 445 / 440])
    unrelated = [f"PD of ReLU is not clearly related to {what}" for what in ("probability", "popularity")]
    assert figures[9].claim == "; ".join(unrelated)
    assert figures[10].claim == "A refresh swaps nothing under ReLU"
    assert all(float(row["x"]) == 0 for row in rows_of(figures[10].csv()))
    assert [v for v in verdicts(found) if v != "not measured"] == ["holds"], "log loss is a U all the same"


def test_results_in_markdown_name_every_command_and_show_every_figure(sweep: Sweep, tmp_path: Path) -> None:
    other = article(tmp_path / "other", world="log")
    flags = FigureFlags((sweep.folder, other), markdown=tmp_path / "docs" / "results.md")
    (page,) = run_figures(flags, ["--markdown", "docs/results.md", "A", "B"])
    text = page.read_text()
    rows = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 10 and all(line.count(" | ") == 3 for line in rows[1:])
    again = f"`flicker figures {sweep.folder} {other} --only "
    assert [line[line.index(again) :] for line in rows[1:]] == [f"{again}{n}` |" for n in (1, 1, 2, 2, 8, 6, 7, 8, 1)]
    assert "\nflicker sweep --out made\nflicker sweep --out other\n" in text
    images = re.findall(r"!\[[^]]*\]\(([^)]*)\)", text)
    assert len(images) == 18 and all((page.parent / image).exists() for image in images)


def test_dots_and_lines_are_rows_of_the_csv() -> None:
    line = Line("a", [Point(Interval(1, 0, 2), exact(5), "p"), Point(exact(3), Interval(4, 3, 9), "q")], 0)
    assert chart("c", "", [line], Axis(""), Axis("")).rows == [
        ("c", "a", "p", 1, 0, 2, 5, "", "", ""),
        ("c", "a", "q", 3, "", "", 4, 3, 9, ""),
    ]
    assert [row[6] for row in dots("d", "", [line], Axis("")).rows] == ["", ""]


def test_bad_folders_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "gone"):
        with pytest.raises(FlickerError, match=r"no sweep\.json"):
            read_sweep(tmp_path / folder)
    (tmp_path / "empty" / "sweep.json").write_text('{"command": "flicker sweep", "cells": {}}')
    with pytest.raises(FlickerError, match="no cell of it is finished"):
        read_sweep(tmp_path / "empty")
    with pytest.raises(FlickerError, match="only = 11"):
        FigureFlags((tmp_path,), only=(11,))


def test_a_real_sweep_from_end_to_end(flicker: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("simulator.sweep.backend.command", quick.command)
    tiny = "--preset smoke --events 6000 --users 80 --items 60 --batch 64 --dim 4 --hidden 8 --duplicates 2 --k 5"
    tiny += " --candidates 30 --queries 20 --arms relu smelu:beta=1 --vary window 0 4"
    assert flicker("sweep", *tiny.split(), "--out", tmp_path / "s").code == 0
    only = "--only 1 7 9 10".split()
    assert flicker("figures", tmp_path / "s", *only, "--out", tmp_path / "f").code == 0
    assert {path.stem for path in (tmp_path / "f").glob("*.svg")} == {
        "synthetic-1-plane", "synthetic-7-sources", "synthetic-9-where", "synthetic-10-churn"
    }  # fmt: skip
    assert "Without noise every difference is exactly 0" in (tmp_path / "f" / "figures.html").read_text()
