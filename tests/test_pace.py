"""Rests: everything comes, in order, and the processor is left alone for twice as long as it was used."""

from __future__ import annotations

import time

import pytest

from simulator import pace


def test_portions_come_in_order_with_rests_after_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    rests = list[float]()
    monkeypatch.setattr(pace.time, "sleep", rests.append)
    used, seen = list[float](), list[int]()
    for portion in pace.throttled(iter(range(4))):
        seen.append(portion)
        began = time.thread_time()
        while time.thread_time() < began + 0.002 * portion:
            pass
        used.append(time.thread_time() - began)
    assert seen == [0, 1, 2, 3] and len(rests) == 4
    for rest, busy in zip(rests, used, strict=True):
        assert pace.REST * busy <= rest <= pace.REST * (busy + 0.05)
