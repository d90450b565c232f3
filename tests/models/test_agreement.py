"""The engines agree with one another, with models that learn alone, and one model at a time with all in one step."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from simulator.config import NO_NOISE, NoiseConfig
from simulator.models import activations
from simulator.models.engine import Engine
from simulator.models.torch_engine import TorchEngine
from simulator.types import Batch, Schema
from tests.models.conftest import (
    CURES,
    EXACT,
    MIXED,
    MODEL,
    NATIVE,
    NO_GPU,
    NO_KERNELS,
    SHUFFLED,
    SINGLE,
    TORCH,
    Kind,
    make_chunks,
    make_engine,
    make_events,
    teach,
    weighted,
)
from tests.models.reference import LoneLearner

ROUNDING = 5e-5
"""Between a learner in float64 and one in float32 after some 20 steps."""


class OneStep(TorchEngine):
    """The GPU's way on the CPU: all models of the arm learn in one step, where vmap takes them."""

    _one_step_for_all = True


@NO_KERNELS
@pytest.mark.parametrize(
    ("norm", "spec", "schema"), [("none", "relu", SINGLE), ("before", "swish", MIXED), ("after", "smelu", MIXED)]
)
def test_one_step_from_equal_weights_is_the_same_in_both_engines(norm: str, spec: str, schema: Schema) -> None:
    model = replace(MODEL, norm=norm)  # type: ignore[arg-type]
    native, plain = (make_engine(kind, spec, model=model, schema=schema) for kind in (NATIVE, TORCH))
    chunks = make_chunks(native, 2, schema)
    native.learn(chunks[0])
    state = native.state()
    state["progress"][2] = 0  # which engine made it
    plain.restore(state)
    batch = make_events(schema, MODEL.batch, seed=5)
    np.testing.assert_allclose(native.learn(batch), plain.learn(batch), rtol=1e-5, atol=1e-6)
    for name, moved in native.state().items():
        if name != "progress":
            torch.testing.assert_close(moved, plain.state()[name], rtol=1e-5, atol=1e-6)
            assert not torch.equal(moved, state[name])


def lone_learners(engine: Engine) -> list[LoneLearner]:
    """Every model of an engine as it stands, on its own."""
    dense = engine.layout.views(engine.weights.dense)
    return [
        LoneLearner(
            engine.schema, engine.model, engine.arm.function, table, {name: own[m] for name, own in dense.items()}
        )
        for m, table in enumerate(engine.weights.table)
    ]


Waiting = list[tuple[int, Tensor, tuple[Tensor, ...]]]


def learn_alone(lone: LoneLearner, chunk: Batch, order: np.ndarray, delays: np.ndarray, waiting: Waiting) -> Tensor:
    """One chunk in the given order; gradients wait for as many steps as told. Log-odds in the order of the log."""
    rows, labels = torch.from_numpy(chunk.features), torch.from_numpy(chunk.label)
    predicted = torch.full((len(chunk),), torch.nan, dtype=torch.float64)
    size = lone.config.batch
    for step, start in enumerate(range(0, len(chunk), size)):
        events = torch.from_numpy(order[start : start + size])
        weights = None if chunk.weight is None else torch.from_numpy(chunk.weight[order[start : start + size]])
        predicted[events], gradient = lone.gradient(rows[events], labels[events], weights)
        waiting.append((int(delays[step]), rows[events], gradient))
        for left, touched, due in waiting:
            if left == 0:
                lone.apply(touched, due)
        waiting[:] = [(left - 1, touched, due) for left, touched, due in waiting if left]
    return predicted


