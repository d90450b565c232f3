"""The story: what is learned in which order, exact repeatability, the null experiments, and the effect itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.compute
import pyarrow.parquet
import pytest
import torch
from torch import nn
from torch.nn import functional

from simulator.config import NO_NOISE, ExperimentConfig, ModelConfig, NoiseConfig, ReplayConfig, SyntheticConfig
from simulator.errors import DataError, SettingError
from simulator.experiment.experiment import Experiment
from simulator.experiment.outcome import measure
from simulator.measures.registry import MEASURES
from simulator.models import activations
from simulator.predictions.keep import keep_predictions
from simulator.result import to_json
from simulator.types import Batch
from simulator.world.clicklog import Feature
from simulator.world.open import open_world
from tests.result_schema import assert_schema
from tests.small_runs import SMALL, outcome, prepared, small_log, small_replay, timeless
from tests.terminal import SMALL_RUN, Terminal
from tests.world.made_logs import DEVICES, log_of, pages, world_of

SWAPS = tuple(MEASURES)


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return outcome(prepared(SMALL))


def learned_by(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> list[list[Batch]]:
    """Chunks that the engines are given, by generation, while the experiment runs."""
    generations: list[list[Batch]] = [[]]
    learn = experiment.engines.learn

    def spy(chunk: Batch) -> Any:
        generations[-1].append(chunk)
        return learn(chunk)

    monkeypatch.setattr(experiment.engines, "learn", spy)
    experiment.run(lambda events: None, lambda: generations.append([]))
    return generations


def assert_same_events(found: Batch, expected: Batch) -> None:
    for name in ("user", "item", "time", "features", "label"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


def test_a_synthetic_world_is_learned_once_in_order_and_clicks_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = prepared(SMALL)
    plan, world = experiment.plan, experiment.world
    flows = [Batch.concatenate(chunks) for chunks in learned_by(experiment, monkeypatch)]
    feedback = SMALL.queries_per_generation * SMALL.k
    assert [len(flow) for flow in flows[:-1]] == [plan.size] * (plan.generations - 1)
    assert sum(map(len, flows)) == plan.total == experiment.state.scored
    own = [flows[0], *(flow[feedback:] for flow in flows[1:])]
    assert_same_events(Batch.concatenate(own), next(world.batches(plan.learned, 0, plan.learned)))
    clicks = 0.0
    for before, flow in zip(own, flows[1:], strict=False):
        shown = flow[:feedback]
        assert before.time.max() < shown.time.min() and shown.time.max() <= flow.time[feedback]
        clicks += float(shown.label.sum())
    assert clicks == sum(map(sum, experiment.state.clicks.values())) > 0
    slates = (plan.generations - 1) * SMALL.queries_per_generation
    assert sum(map(len, experiment.state.clicks.values())) == slates


def test_a_log_is_learned_once_in_order_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = prepared(small_replay(tmp_path / "log"))
    flows = [Batch.concatenate(chunks) for chunks in learned_by(experiment, monkeypatch)]
    learned = experiment.plan.learned
    assert learned == experiment.world.events - experiment.world.events // 10 == experiment.plan.total
    assert_same_events(Batch.concatenate(flows), next(experiment.world.batches(learned, 0, learned)))


def test_the_final_measurement_is_on_the_held_out_events_that_nobody_learned() -> None:
    experiment = prepared(SMALL)
    final = experiment.run(lambda events: None, lambda: None)
    events = SMALL.world.events if isinstance(SMALL.world, SyntheticConfig) else 0
    tail = next(experiment.world.batches(events, events - events // 10))
    assert_same_events(final.held_out, tail)
    assert len(final.queries) == SMALL.queries and final.logits.shape == (6, len(tail))
    asked_live = {query.id for query in experiment.world.queries(10, 30, experiment.state.position, "live")}
    assert asked_live.isdisjoint({query.id for query in final.queries}) or experiment.state.position == len(tail) * 9


def test_the_final_queries_were_ranked_by_earlier_generations_too() -> None:
    """One, two and four refreshes before the last: what the engines said of them when a generation was cut."""
    experiment, said = prepared(replace(SMALL, generations=6)), dict[int, Any]()  # makes it five
    plan = experiment.plan

    def keep() -> None:
        queries = experiment.world.queries(SMALL.queries, SMALL.candidates, plan.learned, "final")
        said[plan.generations - experiment.state.generation] = experiment.engines.score_queries(queries)

    final = experiment.run(lambda events: None, keep)
    assert list(final.earlier) == [4, 2, 1] and plan.generations == 5
    for lag, rankings in final.earlier.items():
        np.testing.assert_array_equal(rankings.parts[0].scores, said[lag])
    assert (final.earlier[1].parts[0].scores != final.after.parts[0].scores).any()


def test_progress_ends_at_the_total_and_checkpoints_come_after_each_refresh() -> None:
    experiment, told, saved = prepared(SMALL), list[int](), list[int]()
    experiment.run(told.append, lambda: saved.append(experiment.state.generation))
    assert told == sorted(set(told)) and told[-1] == experiment.plan.total
    assert saved == list(range(1, experiment.plan.generations))


def test_arms_learn_something_that_differs_and_refreshes_change_results(result: dict[str, Any]) -> None:
    """What the null experiments below would hide: a world where everything is always 0."""
    relu, smelu = result["arms"].values()
    assert relu["swaps"] != smelu["swaps"] and relu["log_loss"] != smelu["log_loss"]
    for arm in (relu, smelu):
        assert arm["pd"]["mean"] > 0 and arm["auc"]["mean"] > 0.6
        assert arm["refresh_swaps"]["pair"]["mean"] > 0 and arm["both_swaps"]["pair"]["mean"] > 0


def assert_silent(measured: dict[str, Any]) -> None:
    nothing = {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert measured["pd"] == nothing
    assert measured["swaps"] == dict.fromkeys(SWAPS, nothing)


@pytest.mark.parametrize(("kind", "way"), [("synthetic", "auto"), ("replay", "auto"), ("synthetic", "torch")])
def test_without_noise_every_difference_between_duplicates_is_exactly_0(
    kind: str, way: Literal["auto", "torch"], tmp_path: Path
) -> None:
    config = SMALL if kind == "synthetic" else small_replay(tmp_path / "log")
    # without noise.window a generation is cut at multiples of 16 mini-batches
    model = replace(SMALL.model, batch=16, engine=way)
    found = outcome(prepared(replace(config, noise=NO_NOISE, model=model, fleets=2, duplicates=2)))
    assert len(found["generations"]) == SMALL.generations
    for label, arm in found["arms"].items():
        assert_silent(arm)
        assert arm["pd_ranking"]["high"] == arm["pd_shift"]["high"] == arm["pd_shift"]["low"] == 0
        for generation in found["generations"]:
            assert_silent(generation["arms"][label])
        assert arm["refresh_swaps"]["pair"]["mean"] > 0
        assert arm["refresh_swaps"] == arm["both_swaps"] or arm["both_swaps"]["pair"]["mean"] == pytest.approx(
            arm["refresh_swaps"]["pair"]["mean"], rel=1e-12
        )


def test_two_sets_of_one_design_differ_by_chance_only() -> None:
    """One of 20 intervals misses 1 by design: under 30 seeds that of PD missed three times, of pair swaps once."""
    found = outcome(prepared(replace(SMALL, arms=("relu", "relu"), fleets=3, duplicates=2, seed=1)))
    assert list(found["arms"]) == ["relu", "relu#2"]
    first, second = found["arms"].values()
    assert first["pd"] != second["pd"]
    for name in ("pd", "pair", "slot", "log_loss"):
        assert second["ratio"][name]["low"] <= 1 <= second["ratio"][name]["high"], name


def test_smelu_swaps_fewer_pairs_than_relu() -> None:
    """Under five seeds the ratio of pair swaps was 0.27 to 0.43 and that of PD 0.36 to 0.71."""
    world = SyntheticConfig(events=10_000, users=80, items=60)
    config = replace(SMALL, world=world, arms=("relu", "smelu:beta=2"), fleets=2, duplicates=2)
    smelu = outcome(prepared(config))["arms"]["smelu:beta=2"]["ratio"]
    assert smelu["pair"]["mean"] < 0.7 and smelu["pd"]["mean"] < 0.9


def test_the_same_config_gives_the_same_result_whatever_the_number_of_threads(
    result: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        experiment = prepared(SMALL)
        assert experiment.engines._pool._max_workers == threads
        assert timeless(outcome(experiment)) == timeless(result)


def test_another_seed_gives_another_result(result: dict[str, Any]) -> None:
    other = outcome(prepared(replace(SMALL, seed=1)))
    assert other["arms"]["relu"]["pd"] != result["arms"]["relu"]["pd"]
    assert other["generations"][0]["arms"]["relu"]["swaps"] != result["generations"][0]["arms"]["relu"]["swaps"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"candidates": 55}, "candidates = 55: at most"),
        ({"queries_per_generation": 900, "queries": 2}, "queries_per_generation = 900: at most"),
        ({"queries": 5_000}, "queries = 5000: at most"),
    ],
)
def test_queries_that_cannot_be_asked_are_found_before_anything_is_learned(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=message):
        prepared(small_replay(tmp_path / "log", **changes)).check()


def test_a_check_leaves_the_run_as_it_was(result: dict[str, Any]) -> None:
    experiment = prepared(SMALL)
    experiment.check()
    assert timeless(outcome(experiment)) == timeless(result)


def test_learning_that_diverges_names_the_arm_and_the_rate() -> None:
    model = ModelConfig(dim=4, hidden=(16, 8), batch=64, learning_rate=1e20)
    with pytest.raises(SettingError, match=r"learning_rate = 1e\+20: relu diverged within \d+ events: use a smaller"):
        prepared(replace(SMALL, model=model)).run(lambda events: None, lambda: None)


def test_a_gpu_that_is_not_there_is_named() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SettingError, match="device = cuda: no GPU"):
        prepared(replace(SMALL, device="cuda"))


def test_both_kinds_of_world_open(tmp_path: Path) -> None:
    assert open_world(SyntheticConfig(), seed=0).has_truth
    assert open_world(ReplayConfig(small_log(tmp_path / "log")), seed=0).name == "log"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens but cannot be read")
def test_a_log_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    log = small_log(tmp_path / "log")
    (log / "ratings.dat").unlink()
    (log / "ratings.dat").symlink_to("/proc/self/mem")
    with pytest.raises(DataError, match=f"{log}/ratings.dat: "):
        open_world(ReplayConfig(log), seed=0)


def test_noise_alone_sets_duplicates_apart() -> None:
    """The same run with one source switched on is not silent any more."""
    quiet = replace(SMALL, noise=NO_NOISE, model=replace(SMALL.model, batch=16), arms=("relu",), duplicates=2)
    for noise in (NoiseConfig(window=0, lost=0.1), NoiseConfig(window=0, init="own"), NoiseConfig(window=16)):
        assert outcome(prepared(replace(quiet, noise=noise)))["arms"]["relu"]["swaps"]["pair"]["mean"] > 0


def test_an_experiment_of_one_arm_has_nothing_to_compare_with() -> None:
    config = ExperimentConfig(**(vars(SMALL) | {"arms": ("relu",), "duplicates": 2, "generations": 2}))
    found = outcome(prepared(config))
    assert list(found["arms"]) == ["relu"] and found["arms"]["relu"]["ratio"]["pd"]["mean"] == 1


def test_a_new_activation_is_one_formula_from_the_command_line_to_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(activations, "REGISTRY", dict(activations.REGISTRY))
    activations.register("mish", lambda x: x * torch.tanh(functional.softplus(x)))
    world = "--events 6000 --users 80 --items 60".split()
    said = Terminal(monkeypatch, capfd)("run", *SMALL_RUN, *world, "--arms", "relu", "mish", "--out", tmp_path / "out")
    assert (said.code, said.err) == (0, "")
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    assert_schema(found, ["relu", "mish"], 3)
    curve = found["arms"]["mish"]["activation"]
    x = torch.tensor(curve["x"], dtype=torch.float64)
    np.testing.assert_allclose(curve["y"], nn.Mish()(x))
    assert found["arms"]["mish"]["log_loss"] != found["arms"]["relu"]["log_loss"]
    assert "mish" in said.out and "mish" in (tmp_path / "out" / "report.html").read_text()


def test_a_log_with_pages_positions_histories_and_weights_runs_to_its_end(tmp_path: Path) -> None:
    rows = pages(3_000)
    context = np.array([[row.device, row.position] for row in rows], np.int32)
    log = log_of(
        rows,
        labelled=True,
        history=3,
        weight=np.array([1 + row.label for row in rows], np.float32),
        slate=np.array([row.page for row in rows], np.int32),
        context=context,
        context_features=(Feature("device", DEVICES), Feature("rank", "123456")),
        position="rank",
    )
    config = replace(SMALL, world=ReplayConfig(Path("log")), generations=3)
    found, unweighted = (Experiment(config, world_of(replace(log, weight=w))) for w in (log.weight, None))
    found.check()
    final = found.run(lambda events: None, lambda: None)
    sizes = {len(query.candidates) for query in final.queries}
    assert len(sizes) > 2 and max(sizes) < SMALL.candidates
    result = to_json(measure(found, final))
    assert "pages that users saw, of 2 to 5 items" in result["notes"][0] and "coverage" not in result["world"]
    assert "have weights" in result["notes"][1]
    for arm in result["arms"].values():
        assert 0 < arm["swaps"]["pair"]["mean"] < 1 and arm["recall"]["mean"] > 0
    losses = [arm["log_loss"]["mean"] for arm in result["arms"].values()]
    assert losses != [arm["log_loss"]["mean"] for arm in outcome(unweighted)["arms"].values()]
    asked = final.queries, {3: final.after}, final.held_out, final.logits
    keep_predictions(tmp_path, found.world, ["a", "b"], found.shape, *asked)
    kept = pyarrow.parquet.read_table(tmp_path / "arm1-fleet0-duplicate2-generation3.parquet")
    rows_kept = kept.filter(pyarrow.compute.equal(kept["role"], "query"))
    items = [log.items.ids[item] for query in final.queries for item in query.candidates]
    assert [str(item) for item in rows_kept["doc_id"].to_pylist()] == items
    assert np.array_equal(rows_kept["score"].to_numpy(), final.after.flat(5))
