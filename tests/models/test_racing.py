"""Threads that race on one model's weights: alone one changes nothing, several make each run another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from simulator.config import NO_NOISE, ExperimentConfig, ModelConfig, NoiseConfig, SyntheticConfig
from simulator.errors import SettingError
from simulator.experiment import folder as folder_module
from simulator.measures.quality import log_loss
from simulator.models.engine import Engine
from simulator.models.engines import Engines
from simulator.models.native_engine import missing
from simulator.models.specs import parse_arms
from simulator.types import Doubles
from simulator.world.stream import SyntheticWorld
from tests.interrupted import cut_off, resumed
from tests.models.conftest import MIXED, NATIVE, assert_same_state, flat, make_chunks, make_engine, teach, weighted
from tests.small_runs import SMALL, outcome, prepared

if missing():
    pytest.skip(missing(), allow_module_level=True)

WORLD = SyntheticWorld(SyntheticConfig(events=16_384, users=200, items=100), seed=3)
WIDE = ModelConfig(dim=16, hidden=(128, 64), batch=128)
"""Mini-batches that take long enough for threads to meet in them."""
RACING = replace(NO_NOISE, racing=4)
ATTEMPTS = 20
"""Each of 128 mini-batches for each of three duplicates: that no two of them ever meet is as good as impossible."""


def raced(racing: int) -> tuple[Engine, Doubles]:
    """Three duplicates that learned the world with so many threads each, and the log loss [3] of each on the way."""
    engine = make_engine(
        NATIVE, schema=WORLD.schema, model=WIDE, noise=replace(NO_NOISE, racing=racing), duplicates=3, threads=2
    )
    chunks = list(WORLD.batches(engine.chunk_events, 0, WORLD.events))
    logits, labels = teach(engine, chunks), np.concatenate([chunk.label for chunk in chunks])
    return engine, log_loss(logits, labels).mean(1)


def test_racing_alone_makes_duplicates_and_runs_differ_and_learns_about_as_well() -> None:
    calm, expected = raced(0)
    assert torch.equal(flat(calm.weights), flat(calm.weights)[:1].expand(3, -1)), "nothing else differs"
    for _ in range(ATTEMPTS):
        engine, losses = raced(4)
        rows = [*flat(engine.weights), flat(calm.weights)[0]]
        if all(not torch.equal(a, b) for n, a in enumerate(rows) for b in rows[:n]):
            break
    else:
        pytest.fail(f"no race in {ATTEMPTS} runs")
    assert torch.isfinite(flat(engine.weights)).all() and not engine.weights.table[:, 0].any()
    assert 0.9 < losses.min() / expected[0] and losses.max() / expected[0] < 1.1, "measured at 1.003 to 1.045"
    assert (engine.take_seconds() > 0.3 * calm.take_seconds()).all(), "the time of the threads is counted"


@pytest.mark.parametrize("spec", ["smelu", "ensemble:relu:m=3", "anchor:relu", "average:relu"])
def test_one_thread_has_nobody_to_race_with(spec: str) -> None:
    noise = NATIVE.every_noise
    engines = [make_engine(NATIVE, spec, noise=replace(noise, racing=racing), threads=2) for racing in (0, 1)]
    chunks = weighted(make_chunks(engines[0], 3))
    given, alone = (teach(engine, chunks, refresh=True) for engine in engines)
    assert np.array_equal(given, alone)
    assert_same_state(*engines)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("relu:engine=torch", "engine=torch"),
        ("relu:norm=weight", "it has no norm = weight"),
        ("codistill:relu:m=2", "its models learn from one another at each mini-batch, in turn"),
        ("torch:tests.models.own_modules:plain", "it teaches no modules of your own"),
    ],
)
def test_an_arm_that_cannot_race_is_one_line(spec: str, why: str) -> None:
    config = ExperimentConfig(noise=RACING)
    with pytest.raises(SettingError) as problem:
        Engines(MIXED, parse_arms(("gelu", spec)), config)
    reason = f"threads race in the native engine alone, which cannot teach {parse_arms((spec,))[0].label} ({why})"
    assert str(problem.value) == f"noise.racing = 4: {reason}: use 0, or other arms"


def test_racing_beside_a_noise_that_the_native_engine_lacks_is_refused() -> None:
    with pytest.raises(SettingError, match=r"which cannot teach relu \(it has no delayed gradients\): use 0"):
        Engines(MIXED, parse_arms(("relu",)), ExperimentConfig(noise=NoiseConfig(racing=2, delay=1)))


def test_a_run_with_a_race_goes_on_where_it_was_cut_off_and_says_that_it_cannot_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "CHECKPOINT_SHARE", float("inf"))
    path, config = tmp_path / "out", replace(SMALL, noise=RACING)
    before = cut_off(config, path, 2)
    experiment = resumed(config, path)
    assert experiment.state.generation == 2
    saved, restored = before.engines.state(), experiment.engines.state()
    assert all(torch.equal(tensor, restored[name]) for name, tensor in saved.items())
    notes = " ".join(outcome(experiment)["notes"])
    assert "Not repeatable: 4 threads of each model raced" in notes
    assert '"repeatable": false' in (path / "config.json").read_text()
    quiet = prepared(SMALL)
    assert quiet.config.repeatable and "Not repeatable" not in " ".join(outcome(quiet)["notes"])
