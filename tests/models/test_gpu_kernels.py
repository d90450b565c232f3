"""The Triton kernels against float64 oracles, with odd shapes: on a GPU, or by Triton's interpreter on the CPU.

The interpreter has to be chosen before Triton is imported, so a process of its own runs these tests with it.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from simulator.models.gpu import fused
from simulator.models.gpu.graphs import CudaGraphs
from simulator.models.gpu.layers import FusedNetwork, StackedSmeLU, betas
from simulator.models.gpu.rows import plan
from simulator.models.gpu.steps import GraphedSteps
from simulator.models.learner import Learner
from simulator.models.network import Network, Segments
from simulator.models.tables import Tables
from torch import Tensor

from simulator.config import NoiseConfig
from simulator.models.activations import activation
from simulator.randomness import generator
from tests.models import reference
from tests.models.conftest import MIXED, MODEL, make_events, make_stack
from tests.models.test_gpu_steps import teach
from tests.models.test_network import assert_same, problem, run_reference

HAS_TRITON = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_GPU = torch.cuda.is_available() and not INTERPRETED
DEVICE = "cuda" if HAS_GPU else "cpu"
needs_kernels = pytest.mark.skipif(
    not (HAS_TRITON and (HAS_GPU or INTERPRETED)), reason="runs on a GPU, or in the interpreter's own process"
)
TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-12}
BETAS = [0.0, 0.3, 2.0]
COMPILED_OFF = replace(MODEL, compile="off")
TYPES = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["float32", "float64"])


@pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed: it comes with PyTorch's CUDA build")
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter's process")
def test_the_kernels_are_right_in_the_interpreter() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    ran = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, text=True, capture_output=True)
    assert ran.returncode == 0, ran.stdout
    assert "passed" in ran.stdout


def random_normal(purpose: str, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers, the same in every run."""
    return torch.from_numpy(generator(0, purpose).standard_normal(shape)).to(DEVICE, dtype)


def smelu(x: Tensor, beta: Tensor) -> Tensor:
    """Of x [m, ...] in float64, model by model by the formula in three pieces."""
    pairs = zip(x.double(), beta.tolist(), strict=True)
    return torch.stack([reference.smelu(row, b) if b else torch.relu(row) for row, b in pairs])


def close(found: Tensor, expected: Tensor) -> None:
    """Within the rounding of the type that was found."""
    tolerance = TOLERANCE[found.dtype]
    torch.testing.assert_close(found.double(), expected.double(), rtol=tolerance, atol=tolerance)


@needs_kernels
@TYPES
@pytest.mark.parametrize("shape", [(1, 1), (3, 7, 5), (2, fused.BLOCK + 1), (1, 3, fused.BLOCK)])
def test_smelu_of_several_models(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    beta = torch.tensor(BETAS[: shape[0]], device=DEVICE, dtype=dtype)
    x, grad = random_normal("x", *shape, dtype=dtype), random_normal("grad", *shape, dtype=dtype)
    at = x.double().requires_grad_()
    expected = smelu(at, beta)
    (slope,) = torch.autograd.grad(expected, at, grad.double())
    close(fused.smelu_forward(x, beta), expected.detach())
    close(fused.smelu_backward(grad, x, beta), slope)


@needs_kernels
def test_joints_infinities_and_nan() -> None:
    """At both joints, beyond them, and where a model has diverged; beta = 0 is ReLU with slope 0 at 0."""
    inf, nan = torch.inf, torch.nan
    x = torch.tensor([[-inf, -1, 0, 1, inf, nan], [-inf, -2, 0, 2, inf, nan]], device=DEVICE)
    beta = torch.tensor([0.0, 2.0], device=DEVICE)
    value = torch.tensor([[0, 0, 0, 1, inf, nan], [0, 0, 0.5, 2, inf, nan]], device=DEVICE)
    slope = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0.5, 1, 1]], device=DEVICE)
    torch.testing.assert_close(fused.smelu_forward(x, beta), value, equal_nan=True, rtol=0, atol=0)
    given = fused.smelu_backward(torch.ones_like(x), x, beta)
    torch.testing.assert_close(given[:, :-1], slope, rtol=0, atol=0)
    assert given[1, -1].isnan()


