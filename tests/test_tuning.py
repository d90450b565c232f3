"""lr=tuned: the rate of least log loss on an early part of the log, which then counts in no result."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simulator import tuning
from simulator.errors import SettingError
from simulator.experiment.experiment import Experiment
from simulator.measures.quality import log_loss
from simulator.models.engines import Engines
from simulator.models.specs import parse_arms
from simulator.tuning import Tuned, tune
from simulator.world.open import open_world
from tests.small_runs import SMALL, outcome
from tests.terminal import SMALL_RUN, Terminal

SPEC = "smelu:beta=1,lr=tuned"
CONFIG = replace(SMALL, arms=("relu", SPEC))
WORLD = open_world(CONFIG.world, CONFIG.seed)


def loss_at(rate: float) -> float:
    """Of one model alone, event by event, by the definition."""
    engines = Engines(WORLD.schema, parse_arms((f"smelu:beta=1,lr={rate:g}",)), CONFIG, subset=slice(1))
    losses = [log_loss(engines.learn(chunk), chunk.label)[0] for chunk in WORLD.batches(engines.chunk_events, 0, 1_800)]
    return float(np.concatenate(losses)[600:].mean())


def test_the_rate_is_that_of_least_log_loss_on_events_10_to_30_percent() -> None:
    seen: list[tuple[str, int, int]] = []
    found = tune(CONFIG, WORLD, lambda *what: seen.append(what))
    assert found.keys() == {SPEC}
    rate, losses = found[SPEC].rate, found[SPEC].losses
    assert losses[rate] == min(losses.values()) and set(tuning.GRID) <= losses.keys()
    assert min(losses) < rate < max(losses), "a best rate at an end extends the grid"
    for each in (rate, min(losses)):
        assert losses[each] == pytest.approx(loss_at(each), rel=1e-6)
    assert seen[-1] == (f"tuning {SPEC}", 1_800, 1_800)


def test_a_grid_that_lies_aside_is_extended_until_its_best_is_within(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tune(CONFIG, WORLD)[SPEC]
    monkeypatch.setattr(tuning, "GRID", (whole.rate / 16, whole.rate / 8))
    assert tune(CONFIG, WORLD)[SPEC].rate == pytest.approx(whole.rate)


def test_a_rate_that_diverges_is_no_choice_and_none_at_all_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "GRID", (0.01, 1e30))
    config = replace(CONFIG, arms=("relu:norm=none,lr=tuned",))
    (found,) = tune(config, WORLD).values()
    assert math.isinf(found.losses[1e30]) and found.rate < 1 and found.as_dict()["losses"]["1e+30"] is None
    monkeypatch.setattr(tuning, "GRID", (1e30, 1e31))
    with pytest.raises(SettingError, match="lr = tuned: learning diverges at every rate from 1e\\+30 on"):
        tune(config, WORLD)


def test_a_log_too_short_to_choose_on_is_one_line() -> None:
    short = open_world(replace(CONFIG.world, events=1_270), CONFIG.seed)  # type: ignore[type-var]
    with pytest.raises(SettingError, match="lr = tuned: asks for 1,280 events or more, here are 1,270: name a rate"):
        tune(CONFIG, short)


def test_what_cannot_be_is_refused_before_minutes_of_tuning(flicker: Terminal, tmp_path: Path) -> None:
    asked = ("--preset", "smoke", "--arms", "relu:lr=tuned")
    late = flicker("run", *asked, "relu:engine=native,norm=weight", "--out", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    full = flicker("up", *asked, "--for", "10", "--out", tmp_path / "full")
    several = flicker("up", *asked, "ensemble:relu:m=2", "--for", "10", "--out", tmp_path / "up")
    for said, words in ((late, "it has no norm = weight"), (full, "is not empty"), (several, "not served live")):
        assert said.code == 2 and words in said.err and "tuning" not in said.out
    assert not (tmp_path / "out").exists() and not (tmp_path / "up").exists()


def test_what_chose_the_rate_counts_in_no_result() -> None:
    fixed, tuned = replace(CONFIG, arms=("relu", "smelu:beta=1,lr=0.02")), {SPEC: 0.02}
    plain, chosen = Experiment(fixed, WORLD), Experiment(CONFIG, WORLD, tuned)
    before, after = outcome(plain), outcome(chosen)
    assert chosen.counted_from == 1_800
    assert chosen.state.scored == plain.state.scored > chosen.state.counted > 0
    # the same models in the end: what is measured on held-out events is the same
    assert after["arms"][SPEC]["pd"] == before["arms"]["smelu:beta=1,lr=0.02"]["pd"]
    assert after["arms"]["relu"]["log_loss"] == before["arms"]["relu"]["log_loss"]
    # later events are predicted better: the mean without the first ones is lower
    first, second = (result["arms"]["relu"]["progressive_log_loss"]["mean"] for result in (before, after))
    assert second < first
    counted = {each["generation"]: each for each in after["generations"]}
    assert counted.keys() < {each["generation"] for each in before["generations"]}
    assert any("chose the learning rates" in note for note in after["notes"])


def test_an_arm_without_its_rate_is_refused() -> None:
    with pytest.raises(SettingError, match="lr = tuned: give a rate here"):
        Engines(WORLD.schema, parse_arms((SPEC,)), CONFIG)


def test_a_table_of_any_arms_has_the_best_on_top(flicker: Terminal) -> None:
    said = flicker("tune", *SMALL_RUN, "--events", "4000", "--arms", "relu:lr=0.001", "relu:norm=none,lr=0.03")
    assert said.code == 0, said.err
    lines = [line for line in said.out.splitlines() if "lr=" in line]
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    losses = {arm: float(loss) for arm, loss, _ in rows}
    assert list(losses) == ["relu:norm=none,lr=0.03", "relu:lr=0.001"] and rows[0][2] == "1.0000"
    assert float(rows[1][2]) == pytest.approx(losses["relu:lr=0.001"] / losses["relu:norm=none,lr=0.03"], abs=1e-4)
    assert flicker("tune", *SMALL_RUN, "--arms", "relu:lr=tuned").code == 2


def test_the_rate_stands_in_config_json_and_a_resumed_run_keeps_it(flicker: Terminal, tmp_path: Path) -> None:
    said = flicker("run", *SMALL_RUN, "--events", "4000", "--arms", "relu", "relu:lr=tuned", "--out", tmp_path / "out")
    assert said.code == 0 and "relu:lr=tuned: learning rate" in said.out
    held = json.loads((tmp_path / "out" / "config.json").read_text())
    rate = held["tuned"]["relu:lr=tuned"]["rate"]
    assert held["arms"]["relu:lr=tuned"]["learning_rate"] == rate != held["arms"]["relu"]["learning_rate"]
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["arms"]["relu:lr=tuned"]["design"]["learning_rate"] == rate
    assert (
        str(Tuned(0.02, {0.02: 0.5, 0.04: 0.6})) == "learning rate 0.02 (log loss by rate: 0.02: 0.5000, 0.04: 0.6000)"
    )
