"""result.json: its documented schema, and figures that can be recounted from the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from simulator.config import NO_NOISE, ReplayConfig
from simulator.errors import SettingError
from simulator.experiment.evaluation import Final
from simulator.experiment.experiment import Experiment
from simulator.experiment.outcome import measure
from simulator.measures.differences import pd_of_logits
from simulator.measures.intervals import pair_index
from simulator.measures.registry import GAP
from simulator.models.baselines import BASELINES
from simulator.result import ORACLE, to_json
from tests.result_schema import assert_interval, assert_schema
from tests.small_runs import SMALL, outcome, prepared, small_replay

Run = tuple[Experiment, Final, dict[str, Any]]


@pytest.fixture(scope="module")
def run() -> Run:
    experiment = prepared(replace(SMALL, arms=("relu", "relu", "smelu:beta=1"), fleets=2, duplicates=2))
    final = experiment.run(lambda events: None, lambda: None)
    return experiment, final, to_json(measure(experiment, final))


def test_a_synthetic_result_is_of_the_documented_schema(run: Run) -> None:
    assert_schema(run[2], ["relu", "relu#2", "smelu:beta=1"], run[0].plan.generations)


def test_a_replayed_result_is_of_the_documented_schema(tmp_path: Path) -> None:
    experiment = prepared(small_replay(tmp_path / "log"))
    result = outcome(experiment)
    assert_schema(result, ["relu", "smelu:beta=1"], experiment.plan.generations)
    assert result["world"]["name"] == "log" and result["world"]["has_truth"] is False
    assert result["world"]["users"] == 50 and result["world"]["items"] == 40


def test_results_by_a_column_add_up_to_the_whole() -> None:
    """Every query is in one slice, so that shares weigh their swaps; of items there are events alone."""
    experiment = prepared(replace(SMALL, queries=200, by=("device", "category")))
    result = outcome(experiment)
    for arm in result["arms"].values():
        parts = arm["by"]["device"]
        assert len(parts) == 3 and sum(part["share"] for part in parts) == pytest.approx(1)
        for name in ("pair", "slot", "top1", "pd_candidates"):
            whole = sum(part["share"] * part["swaps"][name]["mean"] for part in parts)
            assert whole == pytest.approx(arm["swaps"][name]["mean"], rel=1e-9)
        assert [part["share"] for part in parts] == sorted((part["share"] for part in parts), reverse=True)
        items = arm["by"]["category"]
        assert not any("swaps" in part for part in items)
        assert sum(part["share"] * part["log_loss"]["mean"] for part in items) == pytest.approx(
            arm["log_loss"]["mean"], rel=1e-9
        )


def test_a_column_that_is_not_there_is_told_before_anything_is_learned() -> None:
    with pytest.raises(SettingError, match="by = country: one of user, age_group, region, item"):
        prepared(replace(SMALL, by=("country",))).check()


def test_held_out_accuracy_is_that_of_scikit_learn(run: Run) -> None:
    experiment, final, result = run
    size = len(final.logits) // 3
    for number, arm in enumerate(result["arms"].values()):
        chances = [1 / (1 + np.exp(-x.astype(float))) for x in final.logits[number * size : (number + 1) * size]]
        labels = final.held_out.label
        assert arm["log_loss"]["mean"] == pytest.approx(fmean(log_loss(labels, p) for p in chances), rel=1e-9)
        assert arm["auc"]["mean"] == pytest.approx(fmean(roc_auc_score(labels, p) for p in chances), rel=1e-9)


def test_progressive_log_loss_is_the_mean_over_generations(run: Run) -> None:
    """Each generation reports its own mean; the arm's is over all events."""
    result, learned_before, total = run[2], 0, 0.0
    for record in result["generations"]:
        events = record["events"] - learned_before
        total += events * record["arms"]["relu"]["progressive_log_loss"]["mean"]
        learned_before = record["events"]
    assert learned_before == run[0].plan.total
    mean = result["arms"]["relu"]["progressive_log_loss"]["mean"]
    assert mean == pytest.approx(total / learned_before, rel=1e-9)


def test_useful_and_useless_swaps_make_up_the_refresh_swaps(run: Run) -> None:
    for arm in run[2]["arms"].values():
        both = arm["useful_swaps"]["mean"] + arm["useless_swaps"]["mean"]
        assert both == pytest.approx(arm["refresh_swaps"]["pair"]["mean"], rel=1e-9)


def test_ratios_are_of_the_means_and_the_first_arm_is_1(run: Run) -> None:
    arms = run[2]["arms"]
    assert all(ratio["mean"] == 1 for ratio in arms["relu"]["ratio"].values())
    for arm in arms.values():
        assert arm["ratio"]["pd"]["mean"] == pytest.approx(arm["pd"]["mean"] / arms["relu"]["pd"]["mean"])
        pair = arm["refresh_swaps"]["pair"]["mean"] / arms["relu"]["refresh_swaps"]["pair"]["mean"]
        assert arm["ratio"]["refresh_pair"]["mean"] == pytest.approx(pair)


