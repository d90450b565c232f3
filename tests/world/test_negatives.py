"""Sampled negatives against their stated distribution."""

from __future__ import annotations

import numpy as np

from simulator.types import Ints
from simulator.world.replay import negatives

NONE = np.empty(0, np.int64)


def test_each_is_half_from_the_trailing_window_and_half_from_everything_seen() -> None:
    # 1,000 items known; the window of 100 engagements holds item 5 three times in four, else item 6
    trail = np.array([5, 5, 5, 6] * 25)
    items = np.full(20_000, 5)
    items[3::4] = 6
    drawn = negatives(items, trail, known=1_000, recent=100, count=4, seed=1, block=0)
    share = np.bincount(drawn.ravel(), minlength=1_000) / drawn.size
    # 80,000 draws: standard deviations .0017 and .0012; each other item .5/1000 with deviation .00008
    assert abs(share[5] - (0.5 * 0.75 + 0.0005)) < 0.009
    assert abs(share[6] - (0.5 * 0.25 + 0.0005)) < 0.006
    others = np.delete(share, [5, 6])
    assert len(others) == 998 and abs(others - 0.0005).max() < 0.0004


def test_nothing_of_the_future_is_drawn_and_old_engagements_leave_the_window() -> None:
    items = np.arange(5_000)
    drawn = negatives(items, NONE, known=0, recent=100, count=50, seed=1, block=0)
    assert (drawn <= items[:, None]).all() and (drawn >= 0).all()
    # at the end, half of the draws are within the last 100; of the uniform half 2 % are as well
    late = drawn[4_900:] > items[4_900:, None] - 100
    assert abs(late.mean() - 0.51) < 0.03


def test_the_window_reaches_back_before_the_block_and_no_further_than_it_should() -> None:
    trail: Ints = np.array([1, 2, 3])
    drawn = negatives(np.array([0]), trail, known=4, recent=3, count=4_000, seed=1, block=0)
    share = np.bincount(drawn.ravel(), minlength=4) / drawn.size
    # window: items 2, 3 and 0 itself; uniform: 0 to 3
    assert np.allclose(share, [1 / 6 + 1 / 8, 1 / 8, 1 / 6 + 1 / 8, 1 / 6 + 1 / 8], atol=0.04)


def test_draws_follow_from_seed_and_block_and_a_longer_block_begins_the_same() -> None:
    items = np.arange(100)

    def draw(seed: int, block: int, rows: int = 100) -> list[list[int]]:
        found: list[list[int]] = negatives(items[:rows], NONE, 0, 100, 3, seed, block).tolist()
        return found

    assert draw(1, 2) == draw(1, 2)
    assert draw(1, 2) != draw(1, 3) and draw(1, 2) != draw(2, 2)
    assert draw(1, 2, rows=40) == draw(1, 2)[:40]
