"""A generation with a GPU's rankers answers as one with a CPU's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from protos.recommender_pb2 import RecommendRequest
from serving.replica.generation import Generation
from serving.replica.main import ReplicaFlags
from serving.replica.rank import Job, RankCall, passes
from simulator.errors import SettingError
from simulator.models.ranker import Rankers
from tests.serving.generations import about_of, parts_of, stack_of


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible to PyTorch here")
def test_a_generation_scores_alike_on_both_and_a_gpu_is_filled() -> None:
    """Its 32 queries of 1,000 candidates take as long as one."""
    stack, sizes, scores = stack_of(0), [], []
    parts, about = parts_of(stack, 0), about_of(stack, 0)
    for device in ("cuda", "cpu"):
        published = bytearray(parts["duplicate/0"]), bytearray(parts["catalog"])
        generation = Generation.of("default", 0, 0, "a", about, *published, Rankers(device))
        job = Job(RankCall(lambda: None), RecommendRequest(), generation, 0, 0, (), np.arange(1_000), float("inf"))
        sizes.append([len(group) for group in passes([job] * 40)])
        context, asked = np.array([generation.ranges.context_rows(())], np.int32), generation.candidates[:1]
        scores.append([ranker.scores(np.zeros(1, np.int64), context, asked) for ranker in generation.rankers])
    assert sizes == [[32, 8], [2] * 20]
    np.testing.assert_allclose(*scores, rtol=0, atol=5e-5)


def test_another_device_is_named() -> None:
    with pytest.raises(SettingError, match="device = tpu: cpu or cuda"):
        ReplicaFlags(device="tpu")
