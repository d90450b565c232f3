"""The stacked learner against models that learn one after another, and what it promises about every single step."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from simulator.config import NO_NOISE, NoiseConfig
from simulator.models.learner import Learner
from simulator.models.ranking import score_events
from simulator.models.snapshot import read_snapshot, write_snapshot
from simulator.types import Batch, Schema
from tests.models.conftest import MIXED, MODEL, SINGLE, make_chunks, make_events, make_stack
from tests.models.reference import LoneLearner

NORMS = ("none", "before", "after", "weight")
TOLERANCE = 5e-5
"""The reference learns in float64, the stack in float32: some 40 steps of rounding, measured at 5e-6 or less."""
EVERYTHING = NoiseConfig(init="own", window=3, lost=0.2, delay=3, precision="bfloat16", reductions=True)


def make_learner(*specs: str, noise: NoiseConfig = NO_NOISE, **options: object) -> Learner:
    """A learner with its stack; options as of `make_stack`."""
    return Learner(make_stack(*specs, noise=noise, **options), noise, seed=7)  # type: ignore[arg-type]


def lone_learners(learner: Learner) -> list[LoneLearner]:
    """Every model of a learner's stack as it stands, on its own."""
    stack = learner.stack
    dense = stack.layout.views(stack.dense)
    specs = [stack.arms[who.arm].spec for who in stack.members]
    return [
        LoneLearner(stack.schema, stack.model, spec, stack.embedding[m], {name: w[m] for name, w in dense.items()})
        for m, spec in enumerate(specs)
    ]


def learn_alone(lone: LoneLearner, chunk: Batch, order: np.ndarray, delays: np.ndarray, waiting: list) -> Tensor:  # type: ignore[type-arg]
    """One chunk in the given order; gradients wait for as many steps as told. Log-odds in the order of the log."""
    rows, labels = torch.from_numpy(chunk.features), torch.from_numpy(chunk.label)
    predicted = torch.full((len(chunk),), torch.nan, dtype=torch.float64)
    size = lone.config.batch
    for step, start in enumerate(range(0, len(chunk), size)):
        events = torch.from_numpy(order[start : start + size])
        predicted[events], gradient = lone.gradient(rows[events], labels[events])
        waiting.append([int(delays[step]), rows[events], gradient])
        for entry in waiting:
            if entry[0] == 0:
                lone.apply(*entry[1:])
            entry[0] -= 1
        waiting[:] = [entry for entry in waiting if entry[0] >= 0]
    return predicted


