"""`flicker gate`: it passes and holds back what intervals show, says when they cannot tell, and is seldom wrong."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.decide.evidence import DECIDED, INCONCLUSIVE, REFUSED
from simulator.decide.gating import NO_BASELINE, GateFlags, SwapEstimate, gate, pooled
from simulator.errors import FlickerError
from simulator.experiment.folder import Folder
from simulator.measures.intervals import Estimate, Resamples, pair_index
from simulator.randomness import generator
from simulator.result import Arm, Result, from_json, read_result, write_result
from simulator.types import Interval
from tests.report.fake_results import CONFIG, fake_result, spread, write
from tests.small_runs import outcome, prepared, small_replay
from tests.terminal import Terminal

Json = dict[str, Any]
ARMS = {"relu": (1.0, 0.4315), "smelu:beta=1": (0.5, 0.4287), "smelu:beta=8": (0.2, 0.4400)}
"""Pair swaps 0.085, 0.0425 and 0.017."""
SETTINGS: Json = CONFIG | {"config": CONFIG["config"] | {"fleets": 3, "k": 10, "generations": 20}}


def saved(folder: Path, arms: dict[str, tuple[float, float]], wide: float = 0.12, **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    result = fake_result(arms, wide=wide)
    for arm in result["arms"].values():
        arm["swaps_these"] = {name: spread(value["mean"], wide / 3) for name, value in arm["swaps"].items()}
    return write(folder, result, SETTINGS | {"config": SETTINGS["config"] | settings})


def changed(folder: Path, file: str, change: Callable[[Json], object]) -> Path:
    """The folder, with what is in one of its files changed in place."""
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))
    return folder


def gated(new: Path, old: Path, allowed: float = 0.02, **more: Any) -> tuple[str, int]:
    (line,), code = gate(GateFlags((new,), (old,), max_swap_increase=allowed, **more))
    return line, code


@pytest.mark.parametrize(
    ("factor", "allowed", "code", "word"),
    [
        (2.0, 0.005, REFUSED, "held back"),
        (2.0, 0.2, DECIDED, "passed:"),
        (1.05, 0.005, INCONCLUSIVE, "inconclusive"),
        (0.3, 0, DECIDED, "passed:"),
    ],
)
def test_what_an_interval_shows_decides(tmp_path: Path, factor: float, allowed: float, code: int, word: str) -> None:
    old, new = saved(tmp_path / "old", {"relu": (1.0, 0.43)}), saved(tmp_path / "new", {"relu": (factor, 0.44)})
    line, got = gated(new, old, allowed)
    assert got == code and line.startswith(word)
    assert "by 3 fleets and 3 fleets; log loss 0.4400 against 0.4300" in line


@pytest.mark.parametrize(("what", "code"), [("say", 3), ("pass", 0), ("hold", 1)])
def test_a_pipeline_says_what_to_do_where_it_cannot_be_told(tmp_path: Path, what: Any, code: int) -> None:
    folder = saved(tmp_path / "run", ARMS)
    line, got = gated(folder, folder, 0.0, inconclusive=what)
    assert got == code and "inconclusive" in line and "increase 0 (" in line


def test_a_smaller_run_never_passes_the_surer(tmp_path: Path) -> None:
    """What no interval shows is inconclusive, however wide it is: the first stage let it pass."""
    for wide in (0.2, 0.5, 0.9):
        folder = saved(tmp_path / f"{wide}", {"relu": (1.0, 0.43)}, wide)
        assert gated(folder, folder, 0.005)[1] == INCONCLUSIVE


def test_fleets_that_are_missing_are_estimated_from_the_interval(tmp_path: Path) -> None:
    """By hand: 0.085 -+ 12 %, of which users are a third; so many fleets that the half-width falls below 0.008."""
    folder = saved(tmp_path / "run", {"relu": (1.0, 0.43)})
    line, _ = gated(folder, folder, 0.008)
    side = pooled([(result := read_result(folder), result.arms[0])], "pair")
    assert side.fleets == 3 and side.half_width() == pytest.approx(0.12 * 0.085)
    more = next(n for n in range(1, 99) if np.hypot(*[side.half_width(3 + n)] * 2) <= 0.008)
    assert line.endswith(f": run about {more} more fleets of each") and 1 < more < 10
    assert gated(folder, folder, 0.0001)[0].endswith("other users could change that: ask more --queries")


def test_one_fleet_of_two_duplicates_says_nothing_of_training_and_something_of_these_models(tmp_path: Path) -> None:
    new, old = (
        saved(tmp_path / name, {"relu": (f, 0.43)}, fleets=1, duplicates=2) for name, f in (("a", 0.5), ("b", 1))
    )
    line, code = gated(new, old)
    assert code == INCONCLUSIVE and line.endswith(
        "one fleet says nothing about training: run about 2 more fleets of each"
    )
    line, code = gated(new, old, these=True)
    assert code == DECIDED and "by these models" in line
    assert gated(old, new, these=True)[1] == REFUSED


def test_two_files_of_predictions_are_enough_for_these_very_models(tmp_path: Path) -> None:
    arm = Arm("model", {"swaps.pair": Interval(0.1, 0.09, 0.11)})
    write_result(tmp_path, Result(kind="compare", world={"name": "a.parquet"}, arms=[arm]))
    for most, code in ((0.2, DECIDED), (0.105, INCONCLUSIVE), (0.05, REFUSED)):
        (line,), got = gate(GateFlags((tmp_path,), max_swaps=most, these=True))
        assert got == code, line
    assert gate(GateFlags((tmp_path,), max_swaps=0.2))[1] == INCONCLUSIVE


def test_files_are_held_against_files_of_the_same_users(tmp_path: Path) -> None:
    folders = []
    for name, mean, users in (("new", 0.1, 50), ("old", 0.2, 50), ("strange", 0.2, 60)):
        arm = Arm("model", {"swaps.pair": Interval(mean, mean - 0.01, mean + 0.01)})
        world, config = {"name": "predictions", "users": users}, {"k": 10, "predictions": [name]}
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        write_result(folders[-1], Result(kind="compare", world=world, arms=[arm], config=config))
    assert gated(folders[0], folders[1], these=True)[1] == DECIDED
    with pytest.raises(
        FlickerError, match="number of users is 60, the candidate's 50: compare files of the same queries"
    ):
        gated(folders[0], folders[2], these=True)
    run = saved(tmp_path / "run", ARMS)
    with pytest.raises(FlickerError, match="its kind is run, the candidate's compare: make both by one command"):
        gated(folders[0], run, these=True)


@pytest.mark.parametrize(
    "flags", [{}, {"max_swap_increase": 0.1}, {"max_swaps": 0.1, "max_swap_increase": 0.1, "baseline": (Path("b"),)}]
)
def test_a_gate_needs_one_allowance(flags: dict[str, Any]) -> None:
    with pytest.raises(FlickerError, match="give --baseline DIR and --max-swap-increase X, or --max-swaps X alone"):
        GateFlags((Path("a"),), **flags)


def test_arms_can_be_chosen_on_both_sides(tmp_path: Path) -> None:
    folder = saved(tmp_path, ARMS)
    assert gated(folder, folder, 0.005, arm="smelu:beta=1", baseline_arm="smelu:beta=8")[1] == REFUSED
    with pytest.raises(FlickerError, match="arm = gelu: the run has relu, smelu:beta=1"):
        gated(folder, folder, arm="gelu")


# What may be compared with what.


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
    assert gated(candidate, baseline)[1] == DECIDED
    with pytest.raises(FlickerError, match=f"baseline = .*old: .*{complaint}"):
        gated(candidate, changed(baseline, file, change))


def test_made_up_worlds_of_two_seeds_are_two_worlds(tmp_path: Path) -> None:
    baseline, candidate = saved(tmp_path / "old", ARMS, seed=8), saved(tmp_path / "new", ARMS)
    with pytest.raises(FlickerError, match="baseline = seed 8: the candidate's is 7: run both with the same --seed"):
        gated(candidate, baseline)


@pytest.mark.parametrize(
    "change",
    [
        setting("", arms=["gelu"]),
        setting("model", dim=8, learning_rate=0.1, hash_rows=100),
        setting("", fleets=4),
        setting("", device="cuda"),
        setting("", queries=9),
    ],
)
def test_what_a_candidate_is_free_to_change_can_be_compared(tmp_path: Path, change: Callable[[Json], object]) -> None:
    baseline, candidate = saved(tmp_path / "old", ARMS), saved(tmp_path / "new", ARMS)
    assert gated(changed(candidate, "config.json", change), baseline)[1] == DECIDED


def test_on_a_log_the_seed_may_differ_and_the_log_may_lie_elsewhere(tmp_path: Path) -> None:
    folders = [saved(tmp_path / name, ARMS) for name in ("old", "new")]
    for number, folder in enumerate(folders):
        changed(folder, "result.json", lambda result: result["world"].update(name="ml-1m", has_truth=False))
        path = f"/build/{number}/ml-1m"
        changed(folder, "config.json", setting("", seed=number, world={"kind": "replay", "path": path, "limit": None}))
    assert gated(*folders)[1] == DECIDED
    changed(folders[0], "config.json", setting("world", limit=500))
    with pytest.raises(FlickerError, match="its world.limit is not set, the candidate's 500: .* same --limit"):
        gated(*folders)


# Several runs as one estimate, and how often it is wrong.


def drawn(seed: int, fleets: int, truth: float, duplicates: int = 4) -> tuple[Estimate, float]:
    """Swaps as sums per user, moved by fleets, duplicates and users, and what all users would say of these models."""
    draw, users = generator(seed, "run"), 60
    first, second = pair_index(duplicates)
    fleet, duplicate = draw.normal(0, 0.02, (fleets, 1, 1)), draw.normal(0, 0.01, (fleets, duplicates))
    models = truth + fleet + (duplicate[:, first] + duplicate[:, second])[..., None]
    values = models + draw.normal(0, 0.03, users)
    values = values + draw.normal(0, 0.05, values.shape)
    sums = draw.integers(1, 9, users)  # of so many queries each
    estimate = Resamples(fleets, duplicates, users, repetitions=200, seed=seed).pairs(values * sums, sums.astype(float))
    return estimate, float(models.mean())


def a_run(estimate: Estimate, fleets: int, seed: int = 0, **world: Any) -> Result:
    measures = {"swaps.pair": estimate.interval(), "swaps_these.pair": estimate.given_models().interval()}
    about = {"name": "log", "has_truth": False} | world
    return Result(kind="run", world=about, arms=[Arm("relu", measures)], config={"fleets": fleets, "seed": seed})


def verdict(
    monkeypatch: pytest.MonkeyPatch, new: list[Result], old: list[Result], allowed: float, these: bool = False
) -> int:
    held = {Path(f"{side}{n}"): run for side, runs in (("new", new), ("old", old)) for n, run in enumerate(runs)}
    monkeypatch.setattr("simulator.decide.gating.read_result", held.__getitem__)
    sides = [tuple(path for path in held if path.name.startswith(side)) for side in ("new", "old")]
    return gate(GateFlags(sides[0], sides[1], max_swap_increase=allowed, these=these))[1]


GATES = 200


@pytest.mark.parametrize("fleets", [2, 3, 5])
def test_of_200_gates_at_the_very_allowance_few_pass_and_few_hold_back(
    fleets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Swaps of 0.2 and 0.25, an increase of 0.05 allowed: to pass and to hold back are both wrong."""
    codes = []
    for n in range(GATES):
        (new, _), (old, _) = drawn(2 * n, fleets, 0.25), drawn(2 * n + 1, fleets, 0.2)
        codes.append(verdict(monkeypatch, [a_run(new, fleets)], [a_run(old, fleets)], 0.05))
    assert codes.count(DECIDED) <= 18 and codes.count(REFUSED) <= 18, codes


