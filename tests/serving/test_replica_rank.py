"""The worker's bookkeeping, and that a score's last bit does not depend on the pass it was computed in."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from protos.recommender_pb2 import RecommendRequest
from serving.replica import rank
from serving.replica.generation import Generation
from serving.replica.rank import Job, Queue, RankCall, passes, score
from simulator.models.ranker import Rankers
from simulator.randomness import generator
from tests.serving.generations import about_of, parts_of, stack_of

INFINITY = float("inf")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def served(**model: object) -> Generation:
    stack = stack_of(0, **model)
    parts = parts_of(stack, 0)
    published = bytearray(parts["duplicate/0"]), bytearray(parts["catalog"])
    return Generation.of("default", 0, 0, "a", about_of(stack, 0), *published, Rankers())


def jobs_of(generation: Generation, sizes: list[int], arm: int = 0) -> list[Job]:
    draws = generator(0, "test jobs")
    query, rows = RecommendRequest(), generation.ranges.context_rows(())
    return [
        Job(
            RankCall(lambda: None),
            query,
            generation,
            arm,
            int(draws.integers(50)),
            rows,
            draws.permutation(120)[:n],
            INFINITY,
        )
        for n in sizes
    ]


@pytest.mark.parametrize(
    ("engine", "norm"),
    [(e, n) for e in ("auto", "torch") for n in ("none", "before", "after", "weight") if (e, n) != ("auto", "weight")],
)
@pytest.mark.parametrize(("dim", "hidden"), [(4, (12, 6)), (5, (24, 15)), (16, (128, 64, 32)), (16, (256, 128))])
def test_a_score_is_the_same_to_the_last_bit_in_any_company(
    norm: str, dim: int, hidden: tuple[int, ...], engine: str
) -> None:
    generation = served(norm=norm, dim=dim, hidden=hidden, engine=engine)
    sizes = [1, 2, 3, 7, 10, 16, 31, 32, 33, 40, 60, 63, 64, 65, 90, 100, 119, 120]
    jobs = jobs_of(generation, sorted(sizes * 5))  # queries of one length share a pass
    alone = []
    for job in jobs:
        score([job])
        alone.append(job.scores.copy())
    for size in (2, 3, 5, 8, 32):
        for batch in (jobs[start : start + size] for start in range(0, len(jobs), size)):
            for group in passes(batch):
                score(group)
        for job, expected in zip(jobs, alone, strict=True):
            np.testing.assert_array_equal(job.scores, expected)


def test_a_pass_holds_one_generation_one_arm_and_one_length() -> None:
    one, other = served(), served()
    jobs = jobs_of(one, [7, 9, 7, 9]) + jobs_of(one, [7], arm=1) + jobs_of(other, [7])
    found = [[jobs.index(job) for job in group] for group in passes(jobs)]
    assert found == [[0, 2], [1, 3], [4], [5]]


def test_a_pass_stays_in_the_cache() -> None:
    sizes = [len(group) for group in passes(jobs_of(served(), [50] * 70))]
    assert sizes == [40, 30]
    large = Job(RankCall(lambda: None), RecommendRequest(), served(), 0, 0, (), np.arange(10_000), INFINITY)
    assert [len(group) for group in passes([large, large])] == [1, 1]


def test_the_queue_is_bounded_and_drained_at_once() -> None:
    queue, jobs = Queue(5), jobs_of(served(), [4] * 8)
    assert [queue.put(jobs[:3]), queue.put(jobs[3:]), queue.put(jobs[:1])] == [3, 2, 0]
    assert queue.take() == jobs[:5] and len(queue) == 0
    assert [job.call.left for job in jobs] == [1] * 5 + [0] * 3


def test_a_drain_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank, "MAX_PER_DRAIN", 3)
    queue, jobs = Queue(9), jobs_of(served(), [4] * 5)
    queue.put(jobs)
    assert [len(queue.take()), len(queue.take())] == [3, 2]


def test_users_come_first_and_background_work_a_little_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank, "MAX_BACKGROUND_PER_DRAIN", 2)
    queue, jobs = Queue(8), jobs_of(served(), [4] * 7)
    assert queue.put(jobs[:5], background=True) == 4, "half of the room is for users"
    assert queue.put(jobs[5:]) == 2
    assert queue.take() == [*jobs[5:], *jobs[:2]]
    assert queue.put([*jobs, *jobs]) == 6, "there is one bound for both"
    assert queue.take() == [*jobs[:6], *jobs[2:4]]


def test_a_closed_queue_gives_what_it_has_then_nothing() -> None:
    queue, jobs, taken = Queue(9), jobs_of(served(), [4] * 2), list[list[Job]]()
    queue.put(jobs)
    queue.close()
    assert queue.put(jobs) == 0
    waiting = threading.Thread(target=lambda: taken.extend([queue.take(), queue.take()]))
    waiting.start()
    waiting.join(10)
    assert taken == [jobs, []]
