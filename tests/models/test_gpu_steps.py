"""The learning step on static buffers, replayed, against the plain learner; the graph is a recording on the CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from simulator.config import NoiseConfig
from simulator.errors import SettingError
from simulator.models.duplicates import Duplicates
from simulator.models.gpu import fused
from simulator.models.gpu import steps as steps_module
from simulator.models.gpu.rows import plan
from simulator.models.gpu.steps import GraphedSteps, graphed_steps
from simulator.models.gpu.transfer import Orders
from simulator.models.learner import Learner
from simulator.models.tables import Tables
from simulator.types import Batch, Schema
from tests.models.conftest import MIXED, MODEL, SINGLE, make_chunks, make_stack
from tests.models.recorded import capture

STEPS = 4
TOLERANCE = 5e-5
"""The two add the same float32 numbers in another order: a dozen steps of rounding."""


@pytest.fixture(autouse=True)
def rows_by_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table's kernel needs Triton: its work by PyTorch's operations, which can be recorded."""

    def update(plan: tuple[Tensor, ...], grads: Tensor, table: Tensor, squares: Tensor, rate: float) -> None:
        rows, _, places = (part.long() for part in plan)
        for m in range(len(grads)):
            sums = torch.zeros_like(table[m]).index_add_(0, rows[m], grads[m].index_select(0, places[m]))
            sums[0].zero_()
            squares[m] += sums.square().mean(1)
            table[m] -= rate * sums / squares[m].sqrt().unsqueeze(1)

    monkeypatch.setattr(fused, "update_rows", update)


def learners(schema: Schema, norm: str, noise: NoiseConfig) -> tuple[Learner, Learner, GraphedSteps]:
    """The plain learner, and one that graphed steps teach; each has one slab."""
    found = []
    for _ in range(2):
        model = replace(MODEL, norm=norm, compile="off")  # type: ignore[arg-type]
        stack = make_stack("relu", "smelu:beta=2", "gelu", schema=schema, model=model, noise=noise)
        stack.slabs = [slice(0, len(stack))]
        found.append(Learner(stack, noise, seed=7))
    plain, taught = found
    steps = GraphedSteps(taught.tables, taught.dense_squares, taught.table_squares, STEPS, capture)
    return plain, taught, steps


