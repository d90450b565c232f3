"""On a real GPU: its numbers against the CPU's, graphs against launches, and that nothing rounds at random."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from simulator.config import NO_NOISE, ModelConfig, NoiseConfig
from simulator.models.gpu import fused
from simulator.models.gpu.scoring import GpuRanker, GpuRankers
from simulator.models.gpu.transfer import Orders
from simulator.models.learner import Learner
from simulator.models.ranking import score_events, score_queries
from simulator.types import Schema
from tests.models.conftest import MIXED, MODEL, SINGLE, make_chunks, make_stack
from tests.models.test_ranker import QUERIES, SPECS, WORLD, scores, trained

ROOT = Path(__file__).parents[2]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible to PyTorch here")
NORMS = ("none", "before", "after", "weight")
TOLERANCE = 1e-3
"""Chunks of learning in float32, where the order of every sum differs."""


def make_learner(
    *specs: str, device: str, compile: str = "auto", norm: str = "after", schema: Schema = MIXED, noise: NoiseConfig
) -> Learner:
    model = replace(MODEL, norm=norm, compile=compile)  # type: ignore[arg-type]
    return Learner(make_stack(*specs, schema=schema, model=model, noise=noise, device=device), noise, seed=7)


@needs_gpu
def test_the_kernels_can_be_used() -> None:
    """PyTorch's CUDA build brings Triton; without a C compiler its kernels cannot be launched, which is said once."""
    assert fused.problem() == "", "everything still works, by PyTorch's own operations"


@needs_gpu
@pytest.mark.parametrize("delay", [0, 3])
@pytest.mark.parametrize("schema", [MIXED, SINGLE], ids=["mixed", "single"])
@pytest.mark.parametrize("norm", NORMS)
def test_a_gpu_learns_what_a_cpu_learns(norm: str, schema: Schema, delay: int) -> None:
    """With graphs and, where updates are late, without; the last chunk ends in the middle of a mini-batch."""
    noise = NoiseConfig(window=4, lost=0.1, delay=delay)
    for specs in (("relu", "smelu:beta=2"), ("smelu", "gelu")):
        learners = [make_learner(*specs, device=d, norm=norm, schema=schema, noise=noise) for d in ("cpu", "cuda")]
        for chunk in make_chunks(learners[0], 2):
            on_cpu, on_gpu = (learner.learn(chunk) for learner in learners)
            np.testing.assert_allclose(on_gpu, on_cpu, rtol=TOLERANCE, atol=TOLERANCE)
        on_cpu, on_gpu = (learner.stack for learner in learners)
        torch.testing.assert_close(on_gpu.dense.cpu(), on_cpu.dense, rtol=TOLERANCE, atol=TOLERANCE)
        torch.testing.assert_close(on_gpu.embedding.cpu(), on_cpu.embedding, rtol=TOLERANCE, atol=TOLERANCE)


@needs_gpu
@pytest.mark.parametrize("compile", ["auto", "off"])
@pytest.mark.parametrize("norm", NORMS)
def test_duplicates_without_noise_are_equal_to_the_last_bit(norm: str, compile: str) -> None:
    learner = make_learner("relu", "smelu", device="cuda", compile=compile, norm=norm, noise=NO_NOISE)
    for chunk in make_chunks(learner, 2):
        logits = learner.learn(chunk)
        assert np.array_equal(logits[0], logits[1]) and np.array_equal(logits[2], logits[3])
    stack = learner.stack
    for first in (0, 2):
        assert torch.equal(stack.dense[first], stack.dense[first + 1])
        assert torch.equal(stack.embedding[first], stack.embedding[first + 1])


@needs_gpu
@pytest.mark.parametrize("norm", NORMS)
def test_duplicates_are_equal_at_the_sizes_of_a_run(norm: str) -> None:
    """Which algorithm multiplies matrices hangs on their sizes: none may round by a duplicate's place in the stack."""
    noise, model = NO_NOISE, ModelConfig(norm=norm)  # type: ignore[arg-type]
    stack = make_stack("relu", "smelu", model=model, noise=noise, duplicates=8, device="cuda")
    learner = Learner(stack, noise, seed=7)
    (chunk,) = make_chunks(learner, 1)
    logits = learner.learn(chunk)
    scores = score_events(stack, chunk.features)
    for number in range(len(stack)):
        first = number // 8 * 8
        assert torch.equal(stack.dense[number], stack.dense[first]), number
        assert torch.equal(stack.embedding[number], stack.embedding[first]), number
        assert np.array_equal(logits[number], logits[first]) and np.array_equal(scores[number], scores[first]), number