def test_every_arm_is_held_against_every_other_and_paired_with_it(run: Run) -> None:
    arms = run[2]["arms"]
    for label, arm in arms.items():
        assert arm["ratio_to"].keys() == {*arms, *run[2]["baselines"]} - {label}
        for other, ratios in ((other, ratios) for other, ratios in arm["ratio_to"].items() if other in arms):
            for name in ("pd", "log_loss", "auc", "ranking_loss"):
                found, back = ratios[name], arms[other]["ratio_to"][label][name]
                assert found["mean"] == pytest.approx(arm[name]["mean"] / arms[other][name]["mean"])
                assert found["low"] < found["mean"] < found["high"]
                assert (1 / back["high"], 1 / back["low"]) == pytest.approx((found["low"], found["high"]))
            if other == "relu":
                assert ratios.items() <= arm["ratio"].items()


def test_baselines_are_measured_on_the_same_events_and_paired_with_the_arms(run: Run) -> None:
    _, final, result = run
    for row, (name, found) in zip(final.baselines, result["baselines"].items(), strict=True):
        probabilities = 1 / (1 + np.exp(-row.astype(np.float64)))
        assert found["log_loss"]["mean"] == pytest.approx(log_loss(final.held_out.label, probabilities), rel=1e-6)
        assert found["auc"]["mean"] == pytest.approx(roc_auc_score(final.held_out.label, row))
        for arm in result["arms"].values():
            ratio, (own, its) = arm["ratio_to"][name]["log_loss"], (arm["log_loss"], found["log_loss"])
            assert ratio["mean"] == pytest.approx(own["mean"] / its["mean"])
            assert ratio["low"] < ratio["mean"] < ratio["high"]
    assert result["baselines"]["constant"]["ranking_loss"]["mean"] == pytest.approx(np.log(2))


def test_the_oracle_ranks_as_the_truth_does_and_the_gap_is_the_way_to_it(run: Run) -> None:
    _, final, result = run
    oracle, others = result["baselines"][ORACLE], [result["baselines"][name] for name in BASELINES]
    assert oracle["ndcg"]["mean"] == pytest.approx(1)
    for name, best in (("log_loss", min), ("auc", max), ("ranking_loss", min)):
        assert oracle[name]["mean"] == best(each[name]["mean"] for each in (oracle, *others, *result["arms"].values()))
    start, end = min(each["log_loss"]["mean"] for each in others), oracle["log_loss"]["mean"]
    for arm in result["arms"].values():
        gap = arm[GAP]
        assert gap["mean"] == pytest.approx((start - arm["log_loss"]["mean"]) / (start - end))
        assert gap["low"] < gap["mean"] < gap["high"]


def test_of_these_very_models_users_alone_are_uncertain(run: Run) -> None:
    """The interval over users, by a plain bootstrap of them."""
    experiment, final, result = run
    users = np.array([query.user for query in final.queries])
    models = experiment.shape.models(0)
    (ranked,) = final.after.parts
    pairs = [ranked.positions[a][:, :, None] < ranked.positions[a][:, None] for a in models.flat]
    swapped = np.mean([(pairs[a] != pairs[a + 1]).mean((1, 2)) * 30 / 29 for a in (0, 2)], axis=0)  # [Q], by fleet
    known, index = np.unique(users, return_inverse=True)
    sums, counts = (np.bincount(index, weights) for weights in (swapped, np.ones(len(users))))
    drawn = np.random.default_rng(1).integers(len(known), size=(4_000, len(known)))
    spread = (sums[drawn].sum(1) / counts[drawn].sum(1)).std()
    found = result["arms"]["relu"]["swaps_these"]["pair"]
    assert found["mean"] == pytest.approx(swapped.mean()) == result["arms"]["relu"]["swaps"]["pair"]["mean"]
    assert (found["high"] - found["low"]) / 2 == pytest.approx(2.04 * spread, rel=0.15)


def test_clicks_per_slate_and_costs_are_counted(run: Run) -> None:
    experiment, _, result = run
    clicks, seconds = experiment.state.clicks, sum(experiment.state.compute)
    for label, arm in result["arms"].items():
        assert arm["clicks_per_slate"]["mean"] == pytest.approx(fmean(clicks[label]))
        learned = experiment.plan.total * 4  # by two duplicates of two fleets
        assert arm["events_per_second"] == pytest.approx(learned / arm["train_seconds"])
    assert sum(arm["train_seconds"] for arm in result["arms"].values()) == pytest.approx(seconds)


