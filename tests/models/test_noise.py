"""Each noise source alone: it makes duplicates differ, in the way that it says, and in no other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from simulator.models.learner import Learner
from simulator.models.ranking import score_events

from simulator.config import NO_NOISE, ModelConfig, NoiseConfig
from simulator.models.duplicates import Member
from simulator.models.noise import Noise, round_to_bfloat16
from simulator.randomness import generator
from simulator.types import Floats
from tests.models.conftest import MIXED, MODEL, SINGLE, make_chunks, make_events, make_stack

SOURCES = {
    "init": replace(NO_NOISE, init="own"),
    "window": replace(NO_NOISE, window=4),
    "lost": replace(NO_NOISE, lost=0.2),
    "delay": replace(NO_NOISE, delay=4),
    "precision": replace(NO_NOISE, precision="bfloat16"),
    "reductions": replace(NO_NOISE, reductions=True),
}
WHO = Member(arm=0, fleet=1, duplicate=2, copy=0)


def learn(noise: NoiseConfig, chunks: int = 2, **options: object) -> tuple[Learner, Floats]:
    """A stack of four matched duplicates of two arms after some chunks, and its log-odds of fresh events."""
    stack = make_stack("relu", "smelu", noise=noise, duplicates=4, **options)  # type: ignore[arg-type]
    learner = Learner(stack, noise, seed=7)
    for chunk in make_chunks(learner, chunks):
        learner.learn(chunk)
    return learner, score_events(stack, make_events(stack.schema, 50, seed=1).features)


@pytest.mark.parametrize("schema", [MIXED, SINGLE], ids=["mixed", "single"])
@pytest.mark.parametrize("norm", ["none", "before", "after", "weight"])
def test_without_noise_duplicates_are_equal_to_the_last_bit(norm: str, schema: object) -> None:
    model = ModelConfig(dim=3, hidden=(13, 5), batch=7, norm=norm)  # type: ignore[arg-type]
    learner, scores = learn(NO_NOISE, model=model, schema=schema, threads=2)
    stack = learner.stack
    for arm in (0, 4):
        for other in range(arm + 1, arm + 4):
            assert torch.equal(stack.embedding[arm], stack.embedding[other])
            assert torch.equal(stack.dense[arm], stack.dense[other])
            assert torch.equal(learner.dense_squares[arm], learner.dense_squares[other])
            assert torch.equal(learner.table_squares[arm], learner.table_squares[other])
            assert np.array_equal(scores[arm], scores[other])
    assert not np.array_equal(scores[0], scores[4]), "two arms must differ"


@pytest.mark.parametrize("source", SOURCES)
def test_each_source_alone_makes_duplicates_differ(source: str) -> None:
    learner, scores = learn(SOURCES[source])
    for one in range(4):
        for other in range(one):
            assert not torch.equal(learner.stack.dense[one], learner.stack.dense[other])
            assert not torch.equal(learner.stack.embedding[one], learner.stack.embedding[other])
            assert not np.array_equal(scores[one], scores[other])


@pytest.mark.parametrize("source", SOURCES)
def test_noise_is_the_same_in_every_run(source: str) -> None:
    assert np.array_equal(learn(SOURCES[source], threads=1)[1], learn(SOURCES[source], threads=2)[1])


@pytest.mark.parametrize("source", SOURCES)
def test_only_own_initialisation_differs_before_learning(source: str) -> None:
    stack = make_stack(noise=SOURCES[source])
    assert torch.equal(stack.dense[0], stack.dense[1]) == (source != "init")
    assert torch.equal(stack.embedding[0], stack.embedding[1]) == (source != "init")


def test_reductions_differ_by_rounding_alone() -> None:
    _, scores = learn(SOURCES["reductions"], chunks=1)
    gap = np.abs(scores[0] - scores[1]).max()
    assert 0 < gap < 1e-4 * np.abs(scores[0]).max()


def test_a_window_shuffles_all_of_a_chunk_and_each_chunk_anew() -> None:
    noise = Noise(NoiseConfig(window=4), 7)
    orders = [noise.order(WHO, chunk, 32, 8) for chunk in range(3)]
    orders += [noise.order(replace(WHO, duplicate=0), 0, 32, 8), noise.order(replace(WHO, fleet=0), 0, 32, 8)]
    orders += [noise.order(replace(WHO, copy=1), 0, 32, 8), Noise(NoiseConfig(window=4), 8).order(WHO, 0, 32, 8)]
    assert all(sorted(order) == list(range(32)) for order in orders)
    assert len({tuple(order) for order in orders}) == len(orders)
    assert np.array_equal(noise.order(replace(WHO, arm=5), 0, 32, 8), orders[0]), "matched across arms"


def test_reductions_keep_each_mini_batch_together() -> None:
    plain = Noise(NoiseConfig(window=0, reductions=True), 7).order(WHO, 0, 29, 8)
    assert [sorted(plain[start : start + 8]) for start in range(0, 29, 8)] == [
        list(range(start, min(start + 8, 29))) for start in range(0, 29, 8)
    ]
    assert not np.array_equal(plain, np.arange(29))
    shuffled = Noise(NoiseConfig(window=4), 7).order(WHO, 0, 32, 8)
    both = Noise(NoiseConfig(window=4, reductions=True), 7).order(WHO, 0, 32, 8)
    for start in range(0, 32, 8):
        assert sorted(both[start : start + 8]) == sorted(shuffled[start : start + 8])


def test_no_noise_draws_nothing() -> None:
    noise = Noise(NO_NOISE, 7)
    assert np.array_equal(noise.order(WHO, 3, 20, 8), np.arange(20))
    assert not noise.lost(WHO, 3, 9).any() and not noise.delays(WHO, 3, 9).any()


def test_lost_and_delays_have_the_declared_odds() -> None:
    noise = Noise(NoiseConfig(lost=0.3, delay=4), 7)
    share = noise.lost(WHO, 0, 40_000).mean()
    assert abs(share - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 40_000)
    counts = np.bincount(noise.delays(WHO, 0, 40_000), minlength=5)
    assert len(counts) == 5 and np.abs(counts / 40_000 - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / 40_000)


def test_a_lost_mini_batch_is_predicted_but_leaves_everything_as_it_was() -> None:
    noise = replace(NO_NOISE, lost=0.5)
    learner = Learner(make_stack(noise=noise, duplicates=12), noise, seed=7)
    lost = np.array([learner.noise.lost(who, 0, 1)[0] for who in learner.stack.members])
    assert lost.any() and not lost.all()
    chunk = make_events(MIXED, MODEL.batch)
    expected, before = score_events(learner.stack, chunk.features), learner.state()
    before = {name: tensor.clone() for name, tensor in before.items()}
    np.testing.assert_allclose(learner.learn(chunk), expected, rtol=1e-5, atol=1e-6)
    for name in ("embedding", "dense", "dense_squares", "table_squares"):
        now = learner.state()[name]
        for m, gone in enumerate(lost):
            assert torch.equal(now[m], before[name][m]) == gone


def test_a_delay_of_0_steps_is_exactly_no_delay_and_a_longer_one_waits() -> None:
    noise = replace(NO_NOISE, delay=1)
    delayed = Learner(make_stack(noise=noise, duplicates=8), noise, seed=7)
    without = make_stack(duplicates=8, model=replace(MODEL, compile="off"))  # delays are PyTorch's business
    plain = Learner(without, NO_NOISE, seed=7)
    start, chunk = plain.stack.dense.clone(), make_events(MIXED, MODEL.batch)
    assert np.array_equal(plain.learn(chunk), delayed.learn(chunk))
    delays = [delayed.noise.delays(who, 0, 1)[0] for who in delayed.stack.members]
    assert set(delays) == {0, 1}
    for m, delay in enumerate(delays):
        expected = start if delay else plain.stack.dense
        assert torch.equal(delayed.stack.dense[m], expected[m])
        assert len(delayed.pending[m]) == delay


def test_low_precision_keeps_every_weight_in_bfloat16() -> None:
    noise = SOURCES["precision"]
    learner = Learner(make_stack(noise=noise), noise, seed=7)
    for chunk in [None, *make_chunks(learner, 2)]:
        if chunk is not None:
            learner.learn(chunk)
        for weights in (learner.stack.embedding, learner.stack.dense):
            assert torch.equal(weights, weights.bfloat16().float())


def test_low_precision_rounds_a_model_alike_whoever_shares_its_slab() -> None:
    """Matched duplicates of two arms see the same noise, also in a GPU's one slab: here the arms are one function."""
    noise = SOURCES["precision"]
    stack = make_stack("relu", "smelu:beta=0", noise=noise, model=replace(MODEL, compile="off"))
    stack.slabs = [slice(0, len(stack))]
    learner = Learner(stack, noise, seed=7)
    for chunk in make_chunks(learner, 2):
        learner.learn(chunk)
    for duplicate in range(2):
        assert torch.equal(stack.dense[duplicate], stack.dense[duplicate + 2])
        assert torch.equal(stack.embedding[duplicate], stack.embedding[duplicate + 2])
    assert not torch.equal(stack.embedding[0], stack.embedding[1])


