"""Cures against plain models put together by hand, and against autograd in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from simulator.config import NO_NOISE, ModelConfig, NoiseConfig
from simulator.errors import SettingError
from simulator.models.cures import Anchor, Antidistill, Average, Codistill, Cure, Ensemble, Fresh
from simulator.models.duplicates import parse_arms
from simulator.models.fresh import FreshLearner
from simulator.models.learner import Learner
from simulator.models.network import Layout
from simulator.models.ranking import score_events
from simulator.models.specs import split
from simulator.types import Batch
from tests.models.conftest import MIXED, MODEL, make_chunks, make_events, make_stack
from tests.models.reference import LoneLearner

TOLERANCE = 5e-5
EVERYTHING = NoiseConfig(init="own", window=3, lost=0.2, delay=3, precision="bfloat16", reductions=True)
SHUFFLED = NoiseConfig(window=4, lost=0.2)
ALL = ("ensemble:relu:m=3", "codistill:relu", "antidistill:relu", "anchor:relu", "average:relu")


def make_learner(*specs: str, noise: NoiseConfig = NO_NOISE, **options: object) -> Learner:
    return Learner(make_stack(*specs, noise=noise, **options), noise, seed=7)  # type: ignore[arg-type]


def learn(learner: Learner, chunks: list[Batch], refresh: bool = False) -> np.ndarray:
    """Log-odds [M, all events] before learning; `refresh` after each chunk."""
    found = []
    for chunk in chunks:
        found.append(learner.learn(chunk))
        if refresh:
            learner.refresh()
    return np.concatenate(found, axis=1)


@pytest.mark.parametrize(
    "spec, cure, function",
    [
        ("smelu:beta=1", Cure(), "smelu:beta=1"),
        ("ensemble:relu:m=3", Ensemble(3), "relu"),
        ("ensemble:relu:m=3,narrow", Ensemble(3, narrow=True), "relu"),
        ("ensemble:smelu:beta=1,m=3", Ensemble(3), "smelu:beta=1"),
        ("antidistill:gsmelu:alpha=2,m=2,beta=1,weight=0.5", Antidistill(2, 0.5), "gsmelu:alpha=2,beta=1"),
        ("codistill:relu", Codistill(2), "relu"),
        ("average:relu:decay=0.9", Average(0.9), "relu"),
        ("anchor:relu:weight=2", Anchor(2.0), "relu"),
        ("fresh:relu:last=2", Fresh(2), "relu"),
    ],
)
def test_a_spec_is_a_cure_and_an_activation(spec: str, cure: Cure, function: str) -> None:
    assert split(spec) == (cure, function)
    (arm,) = parse_arms((spec,))
    assert (arm.label, arm.cure, arm.function) == (spec, cure, function)


@pytest.mark.parametrize(
    "spec, message",
    [
        ("ensemble", "arm = ensemble: an activation, as in ensemble:relu"),
        ("ensemble:relu:k=3", "ensemble:relu: parameter = k=3: one of m, narrow, each at most once"),
        ("ensemble:smelu:k=3", "ensemble:smelu: parameter = k=3: one of m, narrow, beta, each at most once"),
        ("ensemble:rely:m=3", "activation = rely: one of linear"),
        ("ensemble:relu:m=3,m=2", "ensemble: parameter = m=2: m at most once"),
        ("ensemble:relu:m=2.5", "ensemble: m = 2.5: a whole number, such as 3"),
        ("ensemble:relu:m=0", "ensemble: m = 0: from 1 to 64 models"),
        ("ensemble:relu:narrow=yes", "ensemble: narrow = yes: no value: the word alone"),
        ("codistill:relu:m=1", "codistill: m = 1: from 2 to 64 models"),
        ("codistill:relu:weight=-1", "codistill: weight = -1.0: from 0 to 1e6"),
        ("anchor:relu:weight=nan", "anchor: weight = nan: from 0 to 1e6"),
        ("anchor:relu:weight", "anchor: weight = (empty): a number, such as 0.5"),
        ("average:relu:decay=1", "average: decay = 1.0: from 0 (no average) to below 1"),
        ("fresh:relu:last=0", "fresh: last = 0: from 1 to 1,000 generations"),
    ],
)
def test_a_spec_that_cannot_be_read_is_one_line(spec: str, message: str) -> None:
    with pytest.raises(SettingError) as problem:
        parse_arms((spec,))
    assert str(problem.value).startswith(message) and "\n" not in str(problem.value)


@pytest.mark.parametrize("compiled", ["auto", "off"])
@pytest.mark.parametrize(
    "spec", ["ensemble:relu:m=1", "codistill:relu:m=3,weight=0", "anchor:relu:weight=0", "average:relu:decay=0"]
)
def test_a_cure_of_no_strength_is_the_plain_arm_to_the_last_bit(spec: str, compiled: str) -> None:
    learner = make_learner("relu", spec, noise=SHUFFLED, model=replace(MODEL, compile=compiled))  # type: ignore[arg-type]
    stack, m = learner.stack, learner.stack.arms[1].cure.m
    for chunk in make_chunks(learner, 3):
        logits = learner.learn(chunk)
        if spec.startswith("average"):  # what it served: the weights after the last chunk, for the whole of this one
            logits[2:] = logits[:2]
        assert np.array_equal(logits[2::m], logits[:2])
        learner.refresh()
    assert torch.equal(stack.dense[2::m], stack.dense[:2]) and torch.equal(stack.embedding[2::m], stack.embedding[:2])
    scores = stack.served(score_events(stack, make_events(MIXED, 20, seed=3).features))
    assert np.array_equal(scores[2:], scores[:2]) and not np.array_equal(scores[0], scores[1])


def test_an_ensemble_is_the_mean_of_models_that_learn_apart() -> None:
    """Plain duplicates, put where each part starts, learn the same in the same order."""
    joint = make_learner("ensemble:relu:m=3", noise=SHUFFLED)
    chunks, probe = make_chunks(joint, 3), make_events(MIXED, 20, seed=3).features
    alone = [make_learner("relu", noise=SHUFFLED) for _ in range(3)]
    for part, learner in enumerate(alone):
        for duplicate in range(2):
            learner.stack.dense[duplicate] = joint.stack.dense[3 * duplicate + part]
            learner.stack.embedding[duplicate] = joint.stack.embedding[3 * duplicate + part]
    assert len({float(learner.stack.dense[0, 0]) for learner in alone}) == 3
    before = [learn(learner, chunks) for learner in alone]
    np.testing.assert_array_equal(joint.stack.served(learn(joint, chunks)), np.stack(before).mean(0))
    after = [score_events(learner.stack, probe) for learner in alone]
    np.testing.assert_array_equal(joint.stack.served(score_events(joint.stack, probe)), np.stack(after).mean(0))


def test_the_first_part_starts_as_a_plain_arm_and_the_parts_are_those_of_all_duplicates() -> None:
    stack = make_stack("relu", "codistill:relu:m=2", fleets=2)
    by_part = stack.dense[4:].view(2, 2, 2, -1)  # fleet, duplicate, part
    assert torch.equal(by_part[:, :, 0].flatten(0, 1), stack.dense[:4])
    assert torch.equal(by_part[:, 0], by_part[:, 1])
    assert not torch.equal(by_part[:, :, 0], by_part[:, :, 1]) and not torch.equal(by_part[0], by_part[1])


def loss(cure: Cure, logits: list[Tensor], labels: Tensor) -> Tensor:
    """Of all parts for a mini-batch, summed over its events, as the papers write it."""

    def entropy(z: Tensor, towards: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(z, towards, reduction="sum")

    if isinstance(cure, Antidistill):
        correlations = torch.corrcoef(torch.stack(logits))
        pairs = torch.triu_indices(len(logits), len(logits), 1)
        push = (correlations[pairs[0], pairs[1]] ** 2).mean()
        return torch.stack([entropy(z, labels) for z in logits]).sum() + cure.weight * len(labels) * push
    assert isinstance(cure, Codistill)
    total = torch.zeros((), dtype=torch.float64)
    for i, z in enumerate(logits):
        others = torch.stack([torch.sigmoid(other) for j, other in enumerate(logits) if j != i]).mean(0).detach()
        total = total + (entropy(z, labels) + cure.weight * entropy(z, others)) / (1 + cure.weight)
    return total


COUPLED = [Codistill(2), Codistill(3, 0.3), Antidistill(2, 0.7), Antidistill(4, 5.0)]


@pytest.mark.parametrize("cure", COUPLED, ids=str)
def test_targets_are_the_gradient_of_the_loss(cure: Cure) -> None:
    """Two duplicates of m parts: d loss / d z = p - target."""
    draws = torch.Generator().manual_seed(1)
    z = torch.randn(2 * cure.m, 12, dtype=torch.float64, generator=draws).requires_grad_()
    labels = (torch.rand(1, 12, generator=draws) < 0.4).double().expand(2 * cure.m, 12)
    total = sum(loss(cure, list(each), labels[0]) for each in z.view(2, cure.m, 12))
    assert isinstance(total, Tensor)
    (expected,) = torch.autograd.grad(total, z)
    torch.testing.assert_close(torch.sigmoid(z.detach()) - cure.targets(z.detach(), labels), expected)


@pytest.mark.parametrize("events", [1, 8])
def test_equal_predictions_for_all_events_are_pushed_nowhere(events: int) -> None:
    labels = torch.ones(3, events)
    assert torch.equal(Antidistill(3, 1.0).targets(torch.full((3, events), 0.25), labels), labels)


@pytest.mark.parametrize("compiled", ["auto", "off"])
@pytest.mark.parametrize("spec", ["codistill:smelu:m=3,weight=0.7", "antidistill:smelu:m=2,weight=0.5"])
def test_coupled_parts_learn_as_by_autograd_on_their_joint_loss(spec: str, compiled: str) -> None:
    model = replace(MODEL, compile=compiled)  # type: ignore[arg-type]
    learner = make_learner(spec, noise=NoiseConfig(window=4), model=model)
    stack, cure = learner.stack, learner.stack.arms[0].cure
    dense = stack.layout.views(stack.dense)
    lone = [
        LoneLearner(MIXED, model, "smelu", stack.embedding[m], {name: w[m] for name, w in dense.items()})
        for m in range(len(stack))
    ]
    for number, chunk in enumerate(make_chunks(learner, 3)):
        logits = learner.learn(chunk)
        rows, labels = torch.from_numpy(chunk.features), torch.from_numpy(chunk.label).double()
        for start in range(0, len(stack), cure.m):
            parts = lone[start : start + cure.m]
            order = learner.noise.order(stack.members[start], number, len(chunk), model.batch)
            for first in range(0, len(chunk), model.batch):
                events = torch.from_numpy(order[first : first + model.batch])
                predicted = [part.predict(rows[events]) for part in parts]
                for part, given in zip(range(start, start + cure.m), predicted, strict=True):
                    expected = given.detach().numpy()
                    np.testing.assert_allclose(logits[part, events], expected, rtol=TOLERANCE, atol=TOLERANCE)
                total = loss(cure, predicted, labels[events]) / model.batch
                wanted = [[part.embedding.weight, *part.dense.values()] for part in parts]
                found = iter(torch.autograd.grad(total, [weight for own in wanted for weight in own]))
                for part, own in zip(parts, wanted, strict=True):
                    part.apply(rows[events], tuple(next(found) for _ in own))


@pytest.mark.parametrize("compiled", ["auto", "off"])
def test_an_anchored_model_learns_from_labels_mixed_with_its_last_generations_predictions(compiled: str) -> None:
    model = replace(MODEL, compile=compiled)  # type: ignore[arg-type]
    learner = make_learner("gelu", "anchor:gelu:weight=3", noise=NoiseConfig(window=4), model=model)
    chunks, stack = make_chunks(learner, 4), learner.stack
    for chunk in chunks[:2]:
        logits = learner.learn(chunk)
        assert np.array_equal(logits[:2], logits[2:])  # nothing to be anchored to yet
    learner.refresh()
    dense = stack.layout.views(stack.dense)
    lone, before = (
        [LoneLearner(MIXED, model, "gelu", stack.embedding[m], {n: w[m] for n, w in dense.items()}) for m in (2, 3)]
        for _ in range(2)
    )
    for m, each in enumerate(lone, 2):
        each.squares = learner.table_squares[m].double().clone()
        for name, parameter in each.dense.items():
            held = learner.stack.layout.views(learner.dense_squares)[name][m].double()
            each.optimizer.state[parameter]["sum"].copy_(held)
    for number, chunk in enumerate(chunks[2:], 2):
        logits = learner.learn(chunk)
        rows, labels = torch.from_numpy(chunk.features), torch.from_numpy(chunk.label).double()
        for m, (own, old) in enumerate(zip(lone, before, strict=True), 2):
            targets = (labels + 3 * torch.sigmoid(old.predict(rows).detach())) / 4
            order = learner.noise.order(stack.members[m], number, len(chunk), model.batch)
            for first in range(0, len(chunk), model.batch):
                events = torch.from_numpy(order[first : first + model.batch])
                predicted, gradient = own.gradient(rows[events], targets[events])
                np.testing.assert_allclose(logits[m, events], predicted.numpy(), rtol=TOLERANCE, atol=TOLERANCE)
                own.apply(rows[events], gradient)


@pytest.mark.parametrize("noise", [SHUFFLED, EVERYTHING], ids=["shuffled", "every noise"])
def test_an_average_is_the_forgetting_mean_of_the_weights_after_each_window(noise: NoiseConfig) -> None:
    plain, averaged = make_learner("swish", noise=noise), make_learner("average:swish:decay=0.9", noise=noise)
    weights: list[Tensor] = []
    shares = np.empty(0)
    for number, chunk in enumerate(make_chunks(plain, 4), 1):
        served = score_events(averaged.stack, chunk.features)
        plain.learn(chunk)
        assert np.array_equal(averaged.learn(chunk), served)
        weights.append(torch.cat([plain.stack.dense, plain.stack.embedding.flatten(1)], 1).double())
        newest = max(1 / number, 1 - 0.9)
        shares = np.append(shares * (1 - newest), newest)
        assert shares.sum() == pytest.approx(1)
        expected = sum(share * each for share, each in zip(shares, weights, strict=True))
        found = torch.cat([averaged.stack.dense, averaged.stack.embedding.flatten(1)], 1)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    assert not torch.equal(averaged.stack.dense, plain.stack.dense)


def test_trained_afresh_is_new_models_on_the_last_generations() -> None:
    noise = NoiseConfig(window=4)
    stack = make_stack("fresh:relu:last=2", noise=noise)
    fresh, plain = FreshLearner(stack, noise, seed=7), make_learner("relu", noise=noise)
    chunks, probe = make_chunks(plain, 6), make_events(MIXED, 20, seed=3).features
    assert np.array_equal(learn(fresh, chunks[:2]), learn(plain, chunks[:2]))  # type: ignore[arg-type]
    for generation in (1, 2, 3):
        fresh.refresh()
        served = score_events(fresh.stack, probe)
        if generation == 1:
            assert np.array_equal(served, score_events(plain.stack, probe))
        else:
            again = make_learner("relu", noise=noise)
            again.stack.initialise(generation)
            assert not torch.equal(again.stack.dense, make_stack("relu").dense)
            assert torch.equal(again.stack.dense[0], again.stack.dense[1])
            again.chunks = 2 * (generation - 2)
            learn(again, chunks[2 * (generation - 2) : 2 * generation])
            assert np.array_equal(served, score_events(again.stack, probe))
        for chunk in chunks[2 * generation : 2 * generation + 2]:
            assert np.array_equal(fresh.learn(chunk), score_events(fresh.stack, chunk.features))
        assert np.array_equal(served, score_events(fresh.stack, probe))


@pytest.mark.parametrize("noise", [SHUFFLED, EVERYTHING], ids=["shuffled", "every noise"])
def test_every_cure_goes_on_from_its_state_as_if_it_had_never_stopped(noise: NoiseConfig) -> None:
    steady, resumed = (make_learner(*ALL, noise=noise, threads=threads) for threads in (1, 3))
    chunks = make_chunks(steady, 5)
    learn(steady, chunks[:3], refresh=True)
    state = {name: tensor.clone() for name, tensor in steady.state().items()}
    expected = learn(steady, chunks[3:], refresh=True)
    resumed.restore(state)
    assert np.array_equal(learn(resumed, chunks[3:], refresh=True), expected)
    first, second = steady.state(), resumed.state()
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_one_slab_for_all_arms_learns_as_slabs_of_one() -> None:
    """The GPU's way: whole duplicates of coupled and other arms side by side."""
    alone, whole = make_learner(*ALL, noise=SHUFFLED), make_stack(*ALL, model=replace(MODEL, compile="off"))
    whole.slabs = [slice(0, len(whole))]
    together, chunks = Learner(whole, SHUFFLED, seed=7), make_chunks(alone, 4)
    expected = learn(alone, chunks, refresh=True)
    np.testing.assert_allclose(learn(together, chunks, refresh=True), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("m", [1, 2, 3, 5])
def test_a_narrow_ensemble_has_no_more_parameters_than_one_plain_model(m: int) -> None:
    model = ModelConfig()
    part = Ensemble(m, narrow=True).model(MIXED, model)
    used, most = Layout(MIXED, part).parameters * m, Layout(MIXED, model).parameters
    assert 0.93 * most < used <= most and part.dim == 16 // m
    assert replace(part, dim=16, hidden=model.hidden) == model


def test_a_model_too_small_to_be_divided_is_one_line() -> None:
    with pytest.raises(SettingError, match="ensemble: narrow, m = 6: at most the embedding length \\(5\\)"):
        Ensemble(6, narrow=True).model(MIXED, MODEL)
