"""Passes of one shape on buffers that a refresh fills in place, against the plain scores; the graph is a recording."""

from __future__ import annotations

import gc
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from simulator.errors import SettingError
from simulator.models.duplicates import Duplicates
from simulator.models.gpu.graphs import Work
from simulator.models.gpu.scoring import GpuRanker, GpuRankers, make_rankers, pass_shape
from simulator.models.ranker import Ranker
from simulator.models.ranking import score_queries
from tests.models.recorded import capture
from tests.models.test_ranker import QUERIES, SPECS, WORLD, scores, trained


class Rankers(GpuRankers):
    """On the CPU, with recordings in place of graphs, which are counted."""

    def __init__(self) -> None:
        super().__init__("cpu", lambda: self._capture)
        self.captured = 0

    def _capture(self, work: Work) -> Work:
        self.captured += 1
        return capture(work)

    def of(self, stack: Duplicates) -> GpuRanker:
        """A ranker of a stack as it stands."""
        tensors = {"embedding": stack.embedding, "dense": stack.dense}
        return self(WORLD.schema, SPECS, stack.model, tensors, WORLD.encoder.user_rows, WORLD.encoder.item_rows)


def close(ranker: GpuRanker, stack: Duplicates, arm: int, name: str = "") -> None:
    """Whether a ranker's scores are the whole network's."""
    np.testing.assert_allclose(scores(ranker, arm), score_queries(stack, QUERIES)[arm], rtol=0, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("norm", ["none", "before", "after", "weight"])
def test_scores_are_those_of_the_whole_network(norm: str) -> None:
    stack, rankers = trained(norm), Rankers()
    ranker = rankers.of(stack)
    for arm in (*range(len(SPECS)), 0, 1):
        close(ranker, stack, arm)
    assert rankers.captured == len(SPECS), "one capture for each arm and shape"


@pytest.mark.parametrize("norm", ["before", "after", "weight"])
def test_every_parameter_really_changes_on_a_refresh(norm: str) -> None:
    """The same buffers and recordings each time: nothing of the last generation may be left in them."""
    stack, rankers = trained(norm), Rankers()
    close(rankers.of(stack), stack, 1)
    for part in stack.layout.parts.values():
        for element in range(part.start, part.start + part.size):
            kept = float(stack.dense[1, element])
            stack.dense[1, element] = kept + 0.5
            close(rankers.of(stack), stack, 1, part.name)
            stack.dense[1, element] = kept
    stack.embedding[1] *= 1.5
    close(rankers.of(stack), stack, 1, "embedding")
    assert rankers.captured == 1


def test_a_generation_keeps_its_buffers_as_long_as_somebody_holds_it() -> None:
    stack, rankers = trained("after"), Rankers()
    old = rankers.of(stack)
    before = scores(old, 0)
    stack.dense *= 1.1
    new = rankers.of(stack)
    close(new, stack, 0)
    assert np.array_equal(scores(old, 0), before), "the old one is still served to queries pinned to it"
    assert rankers.captured == 2
    del old
    gc.collect()
    stack.dense *= 1.1
    newest = rankers.of(stack)
    close(newest, stack, 0)
    assert rankers.captured == 2, "on the buffers of the one that has gone"


def test_who_shares_a_pass_does_not_matter() -> None:
    """To the last bit: alone, together, in another order, with fewer candidates beside, in several passes."""
    ranker = Rankers().of(trained("after"))
    together = scores(ranker, 1)
    assert all(np.array_equal(scores(ranker, 1, [query])[0], row) for query, row in zip(QUERIES, together, strict=True))
    assert np.array_equal(scores(ranker, 1, QUERIES[::-1]), together[::-1])
    assert np.array_equal(scores(ranker, 1, QUERIES * 9), np.concatenate([together] * 9))


def test_the_shape_of_a_pass() -> None:
    assert [pass_shape(count) for count in (1, 64, 65, 200, 1_000, 1_024)] == [
        (32, 64), (32, 64), (32, 128), (32, 256), (32, 1_024), (32, 1_024),
    ]  # fmt: skip
    assert [pass_shape(count) for count in (1_025, 10_000, 40_000)] == [(16, 2_048), (2, 16_384), (1, 65_536)]


def test_threads_may_score_at_once() -> None:
    ranker, wrong = Rankers().of(trained("after")), []
    expected = [scores(ranker, arm) for arm in (0, 1)]

    def ask(arm: int) -> None:
        wrong.extend(arm for _ in range(20) if not np.array_equal(scores(ranker, arm), expected[arm]))

    threads = [threading.Thread(target=ask, args=(number % 2,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_another_shape_is_refused_before_anything_is_overwritten() -> None:
    stack, rankers = trained("after"), Rankers()
    ranker = rankers.of(stack)
    before = scores(ranker, 0)
    tensors = {"embedding": stack.embedding, "dense": torch.zeros(2, 3)}
    with pytest.raises(ValueError, match="dense"):
        rankers(WORLD.schema, SPECS, stack.model, tensors, WORLD.encoder.user_rows, WORLD.encoder.item_rows)
    assert np.array_equal(scores(ranker, 0), before)


def test_rankers_of_a_device() -> None:
    stack = trained("after")
    tensors = {"embedding": stack.embedding, "dense": stack.dense}
    rows = WORLD.encoder.user_rows, WORLD.encoder.item_rows
    assert isinstance(make_rankers("cpu")(WORLD.schema, SPECS, stack.model, tensors, *rows), Ranker)
    if torch.cuda.is_available():
        assert isinstance(make_rankers("cuda"), GpuRankers)
    else:
        with pytest.raises(SettingError, match="device = cuda: no GPU"):
            make_rankers("cuda")


def test_without_compiling_nothing_is_captured() -> None:
    stack, rankers = trained("after"), Rankers()
    stack.model = replace(stack.model, compile="off")
    close(rankers.of(stack), stack, 1)
    assert rankers.captured == 0