@needs_gpu
@pytest.mark.parametrize(
    "noise",
    [NoiseConfig(window=4, lost=0.1), NoiseConfig(window=4, precision="bfloat16"), NoiseConfig(window=4, delay=2)],
    ids=["lost", "bfloat16", "delay"],
)
def test_a_run_repeats_and_resumes_to_the_last_bit(noise: NoiseConfig) -> None:
    steady, again = (make_learner("relu", "smelu", device="cuda", noise=noise) for _ in range(2))
    chunks = make_chunks(steady, 4)
    for chunk in chunks[:2]:
        assert np.array_equal(steady.learn(chunk), again.learn(chunk))
    resumed = make_learner("relu", "smelu", device="cuda", noise=noise)
    resumed.restore(steady.state())
    for chunk in chunks[2:]:
        expected = steady.learn(chunk)
        assert np.array_equal(expected, again.learn(chunk)) and np.array_equal(expected, resumed.learn(chunk))
    for name, tensor in steady.state().items():
        assert torch.equal(tensor, again.state()[name]) and torch.equal(tensor, resumed.state()[name]), name


@needs_gpu
def test_orders_copied_ahead_arrive() -> None:
    """While the GPU is busy with other work, in both buffers, several times."""

    def draw(chunk: int, events: int) -> np.ndarray:
        return np.full((8, events), chunk)

    orders, busy = Orders(draw, torch.device("cuda")), torch.randn(2_048, 2_048, device="cuda")
    for chunk in range(6):
        here = orders.take(chunk, 4_096)
        for _ in range(10):
            busy = (busy @ busy).clamp(-1, 1)
        orders.prepare(chunk + 1, 4_096)
        assert (here.cpu() == chunk).all()


def ranker(rankers: GpuRankers, norm: str, shift: float = 0.0) -> tuple[GpuRanker, np.ndarray]:
    """A ranker of weights shifted by so much, and what it should say."""
    stack = trained(norm)
    stack.dense *= 1 + shift
    tensors = {"embedding": stack.embedding, "dense": stack.dense}
    made = rankers(WORLD.schema, SPECS, stack.model, tensors, WORLD.encoder.user_rows, WORLD.encoder.item_rows)
    return made, score_queries(stack, QUERIES)


@needs_gpu
@pytest.mark.parametrize("norm", NORMS)
def test_a_gpu_ranks_as_a_cpu_does(norm: str) -> None:
    """Through several refreshes onto the same buffers, and to the last bit whoever shares the pass."""
    rankers = GpuRankers()
    for shift in (0.0, 0.1, 0.2):
        made, expected = ranker(rankers, norm, shift)
        for arm in range(len(SPECS)):
            found = scores(made, arm)
            np.testing.assert_allclose(found, expected[arm], rtol=0, atol=5e-5)
            assert np.array_equal(scores(made, arm, QUERIES[:1])[0], found[0])
            assert np.array_equal(scores(made, arm, QUERIES[::-1]), found[::-1])
            assert np.array_equal(scores(made, arm, QUERIES * 9), np.concatenate([found] * 9))
        del made
        gc.collect()


@needs_gpu
def test_every_parameter_really_changes_on_a_refresh() -> None:
    stack, rankers = trained("after"), GpuRankers()
    tensors = {"embedding": stack.embedding, "dense": stack.dense}
    for part in stack.layout.parts.values():
        stack.dense[1, part.start + part.size - 1] += 0.5
        made = rankers(WORLD.schema, SPECS, stack.model, tensors, WORLD.encoder.user_rows, WORLD.encoder.item_rows)
        expected = score_queries(stack, QUERIES)[1]
        np.testing.assert_allclose(scores(made, 1), expected, rtol=0, atol=5e-5, err_msg=part.name)
        del made
        gc.collect()


@needs_gpu
def test_refreshing_beside_scoring_disturbs_neither() -> None:
    """New generations are loaded, and captured for the first time, while another thread goes on scoring the old one."""
    rankers = GpuRankers()
    served, _ = ranker(rankers, "after")
    before, wrong, stop = scores(served, 1), [], threading.Event()

    def serve() -> None:
        while not stop.is_set():
            if not np.array_equal(scores(served, 1), before):
                wrong.append(1)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        for number in range(10):
            made, expected = ranker(rankers, "after", 0.02 * number)
            np.testing.assert_allclose(scores(made, 1), expected[1], rtol=0, atol=5e-5)
    finally:
        stop.set()
        thread.join()
    assert wrong == []


def bench(*flags: str) -> subprocess.CompletedProcess[str]:
    """As `make bench-gpu` calls it."""
    command = [sys.executable, "tests/bench/gpu.py", *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_bench_says_so_in_one_line(tmp_path: Path) -> None:
    ran = bench("--out", str(tmp_path / "figures.json"))
    assert ran.returncode == 2 and ran.stdout == "" and list(tmp_path.iterdir()) == []
    assert ran.stderr.startswith("device = cuda: no GPU is visible") and ran.stderr.count("\n") == 1


@needs_gpu
def test_the_bench_runs(tmp_path: Path) -> None:
    ran = bench("--quick", "--out", str(tmp_path / "figures.json"))
    assert ran.returncode == 0, ran.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert sorted(figure["target"] for figure in figures if figure["target"]) == [0.85, 20, 300]