def assert_agree(learner: Learner, chunks: list[Batch]) -> None:
    """Learn the chunks both ways and compare every prediction and every weight."""
    lone, stack = lone_learners(learner), learner.stack
    waiting: list[list[object]] = [[] for _ in lone]
    for number, chunk in enumerate(chunks):
        steps = -(-len(chunk) // stack.model.batch)
        draws = [
            (
                learner.noise.order(who, number, len(chunk), stack.model.batch),
                learner.noise.delays(who, number, steps),
            )
            for who in stack.members
        ]
        predicted = torch.from_numpy(learner.learn(chunk))
        for m, (order, delays) in enumerate(draws):
            expected = learn_alone(lone[m], chunk, order, delays, waiting[m])
            torch.testing.assert_close(predicted[m].double(), expected, rtol=TOLERANCE, atol=TOLERANCE)
    dense = stack.layout.views(stack.dense)
    for m, model in enumerate(lone):
        weight = model.embedding.weight.detach()
        torch.testing.assert_close(stack.embedding[m].double(), weight, rtol=TOLERANCE, atol=TOLERANCE)
        torch.testing.assert_close(learner.table_squares[m, 1:].double(), model.squares[1:], rtol=1e-4, atol=1e-6)
        for name, value in model.dense.items():
            torch.testing.assert_close(dense[name][m].double(), value.detach(), rtol=TOLERANCE, atol=TOLERANCE)


def assert_same_state(one: Learner, other: Learner) -> None:
    """Equal to the last bit."""
    first, second = one.state(), other.state()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("compiled", ["auto", "off"])
def test_agrees_with_models_that_learn_alone(norm: str, compiled: str) -> None:
    model = replace(MODEL, norm=norm, compile=compiled)  # type: ignore[arg-type]
    learner = make_learner("relu", "smelu:beta=2", model=model, duplicates=1)
    assert_agree(learner, make_chunks(learner, 3))


@pytest.mark.parametrize("schema", [MIXED, SINGLE], ids=["mixed", "single"])
def test_agrees_where_each_duplicate_has_its_own_order(schema: Schema) -> None:
    learner = make_learner("smelu", schema=schema, noise=NoiseConfig(window=5))
    assert_agree(learner, make_chunks(learner, 4))


@pytest.mark.parametrize("window", [0, 4])
def test_a_delayed_gradient_is_applied_as_many_steps_later(window: int) -> None:
    learner = make_learner("smelu", noise=NoiseConfig(window=window, delay=5))
    assert_agree(learner, make_chunks(learner, 3))


def test_padding_stays_zero_in_every_kind_of_field() -> None:
    """Also where a single-valued field has no value: an empty cell of a log."""
    for schema in (MIXED, SINGLE):
        learner = make_learner(schema=schema)
        for chunk in make_chunks(learner, 2):
            chunk.features[::3, 0] = 0
            learner.learn(chunk)
        assert not learner.stack.embedding[:, 0].any()
        assert_agree(make_learner(schema=schema), [chunk])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_row_that_is_not_in_the_batch_does_not_change(precision: str) -> None:
    learner = make_learner(noise=replace(NO_NOISE, precision=precision))  # type: ignore[arg-type]
    before, squares = learner.stack.embedding.clone(), learner.table_squares.clone()
    chunk = make_events(MIXED, 6)
    learner.learn(chunk)
    used = np.unique(chunk.features[chunk.features > 0])
    absent = np.setdiff1d(np.arange(MIXED.rows), used)
    assert len(used) > 5 and len(absent) > 5
    assert torch.equal(learner.stack.embedding[:, absent], before[:, absent])
    assert torch.equal(learner.table_squares[:, absent], squares[:, absent])
    assert (learner.table_squares[:, used] > squares[:, used]).all()
    assert (learner.stack.embedding[:, used] != before[:, used]).any(-1).all()


def test_predicts_every_event_before_it_learns_from_it() -> None:
    """A mini-batch is scored by the weights before the step, in the order of the log."""
    learner = make_learner(noise=NoiseConfig(window=1))  # shuffled within the one mini-batch
    for start in (0, 8, 16):
        chunk = make_events(MIXED, MODEL.batch, start=start)
        expected = score_events(learner.stack, chunk.features)
        np.testing.assert_allclose(learner.learn(chunk), expected, rtol=1e-5, atol=1e-6)
        assert np.abs(score_events(learner.stack, chunk.features) - expected).max() > 1e-3


def test_matched_duplicates_of_two_arms_start_alike_and_see_the_same_order() -> None:
    """Arms differ in their activation alone: SmeLU of no width is ReLU, to the last bit."""
    learner = make_learner("relu", "smelu:beta=0", noise=NoiseConfig(window=4), duplicates=3)
    for chunk in make_chunks(learner, 2):
        logits = learner.learn(chunk)
    assert np.array_equal(logits[:3], logits[3:]) and not np.array_equal(logits[0], logits[1])
    assert torch.equal(learner.stack.dense[:3], learner.stack.dense[3:])


def test_a_repeated_arm_is_an_independent_set() -> None:
    learner = make_learner("relu", "relu", noise=NoiseConfig(window=4))
    assert [arm.label for arm in learner.stack.arms] == ["relu", "relu#2"]
    assert not torch.equal(learner.stack.dense[0], learner.stack.dense[2])
    assert not torch.equal(learner.stack.embedding[0], learner.stack.embedding[2])
    first, second = learner.stack.members[0], learner.stack.members[2]
    assert not np.array_equal(learner.noise.order(first, 0, 32, 8), learner.noise.order(second, 0, 32, 8))


def test_fleets_start_from_different_initialisations() -> None:
    stack = make_stack(fleets=2)
    assert torch.equal(stack.embedding[0], stack.embedding[1]) and torch.equal(stack.dense[2], stack.dense[3])
    assert not torch.equal(stack.embedding[0], stack.embedding[2]) and not torch.equal(stack.dense[0], stack.dense[2])


@pytest.mark.parametrize("compiled", ["auto", "off"])
@pytest.mark.parametrize("noise", [NO_NOISE, NoiseConfig(window=3), EVERYTHING], ids=["none", "window", "every"])
def test_the_number_of_threads_does_not_matter(noise: NoiseConfig, compiled: str) -> None:
    model = replace(MODEL, compile=compiled)  # type: ignore[arg-type]
    learners = [make_learner("relu", "gelu", noise=noise, model=model, threads=threads) for threads in (1, 2, 3)]
    for chunks in zip(*(make_chunks(learner, 2) for learner in learners), strict=True):
        logits = [learner.learn(chunk) for learner, chunk in zip(learners, chunks, strict=True)]
        assert np.array_equal(logits[0], logits[1]) and np.array_equal(logits[0], logits[2])
    assert_same_state(learners[0], learners[1])
    assert_same_state(learners[0], learners[2])


@pytest.mark.parametrize("noise", [NO_NOISE, NoiseConfig(window=3), EVERYTHING], ids=["none", "window", "every"])
def test_goes_on_from_disk_as_if_it_had_never_stopped(noise: NoiseConfig, tmp_path: Path) -> None:
    steady = make_learner("relu", "smelu", noise=noise)
    chunks = make_chunks(steady, 4)
    for chunk in chunks[:2]:
        steady.learn(chunk)
    state = steady.state()
    assert any(name.startswith("pending") for name in state) == bool(noise.delay)
    write_snapshot(tmp_path / "state", state, {"events": 2})
    resumed = make_learner("relu", "smelu", noise=noise)
    resumed.restore(read_snapshot(tmp_path / "state")[0])
    assert_same_state(steady, resumed)
    for chunk in chunks[2:]:
        assert np.array_equal(steady.learn(chunk), resumed.learn(chunk))
    assert_same_state(steady, resumed)


def test_a_state_stays_as_it_was_while_learning_goes_on() -> None:
    learner = make_learner(noise=NoiseConfig(window=2, delay=2))
    first, second, _ = make_chunks(learner, 3)
    learner.learn(first)
    state = learner.state()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    learner.learn(second)
    assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())