def assert_agree(engine: Engine, chunks: list[Batch], tolerance: float) -> None:
    """Learn the chunks both ways and compare every prediction and every weight."""
    lone, waiting = lone_learners(engine), [Waiting() for _ in engine.members]
    close = {"rtol": tolerance, "atol": tolerance}
    for number, chunk in enumerate(chunks):
        steps = -(-len(chunk) // engine.model.batch)
        predicted = torch.from_numpy(engine.learn(chunk))
        for m, who in enumerate(engine.members):
            order = engine.noise.order(who, number, len(chunk), engine.model.batch)
            expected = learn_alone(lone[m], chunk, order, engine.noise.delays(who, number, steps), waiting[m])
            torch.testing.assert_close(predicted[m].double(), expected, **close)
    dense = engine.layout.views(engine.weights.dense)
    for m, model in enumerate(lone):
        torch.testing.assert_close(engine.weights.table[m].double(), model.embedding.weight.detach(), **close)
        squares = engine.squares.table[m, 1:].double()
        torch.testing.assert_close(squares, model.squares[1:], rtol=20 * tolerance, atol=tolerance)
        for name, value in model.dense.items():
            torch.testing.assert_close(dense[name][m].double(), value.detach(), **close)


CASES = [
    ("none", "relu", MIXED),
    ("none", "linear", SINGLE),
    ("before", "smelu", SINGLE),
    ("before", "gelu", MIXED),
    ("after", "swish", MIXED),
    ("after", "smelu:beta=2", SINGLE),
    ("weight", "gelu", SINGLE),
    ("weight", "smelu", MIXED),
]
together_and_apart = pytest.mark.parametrize(
    "kind", [EXACT, replace(EXACT, make=OneStep)], ids=["one by one", "in one step"]
)


@together_and_apart
@pytest.mark.parametrize(("norm", "spec", "schema"), CASES)
def test_pytorch_agrees_with_models_that_learn_alone(kind: Kind, norm: str, spec: str, schema: Schema) -> None:
    model = replace(MODEL, norm=norm)  # type: ignore[arg-type]
    engine = make_engine(kind, spec, schema=schema, model=model, noise=NoiseConfig(window=10))
    first, second = make_chunks(engine, 2, schema)
    assert_agree(engine, [first, *weighted([second])], tolerance=1e-9)


@NO_KERNELS
@pytest.mark.parametrize(("norm", "spec", "schema"), CASES[:6])
def test_the_native_engine_agrees_with_models_that_learn_alone(norm: str, spec: str, schema: Schema) -> None:
    model = replace(MODEL, norm=norm)  # type: ignore[arg-type]
    engine = make_engine(NATIVE, spec, schema=schema, model=model, noise=NoiseConfig(window=10))
    first, second = make_chunks(engine, 2, schema)
    assert_agree(engine, [first, *weighted([second])], ROUNDING)


@pytest.mark.parametrize("window", [0, 4])
def test_a_delayed_gradient_is_applied_as_many_steps_later(window: int) -> None:
    engine = make_engine(EXACT, "smelu", noise=NoiseConfig(window=window, delay=5))
    assert_agree(engine, make_chunks(engine, 3), tolerance=1e-9)


# a GPU's way, on the CPU where there is none


@pytest.mark.parametrize("spec", ["smelu", *CURES])
def test_all_models_in_one_step_learn_as_one_after_another(spec: str) -> None:
    apart, together = (
        make_engine(kind, spec, noise=SHUFFLED, fleets=2) for kind in (EXACT, replace(EXACT, make=OneStep))
    )
    chunks = make_chunks(apart, 4)
    expected = teach(apart, chunks, refresh=True)
    np.testing.assert_allclose(teach(together, chunks, refresh=True), expected, rtol=1e-9, atol=1e-9)
    first, second = apart.state(), together.state()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-9, atol=1e-9, msg=name)


def test_in_one_step_each_model_is_rounded_by_its_own_draws() -> None:
    kind, noise = replace(TORCH, make=OneStep), replace(NO_NOISE, precision="bfloat16")
    engine = make_engine(kind, noise=noise, fleets=2)
    teach(engine, make_chunks(engine, 2))
    for tensor in (engine.weights.dense, engine.weights.table):
        assert torch.equal(tensor, tensor.bfloat16().float())
        assert not torch.equal(tensor[0], tensor[1])
    alone = make_engine(kind, noise=noise)
    teach(alone, make_chunks(alone, 2))
    torch.testing.assert_close(engine.weights.dense[:2], alone.weights.dense, rtol=1e-2, atol=1e-4)


def test_what_vmap_refuses_learns_one_after_another_and_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(activations.REGISTRY, "branching", lambda x: x.relu() if x.sum() > -1e9 else x)
    with caplog.at_level(logging.WARNING, "engine"):
        engine = make_engine(replace(EXACT, make=OneStep), "branching", noise=SHUFFLED)
    (line,) = caplog.messages
    assert line.startswith("branching: models learn one after another, vmap refuses them (") and "\n" not in line
    relu = make_engine(EXACT, "relu", noise=SHUFFLED)
    chunks = make_chunks(relu, 2)
    assert np.array_equal(teach(engine, chunks), teach(relu, chunks))


@NO_GPU
@pytest.mark.parametrize("noise", [NoiseConfig(window=16, lost=0.1), NoiseConfig(window=16, delay=3)], ids=str)
@pytest.mark.parametrize("spec", ["smelu", *CURES[:-1]])
def test_the_first_chunk_on_a_gpu_is_the_one_on_a_cpu(spec: str, noise: NoiseConfig) -> None:
    engines = [make_engine(replace(TORCH, device=device), spec, noise=noise) for device in ("cpu", "cuda")]
    chunk = make_chunks(engines[0], 1)[0]
    on_cpu, on_gpu = (engine.learn(chunk) for engine in engines)
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-3, atol=1e-3)  # rounding
