"""Finished results as settings side by side: found once each, pooled over seeds, and what differs between two."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from page.runs import Results, differing_settings, ratio_between
from simulator.result import Arm, Result, write_result
from simulator.types import Interval


def result(folder: Path, scale: float = 1.0, **config: object) -> Path:
    """A finished result of two arms."""
    measures = {"swaps.pair": Interval(0.1 * scale, 0.09 * scale, 0.11 * scale), "log_loss": Interval(0.5, 0.49, 0.51)}
    measures["refresh_swaps.pair"] = Interval(0.2, 0.18, 0.22)
    half = measures | {"swaps.pair": Interval(0.05 * scale, 0.045 * scale, 0.055 * scale)}
    paired = {"relu": {"swaps.pair": Interval(0.5, 0.45, 0.55)}}
    arms = [Arm("relu", measures), Arm("smelu:beta=1", half, against=paired)]
    folder.mkdir(parents=True)
    write_result(folder, Result(kind="live", world={"name": "w"}, arms=arms, config=dict(config)))
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two rates, two seeds each, and a cell that has not run."""
    cells = {f"lr={rate},seed={seed}": {"lr": rate, "seed": seed} for rate in ("0.1", "0.2") for seed in ("0", "1")}
    folder = tmp_path / "grid"
    for name, place in cells.items():
        model = {"lr": float(place["lr"])}
        result(folder / "cells" / name, 1.0 + float(place["seed"]), seed=int(place["seed"]), model=model)
    record = {"command": "flicker sweep", "cells": dict.fromkeys([*cells, "lr=0.3,seed=0"], []), "places": cells}
    (folder / "sweep.json").write_text(json.dumps(record))
    return folder


def test_seeds_of_a_sweep_are_one_setting_or_each_alone(sweep: Path) -> None:
    results = Results([sweep.parent])
    (alone,), (pooled,) = results.groups(pool=False).values(), results.groups(pool=True).values()
    assert len(alone) == 8 and len({each.name for each in alone}) == 8
    assert [each.words for each in pooled] == [
        "ReLU, lr 0.1", "SmeLU (beta = 1), lr 0.1", "ReLU, lr 0.2", "SmeLU (beta = 1), lr 0.2",
    ]  # fmt: skip
    assert pooled[0].arm.measures["swaps.pair"].mean == pytest.approx(0.15), "the mean of both seeds"
    assert results.problems == []


def test_settings_differ_where_they_were_told_to(sweep: Path) -> None:
    (group,) = Results([sweep]).groups(pool=True).values()
    one, same_cell, other, _ = group
    assert differing_settings(one, one) == {}
    assert differing_settings(one, other) == {"model.lr": (0.1, 0.2)}
    assert differing_settings(one, same_cell) == {"arm": ("relu", "smelu:beta=1")}


def test_ratios_are_paired_where_a_result_pairs_them(sweep: Path) -> None:
    (group,) = Results([sweep]).groups(pool=False).values()
    relu, smelu, other_seed, *_ = group
    paired, apart = ratio_between(relu, smelu, "swaps.pair"), ratio_between(relu, other_seed, "swaps.pair")
    assert paired == Interval(0.5, 0.45, 0.55)
    assert apart is not None and apart.mean == pytest.approx(2) and apart.low < 1.8 and apart.high > 2.2
    assert ratio_between(relu, smelu, "auc") is None


def test_each_result_is_found_once_and_read_again_when_it_changed(tmp_path: Path) -> None:
    first = result(tmp_path / "runs" / "deep" / "one")
    result(first / "experiment-1")
    result(first / "checkpoint" / "2")
    results = Results([tmp_path / "runs", first, first / "result.json"])
    groups = results.groups(pool=True)
    assert [*groups] == [str(first), str(first / "experiment-1")]
    held = json.loads((first / "result.json").read_text())
    held["arms"]["relu"]["log_loss"] = 0.25
    (first / "result.json").write_text(json.dumps(held))
    os.utime(first / "result.json", ns=(1, 1))
    assert results.groups(pool=True)[str(first)][0].arm.measures["log_loss"].mean == 0.25


def test_damage_is_told_and_hides_nothing_else(sweep: Path, tmp_path: Path) -> None:
    result(tmp_path / "good")
    (result(tmp_path / "bad") / "result.json").write_text("{")
    (tmp_path / "grid" / "cells" / "lr=0.1,seed=0" / "result.json").write_text("[]")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "sweep.json").write_text('{"cells": 3}')
    results = Results([tmp_path])
    groups = results.groups(pool=True)
    assert {Path(words.split()[-1]).name for words in groups} == {"good", "grid"}
    assert len(results.problems) == 3 and all("\n" not in problem for problem in results.problems)
    assert any("sweep.json" in problem for problem in results.problems)
