"""What figures say about a made-up sweep, with narrow intervals and with wide ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from simulator.figures.conditions import _against
from simulator.figures.costs import cost_table
from simulator.figures.main import FIGURES, FigureFlags, run_figures
from simulator.figures.pages import table
from simulator.figures.sweep import read_sweep
from simulator.measures.intervals import Interval
from tests.figures.fake_sweep import PLANE, Json, article, cell, changed, result, rows_of
from tests.figures.made import about, arm
from tests.report.fake_results import spread


def test_no_claim_about_sizes_holds_by_wide_intervals(tmp_path: Path) -> None:
    """The means that make every claim hold, with intervals twenty times as wide: what is left holds at any width."""
    folder = article(tmp_path / "sweep")

    def widen(arm: Json) -> None:
        for name, ratio in (
            pair for one in (arm.get("ratio", {}), *arm.get("ratio_to", {}).values()) for pair in one.items()
        ):
            if ratio and "mean" in ratio:
                ratio |= spread(ratio["mean"], 0.02 if name.endswith("_loss") else 1.0)

    assert [row.findings[0].verdict for row in table([read_sweep(folder)])] == ["holds"] * 9
    wide = [row.findings[0].verdict for row in table([changed(folder, widen)])]
    assert wide == ["partly", "partly", "partly", "partly", "partly", "not", "holds", "holds", "not measured"]


def test_training_over_time_is_told_by_intervals_without_the_last_generation(tmp_path: Path) -> None:
    folder = article(tmp_path / "sweep")
    figure = FIGURES[5](read_sweep(folder))
    assert figure.claim.startswith("PD of ReLU falls over training, from 0.227 to 0.173; SmeLU (beta = 1) has less")
    assert "less after 3 of 3 generations, with intervals apart after 3;" in figure.claim
    assert figure.claim.endswith("at a refresh it swaps 0.40 (0.38 to 0.42) times as many pairs as ReLU")
    assert {row["x"] for row in rows_of(figure.csv())} == {"45.0", "90.0", "135.0"} and "not drawn" in figure.note

    def widen(arm: Json) -> None:
        arm["pd"] = spread(arm["pd"]["mean"], 0.6)

    claim = FIGURES[5](changed(folder, widen)).claim
    assert claim.startswith("PD of ReLU neither clearly rises nor falls over training, from 0.227 to 0.173")
    assert "has less after 3 of 3 generations, with intervals apart after 0" in claim


def test_groups_and_shares_are_counted_where_intervals_are_apart(tmp_path: Path) -> None:
    folder = article(tmp_path / "sweep")
    assert FIGURES[9](read_sweep(folder)).claim.endswith("SmeLU (beta = 1) has clearly less PD in 10 of 10 groups")
    assert "goes towards the truth, clearly less than away from it; " in FIGURES[10](read_sweep(folder)).claim

    def widen(arm: Json) -> None:
        for bucket in arm.get("pd_by_score", []):
            bucket["pd"] = spread(bucket["pd"]["mean"], 0.9)
        if "useful_swaps" in arm:
            arm["useful_swaps"] = spread(arm["useful_swaps"]["mean"], 1.5)

    wide = changed(folder, widen)
    assert FIGURES[9](wide).claim.endswith("SmeLU (beta = 1) has clearly less PD in 5 of 10 groups")
    assert FIGURES[10](wide).claim.startswith(
        "33.3\u00a0% of what a refresh swaps under ReLU goes towards the truth, not clearly more or less than away"
    )


def test_what_is_drawn_and_what_is_not_stands_under_every_figure(tmp_path: Path) -> None:
    """Seeds 2, 0, 1 and windows of 128 and 16, with as many arms each: all seeds of 16 are drawn, as one."""
    for seed in (2, 0, 1):
        for window in (128, 16):
            name = f"seed={seed},window={window}"
            cell(tmp_path / "seeds", name, result(PLANE), window=window)
            path = tmp_path / "seeds" / "cells" / name / "config.json"
            config = json.loads(path.read_text())
            config["config"]["seed"] = seed
            path.write_text(json.dumps(config))
    found = read_sweep(tmp_path / "seeds")
    (drawn,) = found.main()
    assert (drawn.config["seed"], drawn.config["noise"]["window"]) == (0, 16)
    here = "(seed 0, 1, 2; window 16; init same; norm after; fleets 1); the other 3 in other figures or in none."
    for number in (1, 2, 5, 9, 10):
        assert FIGURES[number](found).note.endswith(f"Drawn: 3 of 6 runs {here}"), number
    both = "Drawn: 6 of 6 runs (seed 0, 1, 2; window 16, 128; init same; norm after; fleets 1)."
    assert both in FIGURES[6](found).note


def test_costs_are_a_table_of_all_cures_beside_the_figure(tmp_path: Path) -> None:
    folder = article(tmp_path / "sweep")
    table_ = FIGURES[8](read_sweep(folder)).table
    assert table_ and table_.heads[1:] == [
        "PD", "log loss", "parameters", "look-ups per query", "training time", "scoring time", "memory in serving"
    ]  # fmt: skip
    rows = {row[0]: row[1:] for row in table_.rows}
    assert list(rows) == [
        "ReLU", "SmeLU (beta = 1)", "Identity", "ReLU, ensemble (m = 2)", "ReLU, ensemble (m = 3)",
        "SmeLU, ensemble (beta = 1, m = 2)", "ReLU, co-distilled (m = 2)"
    ]  # fmt: skip
    assert rows["ReLU"][2:] == ["1,248,321", "200", "41.3 s", "1.00 ms", "0.004 MB"]
    assert rows["ReLU, ensemble (m = 3)"] == [
        "0.70 (0.66 to 0.73)", "0.9886 (0.9876 to 0.9896)", "× 1.00", "× 3.00", "× 1.00", "× 3.00", "× 3.00"
    ]  # fmt: skip
    assert "two forward passes" in FIGURES[8](read_sweep(folder)).note
    page, text = tmp_path / "f" / "figures.html", tmp_path / "d" / "results.md"
    run_figures(FigureFlags((folder,), out=page.parent, only=(8,)), [])
    run_figures(FigureFlags((folder,), markdown=text, only=(8,)), [])
    assert '<th scope="row">ReLU, ensemble (m = 3)</th><td>0.70 (0.66 to 0.73)</td>' in page.read_text()
    assert "| ReLU, ensemble (m = 3) | 0.70 (0.66 to 0.73) | 0.9886 (0.9876 to 0.9896) | × 1.00 |" in text.read_text()


def test_memory_in_training_is_a_column_where_it_was_measured() -> None:
    relu = replace(arm("relu"), costs={"parameters": 1000, "train_bytes": 2e7, "lookups": 200})
    made = replace(arm("anchor:relu", about(0.7, 0.1)), costs={"parameters": 1000, "train_bytes": 3e7})
    found = cost_table({"relu": relu, "anchor:relu": made}, {"relu": relu, "anchor:relu": relu})
    assert found.heads[3:] == ["parameters", "look-ups per query", "memory in training"]
    assert [row[3:] for row in found.rows] == [["1,000", "200", "20 MB"], ["× 1.00", "–", "× 1.50"]]


def test_sticky_routing_is_weighed_by_how_many_duplicates_there_are(tmp_path: Path) -> None:
    """Of four duplicates the same one answers again in a quarter of cases; a refresh at 1.3 times a typical swap."""
    folder = article(tmp_path / "sweep")
    found = table([read_sweep(folder)])[7].findings[0]
    assert found.verdict == "holds" and "By construction" in found.say
    assert f"Under ReLU {0.75 * 0.085:.4f} (" in found.say  # 3/4 of swaps, then 1/4 of a refresh and 3/4 of both
    assert f"random routing, {0.25 * 1.3 * 0.085 + 0.75 * 1.5 * 0.085:.3f} (" in found.say
    refresh = changed(folder, lambda arm: arm["refresh_swaps"].update(pair=spread(0.5)))
    assert table([refresh])[7].findings[0].verdict == "not"
    few = {"mean": 0.01, "low": 0, "high": 0.03}
    unclear = changed(folder, lambda arm: [arm[name].update(pair=few) for name in ("refresh_swaps", "swaps")])
    assert table([unclear])[7].findings[0].verdict == "partly"
    none = changed(folder, lambda arm: arm["swaps"].update(pair=0))
    assert table([none])[7].findings[0].verdict == "not measured"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Interval(1.10, 0.80, 1.40), "gain lost"),
        (Interval(0.95, 0.85, 1.05), "less gain, no longer beyond doubt"),
        (Interval(0.50, 0.20, 1.10), "gain no longer beyond doubt"),
        (Interval(0.70, 0.60, 0.80), "less gain"),
        (Interval(0.45, 0.35, 0.60), "no clear change"),
        (Interval(0.20, 0.18, 0.22), "more gain"),
    ],
)
def test_a_gain_is_lost_only_where_none_is_left(value: Interval, said: str) -> None:
    assert _against(value, Interval(0.42, 0.37, 0.49)) == said
