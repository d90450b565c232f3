"""A generation with a GPU's rankers answers as one with a CPU's; on a machine without a GPU they run on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from serving.replica.flags import ReplicaFlags
from serving.replica.generation import Generation, Refused
from serving.replica.work import Call, Job, passes
from simulator.errors import SettingError
from simulator.models.gpu.graphs import CudaGraphs, uncaptured
from simulator.models.gpu.scoring import GpuRankers
from simulator.models.ranker import Ranker
from tests.serving.generations import about_of, parts_of, stack_of

RANKERS = GpuRankers("cuda", CudaGraphs) if torch.cuda.is_available() else GpuRankers("cpu", lambda: uncaptured)


def test_a_generation_scores_alike_on_both() -> None:
    stack = stack_of(0)
    parts, about = parts_of(stack), about_of(stack, 0)
    published = 0, 0, "a", about, bytearray(parts["duplicate/0"]), bytearray(parts["catalog"])
    ours, theirs = Generation.of(*published, RANKERS), Generation.of(*published)
    items = theirs.candidates[:1]
    context = np.array([theirs.ranges.context_rows(())], np.int32)
    for arm in range(len(theirs.who)):
        pair = [each.ranker.scores(arm, np.zeros(1, np.int64), context, items) for each in (ours, theirs)]
        np.testing.assert_allclose(*pair, rtol=0, atol=5e-5)


def test_a_pass_on_a_gpu_is_filled() -> None:
    """Its 32 queries of 1,000 candidates take as long as one."""
    stack = stack_of(0)
    parts = parts_of(stack)
    about, weights, catalog = about_of(stack, 0), bytearray(parts["duplicate/0"]), bytearray(parts["catalog"])
    sizes = []
    for generation in (Generation.of(0, 0, "a", about, weights, catalog, make) for make in (RANKERS, Ranker)):
        job = Job(Call(lambda: None), generation, 0, 0, (), np.arange(1_000), float("inf"))
        sizes.append([len(group) for group in passes([job] * 40)])
    assert sizes == [[32, 8], [2] * 20]


def test_what_a_cpu_refuses_a_gpu_refuses() -> None:
    stack = stack_of(0)
    parts, about = parts_of(stack), about_of(stack, 0)
    with torch.no_grad():
        stack.dense[0, 0] = torch.nan
    broken = parts_of(stack)["duplicate/0"]
    with pytest.raises(Refused, match="not all finite"):
        Generation.of(0, 0, "a", about, bytearray(broken), bytearray(parts["catalog"]), RANKERS)


def test_another_device_is_named() -> None:
    with pytest.raises(SettingError, match="device = tpu: cpu or cuda"):
        ReplicaFlags(device="tpu")
