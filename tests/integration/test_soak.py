"""`make soak` in small: that it runs and looks at all; and what it makes of samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.bench.soak import HELD, KINDS, WARM_UP, Findings, Growth, Samples, soak

LOAD = {"requests": 100, "failures": {}, "seconds": 10.0, "offered": 10.0, "p50": 0.1, "p99": 0.2}


@pytest.mark.slow
def test_a_short_soak_fails_no_query_and_keeps_files_and_threads(tmp_path: Path) -> None:
    """Memory is another matter: in 40 s allocators have not found out what they need."""
    findings = soak(tmp_path, 40.0, rate=50.0, seed=0)
    print(findings.table())
    assert findings.load["requests"] > 1_000 and findings.refreshes > 10
    assert len(findings.samples.seconds) > 20 and findings.samples.remembered[-1] > 0
    assert [line for line in findings.failures() if "megabytes" not in line] == [], findings.table()
    assert all(growth.start > 1 for growth in findings.growth().values())
    assert all(growth.over_run < 0.2 for growth in findings.growth().values()), findings.table()


def test_growth_is_a_line_behind_the_warm_up() -> None:
    seconds = list(range(0, 1_001, 10))
    values = [500.0 if at < WARM_UP * 1_000 else 100.0 + 0.01 * (at - WARM_UP * 1_000) for at in seconds]
    growth = Growth.of(seconds, values)
    assert growth.start == pytest.approx(100.0)
    assert growth.per_hour == pytest.approx(0.36) and growth.over_run == pytest.approx(0.01 * 600 / 100)
    assert Growth.of([0.0], [3.0]) == Growth(3.0, 0.0, 0.0)
    assert Growth.of([0.0, 1.0, 2.0], [0.0, 0.0, 0.0]) == Growth(0.0, 0.0, 0.0)


def test_noise_alone_is_no_growth() -> None:
    noise = np.random.default_rng(0).normal(100, 1, 1_800)
    assert abs(Growth.of(list(range(1_800)), noise.tolist()).over_run) < 0.01


def samples(**grows: float) -> Samples:
    """Of 100 s, all of which hold 100, but for what grows by so much a second."""
    found = Samples([float(at) for at in range(101)], remembered=[1.0] * 101)
    for kind in KINDS:
        for what in HELD:
            found.held[kind, what] = [100.0 + grows.get(f"{kind}_{what}", 0.0) * at for at in range(101)]
    return found


def found(reports: dict[str, int] | None = None, queries: dict[str, int] | None = None, **grows: float) -> Findings:
    feedback = {"requests": 10, "failures": reports or {}}
    return Findings(samples(**grows), LOAD | {"failures": queries or {}, "feedback": feedback}, 99.0)


def test_what_must_not_be_is_told() -> None:
    assert found().failures() == [] and "nothing grew, nothing failed" in found().table()
    assert "a refresh each 1.0 s" in found().table() and "store" in found().table()
    assert found(router_megabytes=0.01, store_files=-1.0).failures() == []
    assert found(router_megabytes=0.1, replica_threads=0.05).failures() == [
        "router: megabytes grew by 5.77%",
        "replica: threads grew by 2.94%",
    ]
    assert found(queries={"UNAVAILABLE": 2}, reports={"CANCELLED": 1}).failures() == [
        "2 queries failed: {'UNAVAILABLE': 2}",
        "1 reports failed: {'CANCELLED': 1}",
    ]
