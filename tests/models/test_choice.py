"""The door to engines: which one an arm gets, who says so, and that arms do not disturb one another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from simulator.config import NO_NOISE, ExperimentConfig, NoiseConfig
from simulator.errors import SettingError
from simulator.models.engine import tensors_of
from simulator.models.engines import TORCH_COST, Engines, log_remarks
from simulator.models.snapshot import read_snapshot, write_snapshot
from simulator.models.specs import parse_arms
from tests.models.conftest import MIXED, MODEL, NO_KERNELS, make_chunks, make_events, make_query

RUN = ExperimentConfig(model=replace(MODEL, norm="after"), noise=NoiseConfig(window=2), duplicates=2, candidates=10)


@NO_KERNELS
def test_each_arm_has_its_engine_and_a_line_says_which_fell_back() -> None:
    arms = parse_arms(("relu", "smelu:norm=weight", "gelu:engine=torch", "fresh:relu:hidden=7x5,dim=3"))
    engines, told = Engines(MIXED, arms, RUN, threads=2), list[str]()
    assert [engine.name for engine in engines.engines] == ["native", "torch", "torch", "native"]
    assert [engine.model.norm for engine in engines.engines] == ["after", "weight", "after", "after"]
    assert (engines.engines[3].model.hidden, engines.engines[3].model.dim) == ((7, 5), 3)
    log_remarks(engines, told.append)
    assert told == [
        f"smelu:norm=weight is taught by PyTorch, not by the native engine (it has no norm = weight): {TORCH_COST}"
    ]


@NO_KERNELS
def test_all_arms_learn_side_by_side_as_each_does_alone(tmp_path: Path) -> None:
    arms = parse_arms(("relu", "relu", "anchor:smelu:norm=weight,lr=0.02"))
    engines, resumed = (Engines(MIXED, arms, RUN, threads=3) for _ in range(2))
    alone = [Engines(MIXED, (arm,), RUN, threads=1) for arm in arms]
    first, second, probe = *make_chunks(engines.engines[0], 2), make_events(MIXED, 9, seed=4).features
    assert np.array_equal(engines.learn(first), np.concatenate([one.learn(first) for one in alone]))
    for each in (engines, *alone):
        each.refresh()
    write_snapshot(tmp_path, engines.state(), {})
    resumed.restore(read_snapshot(tmp_path)[0])
    expected = np.concatenate([one.learn(second) for one in alone])
    assert np.array_equal(engines.learn(second), expected) and np.array_equal(resumed.learn(second), expected)
    scores = engines.score_events(probe)
    assert np.array_equal(scores, np.concatenate([one.score_events(probe) for one in alone]))
    assert not np.array_equal(scores[0], scores[2]), "a repeated arm is an independent set"
    queries = [make_query(number, 10) for number in range(2)]
    assert engines.score_queries(queries).shape == (6, 2, 10)
    assert len(engines.take_seconds()) == len(engines.scoring_seconds) == 6 and len(engines.engines) == 3
    published = engines.published(1)
    assert sorted(published) == [f"{arm}.{name}" for arm in range(3) for name in ("dense", "table")]
    for number, one in enumerate(alone):
        own = one.engines[0].published(1)
        assert all(torch.equal(tensor, own[name]) for name, tensor in tensors_of(published, number).items())
        assert engines.costs(number) == one.costs(0)


@pytest.mark.parametrize("spec", ["relu", "gelu:engine=torch", "codistill:relu", "fresh:relu", "average:relu"])
def test_a_share_of_the_models_learns_as_it_does_beside_all_the_others(spec: str) -> None:
    config, arms = replace(RUN, fleets=2, duplicates=3), parse_arms((spec, "relu"))
    whole = Engines(MIXED, arms, config)
    shares = [Engines(MIXED, arms, config, subset=slice(start, start + 2)) for start in (0, 2, 4)]

    def joined(parts: list[np.ndarray]) -> np.ndarray:
        """Models of each arm behind one another, as they stand in the whole."""
        return np.concatenate([part[2 * arm : 2 * arm + 2] for arm in range(2) for part in parts])

    for chunk in make_chunks(whole.engines[0], 3):
        assert np.array_equal(whole.learn(chunk), joined([share.learn(chunk) for share in shares]))
        for engines in (whole, *shares):
            engines.refresh()
    queries = [make_query(1, 5)]
    assert np.array_equal(whole.score_queries(queries), joined([share.score_queries(queries) for share in shares]))
    if spec != "codistill:relu":
        for name, tensor in whole.published(2).items():
            assert torch.equal(tensor, shares[1].published(2)[name])


@pytest.mark.parametrize(
    ("spec", "noise", "why"),
    [
        ("relu:engine=native,norm=weight", NO_NOISE, "it has no norm = weight"),
        ("relu:engine=native", NoiseConfig(delay=2), "it has no delayed gradients"),
        ("relu:engine=native", NoiseConfig(precision="bfloat16"), "it has no bfloat16"),
    ],
)
def test_an_arm_that_the_engine_it_names_cannot_teach_is_one_line(spec: str, noise: NoiseConfig, why: str) -> None:
    with pytest.raises(SettingError) as problem:
        Engines(MIXED, parse_arms((spec,)), replace(RUN, noise=noise))
    assert str(problem.value) == f"{spec}: engine = native: {why}: use engine=torch or auto"
