"""A run in parts ends with the numbers of one in one piece, wherever a part stops, and says what it lacks."""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from rich.console import Console

from simulator.config import NO_NOISE, ExperimentConfig, ReplayConfig, as_json, config_of
from simulator.errors import ResultError, SettingError
from simulator.experiment import folder as folder_module
from simulator.experiment.evaluation import Part
from simulator.experiment.experiment import Experiment
from simulator.experiment.folder import Folder
from simulator.experiment.main import MergeFlags, merge, run_experiment, run_part
from simulator.experiment.parts import ConcurrentPart, place_of, standing
from simulator.flags import RunFlags, Spread
from simulator.models.snapshot import read_snapshot, write_snapshot
from tests.interrupted import CutOff, files
from tests.small_runs import SMALL, outcome, prepared, small_replay, timeless
from tests.store.s3 import BUCKET, S3
from tests.terminal import SMALL_RUN, Terminal, assert_refused
from tests.world.logs import rows_of, written

MADE_UP = replace(SMALL, fleets=2, duplicates=4, generations=5)
"""Eight models of each arm: three parts have 2, 3 and 3."""
CURED = ("codistill:relu", "fresh:relu:last=2", "average:relu", "anchor:gelu:engine=torch")


@pytest.fixture(autouse=True)
def a_checkpoint_at_every_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs this short would otherwise wait for checkpoints to be worth their time."""
    monkeypatch.setattr(folder_module, "CHECKPOINT_SHARE", float("inf"))


def learn(config: ExperimentConfig, out: Path, part: str, patience: float = 60.0) -> None:
    """`flicker run --part`."""
    flags = RunFlags(out=out, spread=Spread(part=part, patience=patience))
    run_part(flags, config, "a test", Console(quiet=True))


def learn_all(config: ExperimentConfig, out: Path, parts: int) -> None:
    """All of them side by side."""
    with ThreadPoolExecutor(parts) as pool:
        for running in [pool.submit(learn, config, out, f"{number}/{parts}") for number in range(parts)]:
            running.result()


def merged(out: Path, **flags: bool) -> Any:
    """What `flicker merge` makes of them."""
    merge(MergeFlags(out, page=False, **flags))
    return timeless(json.loads((out / "result.json").read_text()))


@pytest.fixture(scope="module")
def whole() -> Any:
    """What MADE_UP ends with in one piece."""
    return timeless(outcome(prepared(MADE_UP)))


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of MADE_UP in three parts, each complete."""
    out = tmp_path_factory.mktemp("parts") / "out"
    learn_all(MADE_UP, out, 3)
    return out


@pytest.fixture
def own(learned: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(learned, tmp_path / "out"))