def test_a_learner_goes_with_the_last_reference_to_it() -> None:
    """Who trains afresh at each refresh takes a new one: until a garbage collection a GPU could hold several."""
    learner = make_learner(noise=NoiseConfig(window=2))
    gc.disable()
    try:
        alive = weakref.ref(learner)
        del learner
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("norm", NORMS)
def test_one_slab_for_the_whole_stack_learns_as_slabs_of_one(norm: str) -> None:
    """The GPU's way through the code, on the CPU: all models in one slab, with mixed activations."""
    noise = NoiseConfig(window=4, lost=0.2, reductions=True)
    model = replace(MODEL, norm=norm)  # type: ignore[arg-type]
    specs = ("smelu:beta=2", "swish", "smelu:beta=2")
    alone = make_learner(*specs, noise=noise, model=model, fleets=2)
    whole = make_stack(*specs, noise=noise, model=replace(model, compile="off"), fleets=2)
    whole.slabs = [slice(0, len(whole))]
    together = Learner(whole, noise, seed=7)
    for chunk in make_chunks(alone, 3):
        np.testing.assert_allclose(together.learn(chunk), alone.learn(chunk), rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(whole.dense, alone.stack.dense, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(whole.embedding, alone.stack.embedding, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible to PyTorch here")
@pytest.mark.parametrize("delay", [0, 3])
def test_the_first_chunk_on_a_gpu_is_the_one_on_a_cpu(delay: int) -> None:
    noise = NoiseConfig(window=16, lost=0.1, delay=delay)
    learners = [make_learner("relu", "smelu", noise=noise, device=device) for device in ("cpu", "cuda")]
    chunk = make_chunks(learners[0], 1)[0]
    on_cpu, on_gpu = (learner.learn(chunk) for learner in learners)
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-3, atol=1e-3)  # rounding
