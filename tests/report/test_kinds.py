"""The page draws what a result holds, whichever door it comes from, and new measures by themselves."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from simulator.measures.registry import MEASURES, Measure
from simulator.report import write_report
from simulator.report.finding import truths
from simulator.report.page import page
from simulator.result import ORACLE, Arm, Result, from_json, read_result, write_result
from simulator.terminal import tables
from simulator.types import Interval
from tests.report.fake_results import fake_result, write
from tests.report.parsed import Page
from tests.result_schema import assert_documented
from tests.small_runs import SMALL, outcome, prepared
from tests.terminal import Terminal


def test_a_measure_of_one_entry_is_in_result_page_and_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    last = Measure(
        "last", "last-place swaps", "Whether the last place of the slate holds another item.",
        lambda a, b: ((a.slates[:, -1] != b.slates[:, -1]).astype(float), np.ones(len(a.slates))),
    )  # fmt: skip
    monkeypatch.setitem(MEASURES, "last", last)
    config = replace(SMALL, duplicates=2, generations=2, arms=("relu", "linear"))
    result = from_json(Result, {name: value for name, value in outcome(prepared(config)).items() if name != "schema"})
    for cause in ("swaps", "refresh_swaps", "both_swaps"):
        assert 0 < result.arms[0].measures[f"{cause}.last"].mean <= 1
    text = page(result)
    assert "Last-place swaps</figcaption>" in text and last.about in text and "<code>swaps.last</code>" in text
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(*tables(result, 120))
    assert "last-place swaps" in console.export_text()


def test_baselines_stand_below_the_arms_and_have_no_swaps(tmp_path: Path) -> None:
    found = replace(
        read_result(write(tmp_path, fake_result())), baselines={"constant": {"log_loss": Interval(0.61, 0.6, 0.62)}}
    )
    head, *arms, constant = Page(page(found)).rows
    assert len(arms) == 3 and constant[0] == "constant baseline"
    row = dict(zip(head, constant, strict=True))
    assert row["log loss"] == "0.6100 (0.6000 to 0.6200)" and row["pair swaps"] == row["AUC"] == "–"


def test_what_is_known_of_a_made_up_world_is_said() -> None:
    """The truth, and whether an additive arm is worse than the most accurate one that is not."""
    oracle = {"log_loss": Interval(0.4, 0.39, 0.41), "auc": Interval(0.83, 0.83, 0.83)}
    world = {"name": "synthetic", "shares": {"user": 0.25, "user x item": 0.5, "rest": 0.25}}

    def arm(spec: str, loss: float, **design: str) -> Arm:
        return Arm(spec, {"log_loss": Interval(loss, loss - 0.01, loss + 0.01)}, design=design)

    additive, deep = arm("linear:norm=none", 0.6, norm="none"), arm("gelu", 0.45, norm="after")
    others = [arm("relu", 0.5, norm="after"), arm("linear", 0.46, norm="after"), deep]
    for ratio, verdict in (((1.2, 1.1, 1.3), "pays"), ((0.9, 0.8, 0.95), "does not pay"), ((1, 0.9, 1.1), "no gain")):
        paired = replace(additive, against={"gelu": {"log_loss": Interval(*ratio)}})
        shares, truth, depth = truths(Result("run", world, [*others, paired], baselines={"oracle": oracle}))
        assert "25.0\N{NO-BREAK SPACE}% user, 50.0\N{NO-BREAK SPACE}% user x item" in shares
        assert truth.endswith("log loss 0.4000 (0.3900 to 0.4100), AUC 0.8300.")
        assert verdict in depth and f"{ratio[0]:.4f} ({ratio[1]:.4f}" in depth and "GELU, the most accurate" in depth
    assert truths(Result("run", {"name": "log"}, others)) == []
    baselines = {"constant": {"log_loss": Interval(0.6, 0.59, 0.61)}, ORACLE: oracle}
    drawn = Console(width=120, record=True, file=io.StringIO())
    drawn.print(*tables(Result("run", world, others, baselines=baselines), 120))
    said = [line.split() for line in drawn.export_text().splitlines()]
    assert ["constant", "0.6000", "–"] in said and ["oracle", "0.4000", "0.8300"] in said


def test_results_by_a_column_are_a_table(tmp_path: Path) -> None:
    result = fake_result({"relu": (1.0, 0.43), "gelu": (0.5, 0.42)})
    for spec, swaps in (("relu", 0.25), ("gelu", 0.125)):
        slices = [{"value": value, "share": 0.5, "swaps": {"pair": swaps}} for value in ("France", "<i>")]
        result["arms"][spec]["by"] = {"country": slices}
    text = write_report(write(tmp_path, result)).read_text()
    assert "<h3>By country</h3>" in text and '<th scope="row">France</th><td>ReLU</td>' in text
    assert "<td>0.125</td>" in text and "&lt;i&gt;" in text and "<i>" not in text


@pytest.mark.parametrize("kind", ["live", "compare"])
def test_a_result_of_swaps_alone_has_a_page(tmp_path: Path, kind: str) -> None:
    arms = [
        Arm("relu", {"swaps.pair": Interval(0.2, 0.1, 0.3)}),
        Arm("gelu", {"swaps.pair": Interval(0.1, 0.09, 0.11)}),
    ]
    for held in (arms, arms[:1], [Arm("relu")]):
        write_result(tmp_path, Result(kind, {"name": "log"}, held))  # type: ignore[arg-type]
        text = write_report(tmp_path).read_text()
        assert Page(text).open == [] and "Not in this result: accuracy, without which instability says little." in text
    assert "No comparisons yet" in text


def test_what_compare_leaves_is_documented_and_drawn_again(flicker: Terminal, tmp_path: Path) -> None:
    for name, turn in (("a", 1), ("b", -1)):
        rows = [f"q{q},i{item},{turn * item + q}" for q in range(4) for item in range(6)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["q_id,doc_id,score", *rows]) + "\n")
    said = flicker("compare", tmp_path / "a.csv", tmp_path / "b.csv", "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert_documented(json.loads((tmp_path / "out" / "result.json").read_text()))
    before = (tmp_path / "out" / "report.html").read_bytes()
    assert flicker("report", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "report.html").read_bytes() == before
    assert read_result(tmp_path / "out").arms[0].measures["swaps.pair"].mean == 1.0
