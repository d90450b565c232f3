"""`make endure` in small: two kills of each, and how it tells what must be 0."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.endure import KINDS, Findings, endure, schedule

LOST = "events lost"


@pytest.mark.slow
def test_two_kills_of_each_under_load_cost_nothing(tmp_path: Path) -> None:
    findings = endure(tmp_path, schedule(KINDS, 2, 40.0, seed=0), 40.0, rate=50.0, seed=0)
    print(findings.table())
    assert not any(findings.must_be_zero().values()), findings.table()
    assert findings.load["requests"] > 1_000 and findings.learned > 20_000 and findings.tensors > 10
    assert {kind: len(times) for kind, times in findings.healed.items()} == dict.fromkeys(KINDS, 2)


def test_kills_are_spread_over_the_time_and_follow_the_seed() -> None:
    kills = schedule(KINDS, 25, 1_500.0, seed=3)
    assert kills == schedule(KINDS, 25, 1_500.0, seed=3) != schedule(KINDS, 25, 1_500.0, seed=4)
    assert kills == sorted(kills, key=lambda kill: kill.at)
    for kind in KINDS:
        # no more than two in any minute: what dies more often is dead for good
        assert [int(kill.at // 60) for kill in kills if kill.kind == kind] == list(range(25))


def found(**others: object) -> Findings:
    """100 queries and 10 reports, all well."""
    feedback = {"requests": 10, "failures": {}}
    load = {
        "requests": 100,
        "failures": {},
        "feedback": feedback,
        "seconds": 10.0,
        "offered": 10.0,
        "p50": 0.1,
        "p99": 0.2,
    }
    well = dict(kills={"router": 1}, healed={"router": [2.0]}, load=load, appended=1_100, world=1_000)
    return Findings(**well | dict(learned=1_024, place=1_024, tensors=3, different=[]) | others)  # type: ignore[arg-type]


def test_what_must_be_zero_is_where_all_is_well() -> None:
    assert not any(found().must_be_zero().values())
    assert "1,100 in the log" in found().table() and "         0  queries failed" in found().table()


@pytest.mark.parametrize(
    ("what", "count", "wrong"),
    [
        (LOST, 20, {"appended": 1_080}),
        ("events twice in the log", 10, {"appended": 1_110}),
        ("events learned twice or passed over", 5, {"place": 1_019}),
        ("tensors unlike those without kills", 1, {"different": ["engine/0"]}),
        ("kills not healed", 1, {"healed": {"router": []}}),
    ],
)
def test_what_went_wrong_is_counted(what: str, count: int, wrong: dict[str, object]) -> None:
    assert {name: n for name, n in found(**wrong).must_be_zero().items() if n} == {what: count}


@pytest.mark.parametrize("appended", [1_090, 1_100])
def test_a_report_without_an_answer_may_be_in_the_log_or_not(appended: int) -> None:
    load = found().load | {"failures": {"UNAVAILABLE": 2}, "feedback": {"requests": 10, "failures": {"UNAVAILABLE": 1}}}
    findings = found(load=load, appended=appended)
    assert {name: n for name, n in findings.must_be_zero().items() if n} == {"queries failed": 2}
    assert (findings.accepted, findings.unsure) == (90, 10)