def test_every_model_is_in_one_part_and_the_shares_are_even() -> None:
    for models in range(1, 40):
        for parts in range(1, models + 1):
            shares = [range(models)[Part(number, parts).subset(models)] for number in range(parts)]
            assert [model for share in shares for model in share] == list(range(models))
            assert {len(share) for share in shares} <= {models // parts, -(-models // parts)}


def test_the_parts_of_a_made_up_world_joined_are_the_whole(own: Path, whole: Any) -> None:
    """Where users click on what models of other parts show."""
    assert merged(own) == whole
    assert sorted(path.name for path in own.iterdir()) == ["config.json", "result.json"]
    with pytest.raises(ResultError, match=f"this run is complete: flicker report {own}"):
        merged(own)


def test_the_parts_of_a_log_need_not_run_side_by_side(tmp_path: Path) -> None:
    """And keep what all models said, as a run in one piece does."""
    config, whole, out = small_replay(tmp_path / "log", fleets=2), tmp_path / "whole", tmp_path / "out"
    run_experiment(RunFlags(out=whole, keep_predictions=True, page=False), config, "a test")
    for part in ("2/4", "0/4", "3/4", "1/4"):
        learn(config, out, part, patience=0.001)
    assert merged(out, keep_predictions=True) == timeless(json.loads((whole / "result.json").read_text()))
    names = sorted(path.name for path in (whole / "predictions").iterdir())
    assert names == sorted(path.name for path in (out / "predictions").iterdir()) and len(names) > 12
    for name in names:
        one, other = (pyarrow.parquet.read_table(folder / "predictions" / name) for folder in (whole, out))
        assert one.equals(other), name


def test_cures_noise_and_slices_are_those_of_the_whole(tmp_path: Path) -> None:
    """By several engines; `fresh` and the teachers of a cure are of the model's own part."""
    noise = replace(SMALL.noise, init="own", lost=0.1, window=2)
    config = replace(SMALL, arms=CURED, noise=noise, generations=3, by=("device", "category"))
    learn_all(config, tmp_path / "out", 2)
    assert merged(tmp_path / "out") == timeless(outcome(prepared(config)))


def test_a_tuned_rate_is_found_once_and_the_whole_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, out = replace(SMALL, arms=("relu:lr=tuned",)), tmp_path / "out"
    run_experiment(RunFlags(out=tmp_path / "whole", page=False), config, "a test")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(learn, config, out, "0/2")
        while not (out / "config.json").exists():
            assert not first.done()
            time.sleep(0.05)
        monkeypatch.setattr("simulator.experiment.main.tune_arms", None)  # who comes second reads it
        learn(config, out, "1/2")
        first.result()
    assert merged(out) == timeless(json.loads((tmp_path / "whole" / "result.json").read_text()))


def test_a_part_that_dies_goes_on_where_it_stood_while_the_others_wait(
    tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(learn, MADE_UP, out, part) for part in ("0/3", "2/3")]
        with monkeypatch.context() as changed:
            dying_part(changed, out)
        learn(MADE_UP, out, "1/3")
        for other in others:
            other.result()
    assert merged(out) == whole


def dying_part(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    """Part 1/3, up to its third generation."""
    ordinary = ConcurrentPart.report

    def report(self: ConcurrentPart, outputs: Any, before: Any) -> None:
        ordinary(self, outputs, before)
        if self.place == place_of(out, Part(1, 3)) and outputs.generation == 3:
            raise CutOff

    monkeypatch.setattr(ConcurrentPart, "report", report)
    with pytest.raises(CutOff):
        learn(MADE_UP, out, "1/3")
    assert (place_of(out, Part(1, 3)) / "checkpoint" / "2").is_dir()
    assert standing(out, 3).generations[Part(1, 3)] == 3


def test_a_part_that_is_lost_altogether_is_learned_again_behind_the_others(own: Path, whole: Any) -> None:
    """It leaves the very bytes of before, and waits for nobody: what the others showed is still there."""
    place = place_of(own, Part(1, 3))
    before = {name: content for name, content in files(place).items() if not name.startswith("final/")}
    shutil.rmtree(place)
    learn(MADE_UP, own, "1/3", patience=0.001)
    after = files(place)
    assert {name: after[name] for name in before} == before and "final/manifest.json" in after
    assert merged(own) == whole


def test_a_complete_part_is_not_learned_again(own: Path) -> None:
    before = files(own)
    learn(MADE_UP, own, "1/3")
    assert files(own) == before


def test_a_part_that_waits_in_vain_names_the_way_out(tmp_path: Path) -> None:
    told = list[str]()
    beside = ConcurrentPart(tmp_path, Part(0, 2), 0.1, told.append)
    with pytest.raises(ResultError, match="part 1/2: has not come to generation 7 .*: run that one too, and this one"):
        beside.shown(7, np.zeros((2, 3), np.int64))


def test_a_missing_part_is_named_and_nothing_is_written(own: Path) -> None:
    shutil.rmtree(place_of(own, Part(1, 3)) / "final")
    with pytest.raises(ResultError, match=f"out = {own}: part 1/3 of 3 is not complete: run it with --part"):
        merged(own)
    assert not (own / "result.json").exists()


@pytest.mark.parametrize("name", ["final", "said/2"])
def test_a_damaged_part_is_named(name: str, own: Path) -> None:
    weights = place_of(own, Part(2, 3)) / name / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ResultError, match=r"the file is damaged; or delete .*2-of-3 and run part 2/3 again"):
        merged(own)


def change(own: Path, **values: Any) -> None:
    """Of config.json."""
    held = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps(held | values))


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"seed": 1}, r"cannot resume with other settings \(seed: 0 there, 1 here\)"),
        ({"parts": "0/4"}, "holds this run in 3 parts, not in 4 parts: go on as it was begun"),
        ({"versions": {"torch": "1.0"}}, r"other parts have other versions \(.*torch: 1.0 there, .* set up alike"),
        ({"arms": {"relu": {"engine": "none"}}}, r"other parts have other arms \(relu.engine: none there, .* here"),
    ],
)
def test_a_part_of_another_run_or_machine_is_refused(changed: dict[str, Any], complaint: str, own: Path) -> None:
    config = replace(MADE_UP, **{name: value for name, value in changed.items() if name == "seed"})
    change(own, **{name: value for name, value in changed.items() if name in ("versions", "arms")})
    shutil.rmtree(place_of(own, Part(1, 3)) / "final")
    with pytest.raises(ResultError, match=complaint):
        learn(config, own, changed.get("parts", "1/3"))


def test_parts_that_two_runs_left_are_not_joined(own: Path) -> None:
    """However that came: by hand."""
    change(own, config=as_json(replace(MADE_UP, resamples=500)))
    with pytest.raises(ResultError, match=r"0-of-3: of a run with other settings: delete it, and run part 0/3 again"):
        merged(own)