def test_low_precision_disturbs_less_than_another_order_of_events() -> None:
    full = learn(NO_NOISE)[1]
    low, shuffled = (np.median(np.abs(learn(SOURCES[name])[1] - full)) for name in ("precision", "window"))
    assert 0 < low < 0.5 * shuffled


def test_stochastic_rounding_goes_to_a_neighbour_and_keeps_the_mean() -> None:
    value = torch.tensor([0.3, -0.3, 1.0, 1e-3, -123.456, 3e-30, 0.0])
    draws, count = generator(0, "rounding"), 20_000
    rounded = round_to_bfloat16(value.repeat(count, 1), draws).double()
    near = value.bfloat16()
    below = torch.where(near <= value, near, torch.nextafter(near, torch.tensor(-torch.inf).bfloat16())).double()
    above = torch.where(near >= value, near, torch.nextafter(near, torch.tensor(torch.inf).bfloat16())).double()
    assert ((rounded == below) | (rounded == above)).all()
    gap = above - below
    odds = torch.where(gap > 0, (value.double() - below) / gap, 0.0)
    error = gap * torch.sqrt(odds * (1 - odds) / count)
    assert ((rounded.mean(0) - value.double()).abs() <= 5 * error + 1e-12 * value.double().abs()).all()
    assert torch.equal(rounded[:, gap == 0], value.double()[gap == 0].expand(count, -1)), "a bfloat16 stays itself"