@pytest.mark.parametrize("fleets", [1, 3])
def test_of_200_gates_of_these_models_few_pass_and_few_hold_back(fleets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two duplicates; allowed is what all users in the world would say of these very models."""
    codes = []
    for n in range(GATES):
        (new, its), (old, other) = drawn(2 * n, fleets, 0.45, 2), drawn(2 * n + 1, fleets, 0.2, 2)
        codes.append(verdict(monkeypatch, [a_run(new, fleets)], [a_run(old, fleets)], its - other, these=True))
    assert codes.count(DECIDED) <= 18 and codes.count(REFUSED) <= 18, codes


@pytest.mark.parametrize(("fleets", "apart"), [(2, 0.4), (3, 0.12), (5, 0.06)])
def test_what_is_far_from_the_allowance_is_told(fleets: int, apart: float, monkeypatch: pytest.MonkeyPatch) -> None:
    codes: dict[float, list[int]] = {sign: [] for sign in (-1, 1)}
    for n, sign in itertools.product(range(40), codes):
        (new, _), (old, _) = drawn(2 * n, fleets, 0.5 + sign * apart), drawn(2 * n + 1, fleets, 0.5)
        codes[sign].append(verdict(monkeypatch, [a_run(new, fleets)], [a_run(old, fleets)], 0))
    assert codes[1].count(REFUSED) >= 28 and codes[-1].count(DECIDED) >= 28
    assert codes[1].count(DECIDED) == codes[-1].count(REFUSED) == 0


def test_runs_of_one_fleet_each_are_together_a_run_of_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds are fleets then: alone no run tells anything, five of them are wrong as seldom as one with five fleets."""
    codes = []
    for n in range(GATES // 2):  # each of ten runs
        sides = [
            [a_run(drawn(1_000 * side + 5 * n + seed, 1, truth)[0], 1, seed) for seed in range(5)]
            for side, truth in ((1, 0.25), (2, 0.2))
        ]
        codes.append(verdict(monkeypatch, *sides, 0.05))
        assert n or verdict(monkeypatch, sides[0][:1], sides[1][:1], 0.05) == INCONCLUSIVE
    assert codes.count(DECIDED) <= 9 and codes.count(REFUSED) <= 9, codes


def test_pooled_fleets_are_those_of_all_runs() -> None:
    """Split in runs of two and three fleets, five fleets have the variance that their means say."""
    means = np.array([0.10, 0.14, 0.11, 0.19, 0.13])
    runs = []
    for seed, part in enumerate((means[:2], means[2:])):
        half = {2: 12.706205, 3: 4.302653}[len(part)] * part.std(ddof=1) / np.sqrt(len(part))
        mean, users = float(part.mean()), 0.01
        wide = float(np.hypot(half, users))
        swaps = {"swaps.pair": (mean - wide, mean + wide), "swaps_these.pair": (mean - users, mean + users)}
        arm = Arm("relu", {name: Interval(mean, *limits) for name, limits in swaps.items()})
        world = {"name": "log", "has_truth": False}
        run = Result(kind="run", world=world, arms=[arm], config={"fleets": len(part), "seed": seed})
        runs.append((run, arm))
    found = pooled(runs, "pair")
    assert (found.fleets, found.mean) == (5, pytest.approx(means.mean()))
    assert found.spread == pytest.approx(means.var(ddof=1), rel=1e-3) and found.users == pytest.approx(0.01)
    assert found.half_width() == pytest.approx(np.hypot(2.776445 * means.std(ddof=1) / np.sqrt(5), 0.01), rel=1e-3)
    made_up = [(replace(run, world={"has_truth": True}), arm) for run, arm in runs]
    assert pooled(made_up, "pair").users == pytest.approx(np.hypot(0.4 * 0.01, 0.6 * 0.01))
    assert SwapEstimate(0.1, 1, None, 0.01).half_width() == np.inf and NO_BASELINE.half_width() == 0


def test_the_same_run_twice_is_no_more_evidence(tmp_path: Path) -> None:
    one, again = saved(tmp_path / "one", ARMS), saved(tmp_path / "again", ARMS)
    with pytest.raises(FlickerError, match="result = .*again: the same seed as .*one: give runs of different --seed"):
        gate(GateFlags((one, again), (one,), max_swap_increase=0.1))
    with pytest.raises(FlickerError, match="baseline = .*one: the same seed as .*one"):
        gate(GateFlags((one,), (one, one), max_swap_increase=0.1))


@pytest.mark.parametrize("fleets", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_real_runs_that_differ_by_their_seed_alone_are_seldom_held_back(tmp_path: Path, fleets: int) -> None:
    config = small_replay(tmp_path / "log", arms=("relu",), fleets=fleets)
    folders = [tmp_path / f"seed {seed}" for seed in range(12)]
    for seed, path in enumerate(folders):
        folder, own = Folder(path), replace(config, seed=seed)
        folder.start(own, "flicker run")
        folder.finish(from_json(Result, outcome(prepared(own)) | {"seconds": 1.0}))
    pairs = list(itertools.permutations(folders, 2))
    codes = [gated(*pair, 0)[1] for pair in pairs]
    assert codes.count(REFUSED) <= len(pairs) // 20 and codes.count(DECIDED) <= len(pairs) // 20
    assert gate(GateFlags(tuple(folders[:6]), tuple(folders[6:]), max_swap_increase=0.3))[1] == DECIDED


def test_the_command_says_it_and_ends_with_its_code(flicker: Terminal, tmp_path: Path) -> None:
    folder = saved(tmp_path / "run", ARMS)
    held = ["gate", folder, "--baseline", folder, "--max-swap-increase", "0.01", "--baseline-arm", "smelu:beta=8"]
    back = flicker(*held)
    assert back.code == 1 and back.out.startswith("held back: pair swaps 0.0850")
    assert flicker("gate", folder, "--max-swaps", "0.0851").code == 3
    assert flicker("gate", folder, "--max-swaps", "0.0851", "--inconclusive", "pass").code == 0
    gone = flicker("gate", tmp_path / "no", *held[2:])
    assert gone.code == 2 and "name a folder" in gone.err


def alone(folder: Path, mean: float, world: Json, **config: Any) -> Path:
    """What compare leaves where all of the queries' answers are alike, so that there is no interval."""
    folder.mkdir(exist_ok=True)
    arm = Arm("model", {"swaps.pair": Interval(mean, mean, mean)})
    write_result(folder, Result(kind="compare", world={"name": "predictions"} | world, arms=[arm], config=config))
    return folder


@pytest.mark.parametrize(
    ("mean", "world", "most", "code"),
    [
        (0.1, {"queries": 1}, 0.3, INCONCLUSIVE),
        (0.1, {"queries": 1}, 0.05, INCONCLUSIVE),
        (0.1, {}, 0.3, INCONCLUSIVE),
        (0.0, {"queries": 1}, 0.1, INCONCLUSIVE),
        (0.0, {"queries": 35}, 0.1, INCONCLUSIVE),  # 1 - 0.025^(1/35) = 0.1000
        (0.0, {"queries": 36}, 0.1, DECIDED),
        (0.0, {"queries": 36, "users": 9}, 0.1, INCONCLUSIVE),
        (1.0, {"queries": 50}, 0.9, REFUSED),
        (1.0, {"queries": 20}, 0.9, INCONCLUSIVE),
    ],
)
def test_what_has_no_interval_is_no_certainty(tmp_path: Path, mean: float, world: Json, most: float, code: int) -> None:
    (line,), got = gate(GateFlags((alone(tmp_path, mean, world),), max_swaps=most, these=True))
    assert got == code, line
    assert (", inf" not in line) and "nan" not in line
    assert code != INCONCLUSIVE or line.endswith("other users could change that: give predictions of more queries")
