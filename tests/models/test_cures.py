"""Cures against plain models put together by hand, and against autograd in float64."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from simulator.config import ModelConfig, NoiseConfig
from simulator.errors import SettingError
from simulator.models.click_model import Layout, dense_parameters
from simulator.models.cures import Antidistill, Codistill, Cure, Ensemble
from simulator.models.engine import Engine
from tests.models.conftest import (
    BUILT_IN,
    ENGINES,
    EXACT,
    MIXED,
    MODEL,
    OWN,
    SHUFFLED,
    Kind,
    flat,
    make_chunks,
    make_engine,
    make_events,
    teach,
)
from tests.models.reference import LoneLearner

every_engine = pytest.mark.parametrize("kind", ENGINES)
PROBE = make_events(MIXED, 20, seed=3).features


@every_engine
@pytest.mark.parametrize(
    "spec", ["ensemble:relu:m=1", "codistill:relu:m=3,weight=0", "anchor:relu:weight=0", "average:relu:decay=0"]
)
def test_a_cure_of_no_strength_is_the_plain_arm_to_the_last_bit(kind: Kind, spec: str) -> None:
    plain, cured = (make_engine(kind, each, noise=SHUFFLED) for each in ("relu", spec))
    m = cured.arm.cure.m
    for chunk in make_chunks(plain, 3):
        expected, logits = plain.learn(chunk), cured.learn(chunk)
        if not spec.startswith("average"):  # what it serves are the weights after the last chunk, for all of the next
            assert np.array_equal(logits, expected)
        cured.refresh()
    assert torch.equal(flat(cured.weights)[::m], flat(plain.weights))
    scores = plain.score_events(PROBE)
    assert np.array_equal(cured.score_events(PROBE), scores) and not np.array_equal(scores[0], scores[1])


@pytest.mark.parametrize("kind", [*BUILT_IN, pytest.param(OWN, id="own")])  # each part drops out other units
def test_an_ensemble_is_the_mean_of_models_that_learn_apart(kind: Kind) -> None:
    """Plain duplicates, put where each part starts, learn the same in the same order."""
    joint = make_engine(kind, "ensemble:relu:m=3", noise=SHUFFLED)
    chunks, alone = make_chunks(joint, 2), [make_engine(kind, noise=SHUFFLED) for _ in range(3)]
    for part, engine in enumerate(alone):
        for name, tensor in engine.weights.tensors.items():
            tensor.copy_(joint.weights.tensors[name][part::3])
    assert len({tuple(flat(engine.weights)[0].tolist()) for engine in alone}) == 3
    before = [teach(engine, chunks) for engine in alone]
    after = [engine.score_events(PROBE) for engine in alone]
    close = {"rtol": 0, "atol": 0} if kind.device == "cpu" else {"rtol": 1e-3, "atol": 1e-3}
    np.testing.assert_allclose(teach(joint, chunks), np.stack(before).mean(0), **close)
    np.testing.assert_allclose(joint.score_events(PROBE), np.stack(after).mean(0), **close)


@every_engine
def test_the_first_part_starts_as_a_plain_arm_and_the_parts_are_those_of_all_duplicates(kind: Kind) -> None:
    plain, joint = (make_engine(kind, spec, fleets=2) for spec in ("relu", "codistill:relu:m=2"))
    by_part = flat(joint.weights).view(2, 2, 2, -1)  # fleet, duplicate, part
    assert torch.equal(by_part[:, :, 0].flatten(0, 1), flat(plain.weights))
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


def alone(engine: Engine) -> list[LoneLearner]:
    """Every model of an engine as it stands, its sums of squares included, on its own."""
    dense, squares = (engine.layout.views(each.dense) for each in (engine.weights, engine.squares))
    found = []
    for m, table in enumerate(engine.weights.table):
        own = {name: values[m] for name, values in dense.items()}
        found.append(lone := LoneLearner(MIXED, engine.model, engine.arm.function, table, own))
        lone.squares = engine.squares.table[m].double().clone()
        for name, parameter in lone.dense.items():
            lone.optimizer.state[parameter]["sum"].copy_(squares[name][m].double())
    return found


exactly_and_natively = pytest.mark.parametrize(
    ("kind", "tolerance"), [pytest.param(EXACT, 1e-9, id="exact"), pytest.param(*ENGINES[0].values, 5e-5, id="native")]
)


@exactly_and_natively
@pytest.mark.parametrize("spec", ["codistill:smelu:m=3,weight=0.7", "antidistill:smelu:m=2,weight=0.5"])
def test_coupled_parts_learn_as_by_autograd_on_their_joint_loss(kind: Kind, tolerance: float, spec: str) -> None:
    engine = make_engine(kind, spec, noise=NoiseConfig(window=4))
    cure, lone = engine.arm.cure, alone(engine)
    for number, chunk in enumerate(make_chunks(engine, 2)):
        logits = engine.learn(chunk)
        rows, labels = torch.from_numpy(chunk.features), torch.from_numpy(chunk.label).double()
        for served, start in enumerate(range(0, len(engine), cure.m)):
            parts = lone[start : start + cure.m]
            order = engine.noise.order(engine.members[start], number, len(chunk), MODEL.batch)
            for first in range(0, len(chunk), MODEL.batch):
                events = torch.from_numpy(order[first : first + MODEL.batch])
                predicted = [part.predict(rows[events]) for part in parts]
                answer = torch.stack(predicted[: cure.served_parts]).mean(0).detach().numpy()
                np.testing.assert_allclose(logits[served, events], answer, rtol=tolerance, atol=tolerance)
                total = loss(cure, predicted, labels[events]) / MODEL.batch
                wanted = [[part.embedding.weight, *part.dense.values()] for part in parts]
                found = iter(torch.autograd.grad(total, [weight for own in wanted for weight in own]))
                for part, own in zip(parts, wanted, strict=True):
                    part.apply(rows[events], tuple(next(found) for _ in own))
    dense = engine.layout.views(engine.weights.dense)
    for m, part in enumerate(lone):
        for name, value in part.dense.items():
            torch.testing.assert_close(dense[name][m].double(), value.detach(), rtol=tolerance, atol=tolerance)


@exactly_and_natively
def test_an_anchored_model_learns_from_labels_mixed_with_its_last_generations_predictions(
    kind: Kind, tolerance: float
) -> None:
    plain, engine = (make_engine(kind, s, noise=NoiseConfig(window=4)) for s in ("gelu", "anchor:gelu:weight=3"))
    chunks = make_chunks(engine, 4)
    assert np.array_equal(teach(engine, chunks[:2]), teach(plain, chunks[:2]))  # nothing to be anchored to yet
    engine.refresh()
    lone, before = alone(engine), alone(engine)
    for number, chunk in enumerate(chunks[2:], 2):
        logits = engine.learn(chunk)
        rows, labels = torch.from_numpy(chunk.features), torch.from_numpy(chunk.label).double()
        for m, (own, old) in enumerate(zip(lone, before, strict=True)):
            targets = (labels + 3 * torch.sigmoid(old.predict(rows).detach())) / 4
            order = engine.noise.order(engine.members[m], number, len(chunk), MODEL.batch)
            for first in range(0, len(chunk), MODEL.batch):
                events = torch.from_numpy(order[first : first + MODEL.batch])
                predicted, gradient = own.gradient(rows[events], targets[events])
                np.testing.assert_allclose(logits[m, events], predicted.numpy(), rtol=tolerance, atol=tolerance)
                own.apply(rows[events], gradient)


@every_engine
def test_an_average_is_the_forgetting_mean_of_the_weights_after_each_window(kind: Kind) -> None:
    plain, averaged = (make_engine(kind, s, noise=kind.every_noise) for s in ("swish", "average:swish:decay=0.8"))
    weights: list[Tensor] = []
    shares = np.empty(0)
    for number, chunk in enumerate(make_chunks(plain, 7), 1):
        served = averaged.score_events(chunk.features)
        plain.learn(chunk)
        assert np.array_equal(averaged.learn(chunk), served)
        weights.append(flat(plain.weights))
        newest = max(1 / number, 1 - 0.8)
        shares = np.append(shares * (1 - newest), newest)
        assert shares.sum() == pytest.approx(1)
        expected = sum(share * each for share, each in zip(shares, weights, strict=True))
        torch.testing.assert_close(flat(averaged.served), expected, rtol=1e-5, atol=1e-6)
    assert not torch.equal(flat(averaged.served), flat(plain.weights))


@every_engine
def test_trained_afresh_is_new_models_on_the_last_generations(kind: Kind) -> None:
    noise = NoiseConfig(window=4)
    fresh, plain = (make_engine(kind, spec, noise=noise) for spec in ("fresh:relu:last=2", "relu"))
    chunks = make_chunks(plain, 6)
    assert np.array_equal(teach(fresh, chunks[:2]), teach(plain, chunks[:2]))
    for generation in (1, 2, 3):
        fresh.refresh()
        served = fresh.score_events(PROBE)
        if generation == 1:
            assert np.array_equal(served, plain.score_events(PROBE))
        else:
            again = make_engine(kind, noise=noise)
            start = flat(again.weights)
            again.initialise(generation)
            assert not torch.equal(flat(again.weights), start)
            assert torch.equal(*flat(again.weights))
            again.chunks = 2 * (generation - 2)
            teach(again, chunks[2 * (generation - 2) : 2 * generation])
            assert np.array_equal(served, again.score_events(PROBE))
        for chunk in chunks[2 * generation : 2 * generation + 2]:
            assert np.array_equal(fresh.learn(chunk), fresh.score_events(chunk.features))
        assert np.array_equal(served, fresh.score_events(PROBE))


@pytest.mark.parametrize("m", [1, 2, 3, 5])
def test_a_narrow_ensemble_has_no_more_parameters_than_one_plain_model(m: int) -> None:
    model = ModelConfig()
    part = Ensemble(m, narrow=True).model(model, partial(dense_parameters, MIXED))
    used, most = Layout(MIXED, part).parameters * m, Layout(MIXED, model).parameters
    assert 0.93 * most < used <= most and part.dim == 16 // m
    assert replace(part, dim=16, hidden=model.hidden) == model


def test_a_model_too_small_to_be_divided_is_one_line() -> None:
    with pytest.raises(SettingError, match="ensemble: narrow, m = 6: at most the embedding length \\(5\\)"):
        Ensemble(6, narrow=True).model(MODEL, partial(dense_parameters, MIXED))