def teach(learner: Learner, steps: GraphedSteps, events: Batch, chunk: int) -> Tensor:
    """One chunk of whole mini-batches, each model in its own order; log-odds in the order of the log, on the CPU."""
    stack, n, device = learner.stack, len(events), learner.stack.device
    members = stack.members
    order = torch.from_numpy(np.stack([learner.noise.order(who, chunk, n, stack.model.batch) for who in members]))
    lost = np.stack([learner.noise.lost(who, chunk, n // stack.model.batch) for who in members])
    rows = torch.from_numpy(events.features)[order].to(device)
    labels = torch.from_numpy(events.label)[order].to(device)
    logits = steps.learn(rows, Tables(stack).prepare(slice(0, len(stack)), rows), labels, lost).cpu()
    return torch.empty_like(logits).scatter_(1, order, logits)


@pytest.mark.parametrize("schema", [MIXED, SINGLE], ids=["mixed", "single"])
@pytest.mark.parametrize("norm", ["none", "before", "after", "weight"])
def test_replayed_steps_learn_what_the_plain_learner_learns(schema: Schema, norm: str) -> None:
    """Several chunks, of different lengths, with other events, orders and lost mini-batches in each."""
    noise = NoiseConfig(window=STEPS, lost=0.3)
    plain, taught, steps = learners(schema, norm, noise)
    for number, chunk in enumerate(make_chunks(plain, 4)):
        chunk = chunk[: len(chunk) // MODEL.batch * MODEL.batch]
        expected = torch.from_numpy(plain.learn(chunk))
        given = teach(taught, steps, chunk, number)
        torch.testing.assert_close(given, expected, rtol=TOLERANCE, atol=TOLERANCE)
    for name, expected in plain.state().items():
        found = taught.state()[name]
        if name == "table_squares":
            found, expected = found[:, 1:], expected[:, 1:]  # of padding nobody asks
        if name != "chunks":
            torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_capturing_changes_no_weight() -> None:
    _, taught, steps = learners(MIXED, "after", NoiseConfig(window=STEPS))
    before = {name: tensor.clone() for name, tensor in taught.state().items()}
    capture(steps._step)
    assert all(torch.equal(tensor, before[name]) for name, tensor in taught.state().items())


def test_equal_models_stay_equal_to_the_last_bit() -> None:
    _, taught, steps = learners(MIXED, "after", NoiseConfig(window=0))
    for number, chunk in enumerate(make_chunks(taught, 2)[:1]):
        chunk = chunk[: STEPS * MODEL.batch]
        logits = teach(taught, steps, chunk, number)
    stack: Duplicates = taught.stack
    for first in range(0, len(stack), 2):
        assert torch.equal(logits[first], logits[first + 1])
        assert torch.equal(stack.dense[first], stack.dense[first + 1])
        assert torch.equal(stack.embedding[first], stack.embedding[first + 1])


def test_a_plan_brings_equal_rows_together_in_their_order() -> None:
    rows = torch.tensor([[[5, 0, 5, 2, 5, 0]], [[1, 1, 1, 1, 1, 1]]], dtype=torch.int32)
    ordered, ends, places = plan(rows)
    assert ordered.tolist() == [[[0, 0, 2, 5, 5, 5]], [[1] * 6]]
    assert ends.tolist() == [[[2, 2, 3, 6, 6, 6]], [[6] * 6]]
    assert places.tolist() == [[[1, 5, 3, 0, 2, 4]], [[0, 1, 2, 3, 4, 5]]]
    assert {part.dtype for part in (ordered, ends, places)} == {torch.int32}


def test_orders_made_ahead_are_those_made_at_once() -> None:
    drawn = []

    def draw(chunk: int, events: int) -> np.ndarray:
        drawn.append((chunk, events))
        return np.full((2, events), chunk)

    orders = Orders(draw, torch.device("cpu"))
    assert orders.take(0, 3).tolist() == [[0] * 3] * 2
    orders.prepare(1, 3)
    assert orders.take(1, 3).tolist() == [[1] * 3] * 2
    orders.prepare(2, 3)
    assert orders.take(2, 2).tolist() == [[2] * 2] * 2, "the chunk turned out shorter"
    assert drawn == [(0, 3), (1, 3), (2, 3), (2, 2)]


def test_kernels_are_wanted_on_a_gpu_alone_and_where_they_run(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert not fused.wanted("on", cpu), "a CPU has kernels of its own"
    monkeypatch.setattr(fused, "problem", lambda: "Triton: no C compiler")
    assert not fused.wanted("auto", gpu) and not fused.wanted("off", gpu)
    with pytest.raises(SettingError, match="compile = on: Triton: no C compiler: .* --compile auto"):
        fused.wanted("on", gpu)
    monkeypatch.setattr(fused, "problem", lambda: "")
    assert fused.wanted("auto", gpu) and fused.wanted("on", gpu) and not fused.wanted("off", gpu)


def test_products_on_a_gpu_are_of_float32_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_float32_matmul_precision()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    try:
        torch.set_float32_matmul_precision("high")
        fused.check_device("cpu")
        assert torch.get_float32_matmul_precision() == "high"
        fused.check_device("cuda")
        assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_is_missing_is_named() -> None:
    assert fused.problem() == "no GPU is visible to PyTorch"


@pytest.mark.parametrize("noise", [NoiseConfig(delay=2), NoiseConfig(precision="bfloat16"), NoiseConfig(lost=0.5)])
def test_which_noise_takes_the_plain_path(noise: NoiseConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Learner(make_stack(noise=noise, model=replace(MODEL, compile="off")), noise, seed=0)
    arguments = learner.tables, learner.dense_squares, learner.table_squares, noise, STEPS
    assert graphed_steps(*arguments) is None, "on a CPU"
    monkeypatch.setattr(fused, "wanted", lambda choice, device: True)
    monkeypatch.setattr(steps_module, "CudaGraphs", lambda: capture)
    assert (graphed_steps(*arguments) is not None) == bool(noise.lost)
