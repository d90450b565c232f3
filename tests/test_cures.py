"""Whole runs of arms with a cure: what is compared is what is served, and what it costs is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.config import NO_NOISE, NoiseConfig
from simulator.experiment import folder as folder_module
from simulator.experiment.experiment import Experiment
from tests.interrupted import cut_off, resumed
from tests.result_schema import assert_schema
from tests.small_runs import SMALL, outcome, prepared, timeless

ARMS = (
    "relu",
    "ensemble:relu:m=3",
    "ensemble:relu:m=2,narrow",
    "codistill:relu",
    "antidistill:relu:m=2",
    "anchor:relu",
    "average:relu",
    "fresh:relu:last=1",
    "ensemble:relu:m=1",
)
# so many queries that some slates of any two models have two items in common
SHUFFLED = replace(SMALL, arms=ARMS, duplicates=2, noise=NoiseConfig(window=4, lost=0.1), queries_per_generation=20)
Run = tuple[Experiment, dict[str, Any]]


@pytest.fixture(scope="module")
def run() -> Run:
    experiment = prepared(SHUFFLED)
    return experiment, outcome(experiment)


def test_a_result_with_every_cure_is_of_the_documented_schema(run: Run) -> None:
    assert_schema(run[1], list(ARMS), run[0].plan.generations)


def test_an_ensemble_of_one_is_the_plain_arm(run: Run) -> None:
    one, plain = (timeless(run[1])["arms"][spec] for spec in ("ensemble:relu:m=1", "relu"))
    for name in ("clicks_per_slate", "ratio"):
        del one[name], plain[name]
    assert one["ratio_to"].pop("relu") == plain["ratio_to"].pop("ensemble:relu:m=1")
    assert one == plain


def test_every_other_cure_makes_another_model(run: Run) -> None:
    losses = [run[1]["arms"][spec]["log_loss"]["mean"] for spec in ARMS[:-1]]
    assert len(set(losses)) == len(losses)


def test_without_noise_nothing_differs_whatever_the_cure() -> None:
    result = outcome(prepared(replace(SHUFFLED, noise=NO_NOISE)))
    for spec, arm in result["arms"].items():
        assert arm["pd"]["mean"] == 0, spec
        assert all(swaps["mean"] == 0 for swaps in arm["swaps"].values()), spec
        assert arm["refresh_swaps"]["pair"]["mean"] > 0, spec


def test_a_run_cut_off_goes_on_with_identical_numbers(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "CHECKPOINT_SHARE", float("inf"))
    for generation in (1, 2):
        cut_off(SHUFFLED, tmp_path / str(generation), generation)
        assert timeless(outcome(resumed(SHUFFLED, tmp_path / str(generation)))) == timeless(run[1])


def test_costs_are_those_of_what_is_served(run: Run) -> None:
    arms, plain = run[1]["arms"], run[1]["arms"]["relu"]
    assert plain["lookups"] == SMALL.candidates * run[0].world.schema.slots
    for spec, parts in {
        "ensemble:relu:m=3": 3,
        "antidistill:relu:m=2": 2,
        "codistill:relu": 1,
        "average:relu": 1,
    }.items():
        for name in ("parameters", "lookups", "model_bytes"):
            assert arms[spec][name] == parts * plain[name], (spec, name)
    for spec, parts in {"ensemble:relu:m=3": 3, "antidistill:relu:m=2": 2, "codistill:relu": 2}.items():
        assert arms[spec]["train_bytes"] == parts * plain["train_bytes"] > arms[spec]["model_bytes"], spec
    for spec in ("anchor:relu", "average:relu"):
        assert arms[spec]["train_bytes"] == plain["train_bytes"] + plain["model_bytes"], spec
    narrow = arms["ensemble:relu:m=2,narrow"]
    assert narrow["lookups"] == 2 * plain["lookups"]
    assert 0.8 * plain["parameters"] < narrow["parameters"] <= plain["parameters"]


def test_served_models_stand_in_the_order_of_the_arms(run: Run) -> None:
    """Fleets and duplicates of each arm in turn."""
    experiment = run[0]
    features = next(experiment.world.batches(50)).features
    scores = experiment.engines.score_events(features)
    assert len(scores) == len(ARMS) * 2
    by_arm = scores.reshape(len(ARMS), 2, -1)
    narrow = experiment.engines.engines[2]
    assert narrow.arm.spec == "ensemble:relu:m=2,narrow" and narrow.model.dim == SMALL.model.dim // 2
    assert np.array_equal(by_arm[0], by_arm[-1])
    assert np.array_equal(by_arm[2], narrow.score_events(features))