def test_an_arm_that_showed_no_slate_has_no_clicks(run: Run) -> None:
    experiment, final, _ = run
    kept = experiment.state.clicks
    experiment.state.clicks = kept | {"relu": []}
    try:
        assert "clicks_per_slate" not in measure(experiment, final).arms[0].measures
    finally:
        experiment.state.clicks = kept


def test_the_example_is_the_middle_one_of_the_queries_that_differ(tmp_path: Path) -> None:
    experiment = prepared(small_replay(tmp_path / "log"))
    final = experiment.run(lambda events: None, lambda: None)
    found, after = to_json(measure(experiment, final))["example"], final.after
    changed = []
    for place, query in enumerate(final.queries):
        (part,) = after.parts
        scored = [dict(zip(query.candidates.tolist(), part.scores[m, place].tolist(), strict=True)) for m in (0, 1)]
        slates = [sorted(scores, key=lambda item: (-scores[item], item))[:5] for scores in scored]  # noqa: B023
        share = sum(one != two for one, two in zip(*slates, strict=True))
        if share:
            changed.append((share, place, query.user, slates, scored))
    changed.sort(key=lambda each: each[:2])
    _, _, user, slates, scored = changed[(len(changed) - 1) // 2]
    assert (found["queries"], found["differ"], found["arm"], found["duplicates"]) == (40, len(changed), "relu", [0, 1])
    rows = (tmp_path / "log" / "ratings.dat").read_text().splitlines()
    assert found["user"] == list(dict.fromkeys(row.split("::")[0] for row in rows))[user]
    items = list(dict.fromkeys(row.split("::")[1] for row in rows))
    for shown, slate, scores in zip(found["slates"], slates, scored, strict=True):
        assert [(place["item"], place["score"]) for place in shown] == [(items[i], scores[i]) for i in slate]
        assert [place["title"] for place in shown] == [f"Film {items[i]} ({1980 + int(items[i])})" for i in slate]


def test_the_example_of_a_made_up_world_says_the_situation(run: Run) -> None:
    example = run[2]["example"]
    assert example["context"].keys() == {"device", "hour", "position"} and example["user"].isdecimal()
    assert all(place["title"] == f"item {place['item']}" for slate in example["slates"] for place in slate)


def test_without_a_slate_that_differs_there_is_no_example() -> None:
    noiseless = replace(SMALL, noise=NO_NOISE, duplicates=2)
    assert outcome(prepared(noiseless))["example"] is None


def test_a_log_of_engagements_only_has_no_auc(tmp_path: Path) -> None:
    """A log with labels that are all 1: AUC is 0 / 0, and so is its ratio."""
    rows = [f"{n % 7},{n % 12},{n},1" for n in range(1_500)]
    (tmp_path / "log.csv").write_text("\n".join(["u,i,t,y", *rows]) + "\n")
    (tmp_path / "log.toml").write_text('log = "log.csv"\nuser = "u"\nitem = "i"\ntime = "t"\nlabel = "y"\n')
    world, model = ReplayConfig(tmp_path / "log.toml"), replace(SMALL.model, batch=16)
    result = outcome(prepared(replace(SMALL, world=world, candidates=10, model=model)))
    arm = result["arms"]["smelu:beta=1"]
    assert "auc" not in arm and "auc" not in arm["ratio"]
    assert_interval(arm["log_loss"], "log_loss", 0)


def test_notes_say_what_the_intervals_cover(run: Run) -> None:
    note = run[2]["notes"][0]
    assert "600 held-out events and 40 queries of 30 candidates, slates of 5" in note
    assert "over fleets, their duplicates, and users" in note
    assert "duplicates and users, given this one fleet's initialisation" in outcome(prepared(SMALL))["notes"][0]


def test_of_many_duplicates_a_sample_of_pairs_is_compared_and_a_note_says_so() -> None:
    config = replace(SMALL, duplicates=5, partners=2, generations=2, seed=3)
    experiment = prepared(config)
    final = experiment.run(lambda events: None, lambda: None)
    result = to_json(measure(experiment, final))
    pairs = list(zip(*pair_index(5, 2, seed=3), strict=True))
    assert len(pairs) == 5
    for number, arm in enumerate(result["arms"].values()):
        logits = final.logits[5 * number : 5 * number + 5]
        expected = fmean(float(pd_of_logits(logits[one], logits[other]).mean()) for one, other in pairs)
        assert arm["pd"]["mean"] == pytest.approx(expected, rel=1e-9)
    note = "Each duplicate was compared with 2 of the 4 others of its fleet, drawn from the seed."
    assert note in result["notes"] and note not in to_json(outcome(prepared(replace(config, partners=4))))["notes"]