Layer = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Product [m, B, H], beta [m], bias and gain [m, H] inside longer rows, upstream gradient [m, B, H]."""


def layer(shape: tuple[int, int, int], dtype: torch.dtype) -> Layer:
    models, events, width = shape
    rows = random_normal("parameters", models, 2 * width + 3, dtype=dtype)
    beta = torch.tensor((BETAS * models)[:models], device=DEVICE, dtype=dtype)
    product, grad = (random_normal(name, *shape, dtype=dtype) for name in ("product", "upstream"))
    return product, beta, rows[:, 1 : 1 + width], rows[:, 2 + width : 2 + 2 * width], grad


@needs_kernels
@TYPES
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (3, fused.PART + 5, 13), (2, 2 * fused.PART, 64), (2, 3, 130), (1, 2, fused.TILE + 1)]
)
def test_a_layer_and_its_gradients(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    product, beta, bias, gain, grad = layer(shape, dtype)
    wide = [tensor.double().requires_grad_() for tensor in (product, bias, gain)]
    activated = smelu(wide[0] + wide[1].unsqueeze(1), beta)
    normed = torch.nn.functional.layer_norm(activated, shape[2:], eps=1e-5) * wide[2].unsqueeze(1)
    expected = torch.autograd.grad(normed, wide, grad.double())
    y, mean, scale = fused.layer_forward(product, beta, bias, gain)
    back, sums = fused.layer_backward(grad, (product, mean, scale), beta, bias, gain)
    close(y, normed.detach())
    close(mean, activated.detach().mean(-1))
    slack = 30 if dtype == torch.float32 else 1  # 1 / standard deviation is up to 300, where all of a row are equal
    for found, true in zip((back, *sums), expected, strict=True):
        tolerance = slack * TOLERANCE[dtype] * max(1.0, true.abs().max().item())
        torch.testing.assert_close(found.double(), true, rtol=0, atol=tolerance)


@needs_kernels
def test_equal_models_are_equal_to_the_last_bit() -> None:
    """Wherever they stand in the slab, and however many others there are."""
    kinds = layer((3, fused.PART + 7, 21), torch.float32)
    product, beta, rows = kinds[0], kinds[1], torch.cat([kinds[2], kinds[3]], 1)
    found = []
    for order in ([0, 1, 2], [2, 0, 0, 1, 2, 0]):
        p, b, r, grad = (tensor[order].contiguous() for tensor in (product, beta, rows, kinds[4]))
        bias, gain = r[:, :21], r[:, 21:]
        y, mean, scale = fused.layer_forward(p, b, bias, gain)
        back, sums = fused.layer_backward(grad, (p, mean, scale), b, bias, gain)
        for place, kind in enumerate(order):
            found.append((kind, [y[place], mean[place], scale[place], back[place], *sums[:, place]]))
    first = dict(reversed(found))
    assert all(torch.equal(a, b) for kind, parts in found for a, b in zip(parts, first[kind], strict=True))


@needs_kernels
@TYPES
@pytest.mark.parametrize(("entries", "height", "width"), [(1, 2, 1), (37, 6, 5), (fused.RUN * 3 + 1, 40, 16)])
def test_rows_are_updated_once_by_the_sum_of_their_gradients(
    entries: int, height: int, width: int, dtype: torch.dtype
) -> None:
    """Runs longer than a tile, rows that do not occur, and padding, which stays as it is."""
    rate, models = 0.125, 3
    rows = torch.from_numpy(generator(0, "rows").integers(0, height, (models, entries))).to(DEVICE, torch.int32)
    rows[1] = height - 1  # one long run
    grads = random_normal("gradients", models, entries, width, dtype=dtype)
    table, squares = random_normal("table", models, height, width, dtype=dtype), torch.ones(models, height).to(grads)
    grads[2], table[2], rows[2] = grads[0], table[0], rows[0]  # an equal model
    true, true_squares = table.double().clone(), squares.double().clone()
    for m in range(models):
        for row in set(rows[m].tolist()) - {0}:
            total = grads[m, rows[m] == row].double().sum(0)
            true_squares[m, row] += total.square().mean()
            true[m, row] -= rate * total / true_squares[m, row].sqrt()
    untouched = table[:, 0].clone()
    fused.update_rows(plan(rows), grads, table, squares, rate)
    close(table, true)
    close(squares, true_squares)
    assert torch.equal(table[:, 0], untouched) and (squares[:, 0] == 1).all()
    assert torch.equal(table[0], table[2]) and torch.equal(squares[0], squares[2])


@needs_kernels
@pytest.mark.parametrize("norm", ["none", "before", "after", "weight"])
def test_the_whole_network_agrees_with_autograd(norm: str) -> None:
    config, layout, flat, x, up = problem(norm, models=4)
    specs = ["relu", "smelu:beta=2", "smelu:beta=2", "smelu:beta=0.3"]
    segments = [(activation(specs[part.start]), part) for part in (slice(0, 1), slice(1, 3), slice(3, 4))]
    singles = [
        run_reference(config, layout, flat[m : m + 1], x[m : m + 1], up[m : m + 1], spec)
        for m, spec in enumerate(specs)
    ]
    expected = tuple(torch.cat(parts) for parts in zip(*singles, strict=True))
    found = run(FusedNetwork(config), layout.views, flat, x, up, segments)
    assert_same(found, expected)  # type: ignore[arg-type]
    first = x @ layout.views(flat)["weight0"]
    if norm != "weight":
        logits = FusedNetwork(config).forward_from(first.to(DEVICE), layout.views(flat.to(DEVICE)), segments)
        torch.testing.assert_close(logits.cpu(), expected[0])


def run(network: Network, views, flat: Tensor, x: Tensor, up: Tensor, segments: Segments) -> tuple[Tensor, ...]:  # type: ignore[no-untyped-def]
    """Log-odds, gradient of the flat parameters and of the inputs, by the network under test."""
    flat, x, up = flat.to(DEVICE), x.to(DEVICE), up.to(DEVICE)
    logits, tape = network.forward(x, views(flat), segments)
    gradient = torch.zeros_like(flat)
    back = network.backward(up, views(flat), tape, segments, views(gradient))
    return logits.cpu(), gradient.cpu(), back.cpu()


def test_other_activations_take_the_plain_way() -> None:
    """Exactly: nothing else is launched."""
    for norm in ("none", "before", "after", "weight"):
        config, layout, flat, x, up = problem(norm, models=3)
        segments = [(activation("relu"), slice(0, 2)), (activation("gelu"), slice(2, 3))]
        found = run(FusedNetwork(config), layout.views, flat, x, up, segments)
        expected = run(Network(config), layout.views, flat, x, up, segments)
        assert_same(found, expected)  # type: ignore[arg-type]


def test_half_widths_are_read_from_the_activations() -> None:
    like = torch.zeros(1, dtype=torch.float64)
    specs = {"smelu:beta=0.3": slice(0, 2), "relu": slice(2, 3), "gsmelu": slice(3, 4)}
    known = [(activation(spec), part) for spec, part in specs.items()]
    found = betas(known, like)
    assert found is not None and found.tolist() == [0.3, 0.3, 0.0, 1.0] and found.dtype == like.dtype
    assert betas(known, like) is found, "made once"
    general = "gsmelu:gplus=0.5", "gsmelu:alpha=2", "gsmelu:t=1", "gsmelu:gminus=0.1"
    for spec in ("gelu", "linear", "swish", "softplus", *general):
        assert betas([(activation("relu"), slice(0, 1)), (activation(spec), slice(1, 2))], like) is None, spec


@needs_kernels
def test_a_stacked_smelu_is_an_activation() -> None:
    function = StackedSmeLU(torch.tensor([1.0, 0.0], device=DEVICE))
    x = random_normal("x", 2, 5, dtype=torch.float32)
    y, saved = function.forward(x)
    close(y, smelu(x, function.beta))
    assert saved is x, "the backward pass needs x only"


@needs_kernels
def test_steps_by_kernels_learn_what_the_plain_learner_learns() -> None:
    """All kernels together, on a GPU inside a CUDA graph: two chunks in each duplicate's own order, some of it lost."""
    noise = NoiseConfig(window=2, lost=0.2)
    plain, taught = (
        Learner(make_stack("relu", "smelu:beta=2", model=COMPILED_OFF, noise=noise, device=device), noise, seed=7)
        for device in ("cpu", DEVICE)
    )
    taught.stack.network = FusedNetwork(COMPILED_OFF)
    capture = CudaGraphs() if HAS_GPU else lambda work: work
    steps = GraphedSteps(Tables(taught.stack), taught.dense_squares, taught.table_squares, 2, capture)
    for number in range(2):
        chunk = make_events(MIXED, 2 * COMPILED_OFF.batch, start=number)
        expected = torch.from_numpy(plain.learn(chunk))
        torch.testing.assert_close(teach(taught, steps, chunk, number), expected, rtol=5e-5, atol=5e-5)
    for name, before in plain.state().items():
        if name not in ("chunks", "compiled", "table_squares"):
            torch.testing.assert_close(taught.state()[name], before, rtol=5e-5, atol=5e-5)
