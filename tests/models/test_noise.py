"""Each noise source alone: it makes duplicates differ, in the way that it says, and in no other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from simulator.config import NO_NOISE, NoiseConfig
from simulator.models.engine import Engine
from simulator.models.noise import ModelIdentity, Noise, round_to_bfloat16
from simulator.randomness import generator
from simulator.types import Floats
from tests.models.conftest import (
    BUILT_IN,
    ENGINES,
    MIXED,
    MODEL,
    NATIVE,
    ODD,
    OWN,
    TORCH,
    Kind,
    flat,
    make_chunks,
    make_engine,
    make_events,
    teach,
    weighted,
)

SOURCES = {
    "init": replace(NO_NOISE, init="own"),
    "window": replace(NO_NOISE, window=4),
    "lost": replace(NO_NOISE, lost=0.2),
    "delay": replace(NO_NOISE, delay=4),
    "precision": replace(NO_NOISE, precision="bfloat16"),
    "reductions": replace(NO_NOISE, reductions=True),
    "changed": replace(NO_NOISE, changed=1),
}
WHO = ModelIdentity(fleet=1, duplicate=2)


def is_tried(kind: Kind, source: str) -> bool:
    """The kernels have not all; another module is tried with what reaches into its optimiser and buffers."""
    inside = source in ("delay", "precision")
    return inside if kind is ODD else kind is not NATIVE or not inside


every_source = pytest.mark.parametrize(
    ("kind", "source"),
    [
        pytest.param(*engine.values, source, id=f"{engine.id}-{source}", marks=engine.marks)
        for engine in ENGINES
        for source in SOURCES
        if is_tried(engine.values[0], source)
    ],
)


def learn(kind: Kind, noise: NoiseConfig, threads: int = 1) -> tuple[Engine, Floats]:
    """Three matched duplicates after 16 mini-batches, and their log-odds of fresh events."""
    engine = make_engine(kind, "smelu", noise=noise, duplicates=3, threads=threads)
    teach(engine, make_chunks(engine, 16 // (noise.window or 16)))
    return engine, engine.score_events(make_events(MIXED, 50, seed=1).features)


@every_source
def test_each_source_alone_makes_duplicates_differ_and_alike_in_every_run(kind: Kind, source: str) -> None:
    start = make_engine(kind, noise=SOURCES[source])
    assert torch.equal(*flat(start.weights)) == (source != "init"), "before learning"
    engine, scores = learn(kind, SOURCES[source])
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(flat(engine.weights)[one], flat(engine.weights)[other])
        assert not np.array_equal(scores[one], scores[other])
    assert np.array_equal(learn(kind, SOURCES[source], threads=2)[1], scores)


@pytest.mark.parametrize("kind", [*BUILT_IN, pytest.param(OWN, id="own")])  # dropout hits other events in another order
def test_reductions_differ_by_rounding_alone(kind: Kind) -> None:
    _, scores = learn(kind, SOURCES["reductions"])
    gap = np.abs(scores[0] - scores[1]).max()
    assert 0 < gap < 1e-4 * np.abs(scores[0]).max()


def test_a_window_shuffles_all_of_a_chunk_and_each_chunk_anew() -> None:
    noise = Noise(NoiseConfig(window=4), 7)
    orders = [noise.order(WHO, chunk, 32, 8) for chunk in range(3)]
    orders += [noise.order(replace(WHO, duplicate=0), 0, 32, 8), noise.order(replace(WHO, fleet=0), 0, 32, 8)]
    orders += [noise.order(replace(WHO, copy=1), 0, 32, 8), Noise(NoiseConfig(window=4), 8).order(WHO, 0, 32, 8)]
    assert all(sorted(order) == list(range(32)) for order in orders)
    assert len({tuple(order) for order in orders}) == len(orders)
    assert np.array_equal(noise.order(replace(WHO, part=5), 0, 32, 8), orders[0]), "the parts of a cure see the same"


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
    assert not len(noise.left_out(WHO, 0, np.ones(9, np.float32)))


def test_lost_and_delays_have_the_declared_odds() -> None:
    noise = Noise(NoiseConfig(lost=0.3, delay=4), 7)
    share = noise.lost(WHO, 0, 40_000).mean()
    assert abs(share - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 40_000)
    counts = np.bincount(noise.delays(WHO, 0, 40_000), minlength=5)
    assert len(counts) == 5 and np.abs(counts / 40_000 - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / 40_000)


@pytest.mark.parametrize("kind", [*BUILT_IN, pytest.param(OWN, id="own")])
def test_a_changed_duplicate_learns_as_if_it_gave_its_own_engagements_no_weight(kind: Kind) -> None:
    noise = NoiseConfig(window=0, reductions=True, changed=3)
    engine, plain = (make_engine(kind, noise=each, duplicates=3) for each in (noise, replace(noise, changed=0)))
    chunks = weighted(make_chunks(engine, 2))
    given, expected = (teach(each, chunks) for each in (engine, plain))
    assert np.array_equal(given[0], expected[0]), "the first leaves out nothing"
    assert torch.equal(flat(engine.weights)[0], flat(plain.weights)[0])
    for duplicate in (1, 2):
        alone = make_engine(kind, noise=replace(noise, changed=0), duplicates=3)
        left_out = engine.noise.left_out(engine.members[duplicate], 0, chunks[0].label)
        assert len(set(left_out)) == 3 and chunks[0].label[left_out].all()
        weight = chunks[0].weight
        assert weight is not None
        weight = weight.copy()
        weight[left_out] = 0
        teach(alone, [replace(chunks[0], weight=weight), chunks[1]])
        assert torch.equal(flat(engine.weights)[duplicate], flat(alone.weights)[duplicate])
        assert not torch.equal(flat(engine.weights)[duplicate], flat(plain.weights)[duplicate])


def test_who_leaves_out_what_is_drawn_from_the_engagements_of_the_first_chunk() -> None:
    noise, labels = Noise(NoiseConfig(changed=4), 7), np.repeat(np.array([0, 1], np.float32), 500)
    generator_states = [noise.left_out(replace(WHO, duplicate=each), 0, labels) for each in range(3)]
    assert [len(set(places)) for places in generator_states] == [0, 4, 4] and set(generator_states[1]) != set(
        generator_states[2]
    )
    assert all(500 <= place < 1_000 for places in generator_states for place in places)
    assert np.array_equal(noise.left_out(replace(WHO, part=3), 0, labels), generator_states[2]), (
        "the parts of a cure see the same"
    )
    assert not len(noise.left_out(WHO, 1, labels)) and not len(noise.left_out(WHO, 0, labels[:500]))
    assert sorted(noise.left_out(WHO, 0, labels[498:502])) == [2, 3], "all there are"


def test_a_delay_of_0_steps_is_exactly_no_delay_and_a_longer_one_waits() -> None:
    delayed = make_engine(TORCH, noise=replace(NO_NOISE, delay=1), duplicates=8)
    plain = make_engine(TORCH, duplicates=8)
    start, chunk = plain.weights.dense.clone(), make_events(MIXED, MODEL.batch)
    assert np.array_equal(plain.learn(chunk), delayed.learn(chunk))
    delays = [delayed.noise.delays(who, 0, 1)[0] for who in delayed.members]
    assert set(delays) == {0, 1}
    for m, delay in enumerate(delays):
        expected = start if delay else plain.weights.dense
        assert torch.equal(delayed.weights.dense[m], expected[m])
        assert (f"pending.{m}.0.due" in delayed.state()) == delay


def test_low_precision_keeps_every_weight_in_bfloat16_and_disturbs_less_than_another_order() -> None:
    noise = SOURCES["precision"]
    start, (engine, low) = make_engine(TORCH, noise=noise), learn(TORCH, noise)
    for weights in (start.weights, engine.weights):
        assert torch.equal(weights.dense, weights.dense.bfloat16().float())
        assert torch.equal(weights.table, weights.table.bfloat16().float())
    full, shuffled = learn(TORCH, NO_NOISE)[1], learn(TORCH, SOURCES["window"])[1]
    near, far = (np.median(np.abs(scores - full)) for scores in (low, shuffled))
    assert 0 < near < 0.5 * far


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