def test_unlike_processors_are_noted(own: Path) -> None:
    final = place_of(own, Part(2, 3)) / "final"
    tensors, about = read_snapshot(final)
    write_snapshot(final, tensors, about | {"machine": {"cpu_capability": "NONE"}})
    assert "Parts learned on unlike processors" in merged(own)["notes"][0]


def test_a_config_is_read_back_as_it_was(tmp_path: Path) -> None:
    other = replace(MADE_UP, by=("device",), arms=("relu:hidden=8x4", "linear"), noise=NO_NOISE)
    for config in (MADE_UP, other, small_replay(tmp_path / "log")):
        assert config_of(as_json(config)) == config
    with pytest.raises(ResultError, match="of another version of flicker: run it again"):
        config_of(as_json(MADE_UP) | {"colour": "red"})


BAD = {
    "no folder": ("--part 0/2", ("part: needs --out DIR",)),
    "no such part": ("--part 2/2 --out o", ("part = 2/2: from 0/2 to 1/2, the last of 2",)),
    "no part at all": ("--part two --out o", ("part = two: from 0/4 to 3/4",)),
    "more parts than models": ("--part 0/9 --out o", ("parts = 9: at most 6, the fleets x duplicates",)),
    "racing threads": ("--part 0/2 --out o --racing 2", ("noise.racing = 2: 0 with parts of a made-up world",)),
    "several worlds": ("--part 0/2 --out o --worlds 2", ("worlds = 2: 1 with --part", "--seed")),
    "predictions": ("--part 0/2 --out o --keep-predictions", ("keep_predictions", "flicker merge o")),
    "parts without a cluster": ("--parts 4", ("parts = 4: with --backend ray", "--part 0/4")),
    "resources without a cluster": ("--cpus 4", ("cpus, gpus, memory = 4.0: with --backend ray alone",)),
    "a part of a cluster": ("--part 0/2 --backend ray", ("part = 0/2: without --backend ray",)),
    "no memory": ("--backend ray --memory lots", ("memory = lots: a size such as",)),
    "no core": ("--backend ray --cpus 0", ("cpus = 0.0: more than 0",)),
    "a GPU for a CPU's work": ("--backend ray --gpus 1 --out o", ("gpus = 1.0: more than 0 with --device cuda",)),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    name: str, flicker: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, words = BAD[name]
    assert_refused(flicker("run", *SMALL_RUN, "--duplicates", "6", *arguments.split()), *words)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_run_in_parts_is_not_merged(flicker: Terminal, tmp_path: Path, own: Path) -> None:
    assert_refused(flicker("merge"), "flicker merge --help")
    assert_refused(flicker("merge", tmp_path / "nowhere"), "config.json: no such file", "flicker run --out")
    Folder(tmp_path / "one").start(SMALL, "a test")
    assert_refused(flicker("merge", tmp_path / "one"), "a run in one piece: go on with flicker run --resume")
    arguments = [*SMALL_RUN, "--out", str(own), "--resume"]
    assert_refused(flicker("run", *arguments), "cannot resume with other settings")
    Folder(tmp_path / "cut").join(SMALL, "a test", {}, {}, 3)
    with pytest.raises(ResultError, match="holds this run in 3 parts, not in one piece"):
        Folder(tmp_path / "cut").check(SMALL, resume=True)


def test_a_part_teaches_its_own_models_alone() -> None:
    experiment = Experiment(MADE_UP, prepared(MADE_UP).world, part=Part(1, 3))
    assert experiment.models.tolist() == [2, 3, 4, 10, 11, 12]
    assert len(experiment.state.losses) == len(experiment.state.compute) == 6


def test_a_part_that_diverges_at_once_leaves_the_folder_to_other_settings(tmp_path: Path) -> None:
    fast = replace(MADE_UP, model=replace(MADE_UP.model, learning_rate=1e30))
    with pytest.raises(SettingError, match="diverged"):
        learn(fast, tmp_path / "out", "0/2")
    learn_all(MADE_UP, tmp_path / "out", 2)


def test_a_log_in_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part reads it where it is: a mapping file with the log's URL is all that nodes share."""
    mapping = written(tmp_path / "local", rows_of(3_000), more="")
    config = replace(SMALL, world=ReplayConfig(mapping))
    in_one_piece = timeless(outcome(prepared(config)))
    service = S3()
    try:
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        service.client.put_object(Bucket=BUCKET, Key="logs/log.csv", Body=(mapping.parent / "log.csv").read_bytes())
        (mapping.parent / "log.csv").unlink()
        mapping.write_text(mapping.read_text().replace('"log.csv"', f'"s3://{BUCKET}/logs/log.csv"'))
        learn_all(config, tmp_path / "out", 2)
        assert merged(tmp_path / "out") == in_one_piece
    finally:
        service.stop()
