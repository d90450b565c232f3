"""Decisions from finished runs: which arm a budget allows, and which candidate a gate holds back."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.decide import GateFlags, RecommendFlags, gate, independent_difference, recommend
from simulator.errors import FlickerError
from simulator.folder import Folder
from simulator.measures.intervals import Interval, Resamples, pair_index
from simulator.randomness import generator
from simulator.result import Result, from_json
from tests.report.fake_results import CONFIG, fake_result, write
from tests.small_runs import outcome, prepared, small_replay
from tests.terminal import Terminal

Json = dict[str, Any]
ARMS = {"relu": (1.0, 0.4315), "smelu:beta=1": (0.5, 0.4287), "smelu:beta=8": (0.2, 0.4400)}
"""Pair swaps 0.085, 0.0425 and 0.017."""


SETTINGS: Json = CONFIG | {"config": CONFIG["config"] | {"fleets": 3, "k": 10, "generations": 20}}


def saved(folder: Path, arms: dict[str, tuple[float, float]], wide: float = 0.12) -> Path:
    folder.mkdir(exist_ok=True)
    return write(folder, fake_result(arms, wide=wide), SETTINGS)


def changed(folder: Path, file: str, change: Callable[[Json], object]) -> Path:
    """The folder, with what is in one of its files changed in place."""
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("budget", "chosen"), [(0.1, "SmeLU (beta = 1)"), (0.05, "SmeLU (beta = 1)"), (0.02, "SmeLU (beta = 8)")]
)
def test_the_most_accurate_arm_within_the_budget_is_named(tmp_path: Path, budget: float, chosen: str) -> None:
    lines, code = recommend(RecommendFlags(saved(tmp_path, ARMS), swap_budget=budget))
    assert code == 0 and lines[0].startswith(f"{chosen}: log loss")


def test_it_names_interval_cost_runner_up_and_what_the_budget_rules_out(tmp_path: Path) -> None:
    folder = saved(tmp_path, {**ARMS, "gelu": (0.9, 0.42)})
    said = "\n".join(recommend(RecommendFlags(folder, swap_budget=0.05))[0])
    assert "the best of 2 of 4 arms" in said
    assert "training time × 1.00, parameters × 1.00 of ReLU" in said
    assert "runner-up: SmeLU (beta = 8), log loss 0.4400" in said
    assert "over the budget: GELU, log loss 0.4200" in said and "over the budget: ReLU" not in said
    assert "  pair swaps: 0.0425 (0.0374 to 0.0476)\n" in said
    assert "0.0170 (0.0150 to 0.0190); × 1.0264 (1.0253 to 1.0274) of the winner's log loss, told apart" in said
    assert "0.0765 (0.0673 to 0.0857); × 0.9797 (0.9787 to 0.9807) of the winner's log loss, told apart" in said


@pytest.mark.parametrize(
    ("loss", "fleets", "said"),
    [
        (0.4400, 3, "of the winner's log loss, told apart"),
        (0.4400, 1, "of the winner's log loss, told apart, for the one initialisation of this run"),
        (0.4289, 3, "of the winner's log loss, not told apart"),
        (0.4289, 1, "of the winner's log loss, not told apart"),
    ],
)
def test_a_runner_up_that_is_the_winner_s_equal_within_chance_is_called_so(
    tmp_path: Path, loss: float, fleets: int, said: str
) -> None:
    folder = saved(tmp_path, {"smelu:beta=1": (0.5, 0.4287), "smelu:beta=8": (0.2, loss)})
    changed(folder, "config.json", lambda about: about["config"].update(fleets=fleets))
    (line,) = [line for line in recommend(RecommendFlags(folder, 1))[0] if "runner-up" in line]
    assert line.endswith(said)


def test_the_cost_holds_memory_where_the_run_measured_it(tmp_path: Path) -> None:
    def measure(result: Json) -> None:
        result["arms"]["relu"].update(model_bytes=1_000, train_bytes=2_000)
        result["arms"]["smelu:beta=1"].update(model_bytes=1_500, train_bytes=8_000)

    lines, _ = recommend(RecommendFlags(changed(saved(tmp_path, ARMS), "result.json", measure), swap_budget=1))
    assert lines[2].endswith("parameters × 1.00, memory served × 1.50, memory in training × 4.00 of ReLU")


def test_the_most_accurate_arm_is_not_held_against_itself(tmp_path: Path) -> None:
    lines, _ = recommend(RecommendFlags(saved(tmp_path, ARMS), swap_budget=1))
    assert lines[1] == "  pair swaps: 0.0425 (0.0374 to 0.0476)"


def test_an_interval_that_reaches_over_the_budget_is_said(tmp_path: Path) -> None:
    lines, _ = recommend(RecommendFlags(saved(tmp_path, ARMS), swap_budget=0.0425))
    assert "the interval reaches over the budget" in lines[1]


def test_no_arm_within_the_budget_is_exit_code_1_and_names_the_least(tmp_path: Path) -> None:
    lines, code = recommend(RecommendFlags(saved(tmp_path, ARMS), swap_budget=0.001))
    assert code == 1 and len(lines) == 1 and "the least is 0.0170 (0.0150 to 0.0190), SmeLU (beta = 8)" in lines[0]


def test_the_best_auc_is_the_highest(tmp_path: Path) -> None:
    lines, _ = recommend(RecommendFlags(saved(tmp_path, ARMS), swap_budget=1, accuracy="auc"))
    assert lines[0].startswith("SmeLU (beta = 1): AUC 0.8013")


@pytest.mark.parametrize(
    ("factor", "allowed", "code", "word"),
    [
        (2.0, 0.005, 1, "held back"),
        (2.0, 0.2, 0, "passed:"),
        (1.05, 0.005, 0, "passed, by doubt"),
        (0.3, 0, 0, "passed:"),
    ],
)
def test_a_candidate_that_clearly_flickers_more_is_held_back(
    tmp_path: Path, factor: float, allowed: float, code: int, word: str
) -> None:
    baseline = saved(tmp_path / "old", {"relu": (1.0, 0.43)})
    candidate = saved(tmp_path / "new", {"relu": (factor, 0.43)})
    lines, got = gate(GateFlags(candidate, baseline, max_swap_increase=allowed))
    assert got == code and len(lines) == 1 and lines[0].startswith(word)


def test_arms_can_be_chosen_on_both_sides(tmp_path: Path) -> None:
    folder = saved(tmp_path, ARMS)
    flags = GateFlags(folder, folder, 0.01, arm="smelu:beta=1", baseline_arm="smelu:beta=8")
    assert gate(flags)[1] == 1
    with pytest.raises(FlickerError, match="arm = gelu: the run has relu, smelu:beta=1"):
        gate(GateFlags(folder, folder, 0.01, arm="gelu"))


def without(key: str) -> Callable[[Json], object]:
    return lambda content: content["config"].pop(key)


def setting(section: str, **values: Any) -> Callable[[Json], object]:
    """A change of settings in a config; of its top level where the section is empty."""
    return lambda about: (about["config"][section] if section else about["config"]).update(values)


@pytest.mark.parametrize(
    ("file", "change", "complaint"),
    [
        ("config.json", setting("", k=5), "its k is 5, the candidate's 10: run both with the same --k$"),
        ("config.json", without("k"), "its k is not recorded, the candidate's 10"),
        ("config.json", setting("", duplicates=2), "its duplicates is 2, the candidate's 4"),
        ("config.json", setting("", generations=9), "its generations is 9, the candidate's 20"),
        ("config.json", setting("", seed=8), "its seed is 8, the candidate's 7: .* same --seed"),
        ("config.json", setting("", queries_per_generation=8), "its queries_per_generation is 8, .*not recorded"),
        ("config.json", setting("noise", window=4), "its noise.window is 4, the candidate's 16: .* same --window"),
        ("config.json", setting("noise", init="own"), "its noise.init is own, the candidate's same: .* same --init"),
        ("config.json", setting("world", events=9), "its world.events is 9, the candidate's 1000000: .* --events"),
        ("config.json", setting("world", position_bias=1), "its world.position_bias is 1, .* same --position-bias"),
        (
            "result.json",
            lambda result: result["world"].update(name="ml-1m", has_truth=False),
            "its world's name is ml-1m, the candidate's synthetic: run both with the same --data, or both without",
        ),
        (
            "result.json",
            lambda result: result["world"].update(held_out=9),
            "number of held-out events is 9, the candidate's 50000: run both with the same --data",
        ),
    ],
)
def test_runs_that_measure_different_things_cannot_be_compared(
    tmp_path: Path, file: str, change: Callable[[Json], object], complaint: str
) -> None:
    baseline, candidate = saved(tmp_path / "old", ARMS), saved(tmp_path / "new", ARMS)
    assert gate(GateFlags(candidate, baseline, 0.01))[1] == 0
    with pytest.raises(FlickerError, match=f"baseline = .*old: .*{complaint}"):
        gate(GateFlags(candidate, changed(baseline, file, change), 0.01))


@pytest.mark.parametrize(
    "change",
    [
        setting("", arms=["gelu"]),
        setting("model", dim=8, learning_rate=0.1, hash_rows=100),
        setting("", fleets=2),
        setting("", device="cuda"),
        setting("", queries=9),
    ],
)
def test_what_a_candidate_is_free_to_change_can_be_compared(tmp_path: Path, change: Callable[[Json], object]) -> None:
    baseline, candidate = saved(tmp_path / "old", ARMS), saved(tmp_path / "new", ARMS)
    assert gate(GateFlags(changed(candidate, "config.json", change), baseline, 0.01))[1] == 0


def test_on_a_log_the_seed_may_differ_and_the_log_may_lie_elsewhere(tmp_path: Path) -> None:
    folders = [saved(tmp_path / name, ARMS) for name in ("old", "new")]
    for number, folder in enumerate(folders):
        changed(folder, "result.json", lambda result: result["world"].update(name="ml-1m", has_truth=False))
        path = f"/build/{number}/ml-1m"
        changed(folder, "config.json", setting("", seed=number, world={"kind": "replay", "path": path, "limit": None}))
    assert gate(GateFlags(folders[0], folders[1], 0.01))[1] == 0
    changed(folders[0], "config.json", setting("world", limit=500))
    with pytest.raises(FlickerError, match="its world.limit is not set, the candidate's 500: .* same --limit"):
        gate(GateFlags(folders[0], folders[1], 0.01))


@pytest.mark.parametrize("whose", ["baseline", "candidate"])
@pytest.mark.parametrize("factor", [1.0, 9.0])
def test_a_single_fleet_is_refused_whatever_it_measured(tmp_path: Path, whose: str, factor: float) -> None:
    folders = {"baseline": saved(tmp_path / "old", ARMS), "candidate": saved(tmp_path / "new", {"relu": (factor, 0.4)})}
    changed(folders[whose], "config.json", setting("", fleets=1))
    with pytest.raises(FlickerError, match=f"^fleets = 1: .* the {whose}'s interval covers: .*--fleets 2 or more$"):
        gate(GateFlags(folders["candidate"], folders["baseline"], 0.01))


def test_the_difference_of_independent_estimates_adds_half_widths_in_squares() -> None:
    found = independent_difference(Interval(0.5, 0.2, 0.9), Interval(0.25, 0.0, 0.55))
    assert found.mean == 0.25
    assert found.low == pytest.approx(0.25 - np.hypot(0.3, 0.3)) and found.high == pytest.approx(
        0.25 + np.hypot(0.4, 0.25)
    )


def made_up_run(seed: int, fleets: int, truth: float) -> Interval:
    """Pair swaps of a run whose fleets, duplicates and users move the ratio, with the given true mean."""
    draw, users = generator(seed, "run"), 60
    first, second = pair_index(4)
    fleet, duplicate = draw.normal(0, 0.02, (fleets, 1, 1)), draw.normal(0, 0.01, (fleets, 4))
    user = draw.normal(0, 0.03, users)
    values = truth + fleet + (duplicate[:, first] + duplicate[:, second])[..., None] + user
    values = values + draw.normal(0, 0.05, values.shape)
    estimate = Resamples(fleets, 4, users, repetitions=200, seed=seed).pairs(values, np.ones(users)).interval()
    return Interval(estimate.mean, estimate.low, estimate.high)


def made_up_folder(folder: Path, seed: int, fleets: int, truth: float) -> Path:
    """What such a run would have left behind."""
    found = made_up_run(seed, fleets, truth)
    result = fake_result({"relu": (1.0, 0.43)}, generations=1)
    result["arms"]["relu"]["swaps"]["pair"] = {"mean": found.mean, "low": found.low, "high": found.high}
    folder.mkdir()
    return write(folder, result, SETTINGS | {"config": SETTINGS["config"] | {"fleets": fleets}})


@pytest.mark.parametrize(("fleets", "increase"), [(2, 0.4), (3, 0.12), (5, 0.06)])
def test_a_gate_between_equals_seldom_rejects_and_an_increase_worth_telling_is_seen(
    tmp_path: Path, fleets: int, increase: float
) -> None:
    """Swaps of 0.2, with fleets that lie 0.02 apart by chance."""
    old = [made_up_folder(tmp_path / f"old {n}", 2 * n + 1, fleets, 0.2) for n in range(100)]
    new = [made_up_folder(tmp_path / f"new {n}", 2 * n, fleets, 0.2) for n in range(100)]
    assert sum(gate(GateFlags(*pair, 0))[1] for pair in zip(new, old, strict=True)) <= 6
    worse = [made_up_folder(tmp_path / f"worse {n}", 2 * n, fleets, 0.2 + increase) for n in range(40)]
    seen = sum(gate(GateFlags(*pair, 0))[1] for pair in zip(worse, old, strict=False))
    assert seen >= 28


@pytest.mark.parametrize("fleets", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_real_runs_that_differ_by_their_seed_alone_are_seldom_held_back(tmp_path: Path, fleets: int) -> None:
    config = small_replay(tmp_path / "log", arms=("relu",), fleets=fleets)
    folders = [tmp_path / f"seed {seed}" for seed in range(12)]
    for seed, path in enumerate(folders):
        folder, own = Folder(path), replace(config, seed=seed)
        folder.start(own, "flicker run")
        folder.finish(from_json(Result, outcome(prepared(own)) | {"seconds": 1.0}))
    pairs = list(itertools.permutations(folders, 2))
    assert sum(gate(GateFlags(*pair, 0))[1] for pair in pairs) <= len(pairs) // 20


def test_the_commands_say_it_and_end_with_its_code(flicker: Terminal, tmp_path: Path) -> None:
    folder = saved(tmp_path, ARMS)
    chosen = flicker("recommend", folder, "--swap-budget", "0.05")
    assert chosen.code == 0 and chosen.out.startswith("SmeLU (beta = 1)")
    held = ["gate", folder, "--baseline", folder, "--max-swap-increase", "0.01", "--baseline-arm", "smelu:beta=8"]
    back = flicker(*held)
    assert back.code == 1 and back.out.startswith("held back: pair swaps 0.0850")
    bad = flicker("recommend", folder, "--swap-budget", "2")
    assert bad.code == 2 and bad.err == "flicker: swap-budget = 2.0: from 0 to 1; see flicker recommend --help\n"
    gone = flicker("gate", tmp_path / "no", *held[2:])
    assert gone.code == 2 and "name a folder" in gone.err
