"""What is counted, against recounts by hand, and how it gets onto the metrics page."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from load.tally import WINDOW, FinishedCall, LoadCollector, Outbox, Repeat, Tally, add_report, compare
from simulator.measures.swaps import slot_swaps

CALLS = st.builds(
    FinishedCall,
    st.sampled_from(["Recommend", "Feedback"]),
    st.sampled_from(["OK", "UNAVAILABLE"]),
    st.floats(1e-5, 10),
)
REPEATS = st.builds(Repeat, st.sampled_from(["relu", "smelu"]), st.booleans(), st.integers(0, 10), st.just(10))


def value(tally: Tally, line: str) -> float:
    """The value of a sample of the metrics page, by its name with labels."""
    registry = CollectorRegistry()
    LoadCollector(lambda: tally, lambda: 7, registry)
    samples = dict(row.rsplit(" ", 1) for row in generate_latest(registry).decode().splitlines() if row[0] != "#")
    return float(samples[line])


@given(st.permutations(range(8)), st.permutations(range(8)))
def test_compare_counts_what_the_measure_does(first: list[int], second: list[int]) -> None:
    changed, slots = compare(first, second)
    assert changed / slots == slot_swaps(np.array([first]), np.array([second]))[0]


def test_a_slot_that_only_one_slate_has_differs() -> None:
    assert compare([1, 2, 3], [1, 2]) == (1, 3) and compare([], [4]) == (1, 1) and compare([], []) == (0, 0)


@given(st.lists(REPEATS, max_size=60))
def test_the_summary_counts_repeats(repeats: list[Repeat]) -> None:
    tally = Tally()
    for repeat in repeats:
        tally.repeat(repeat)
    summary = tally.summary()["user_visible_swap_ratio"]
    assert set(summary) == {repeat.arm for repeat in repeats}
    for arm, told in summary.items():
        own = [repeat for repeat in repeats if repeat.arm == arm]
        assert told["repeats"] == len(own) and told["changed"] == sum(r.changed > 0 for r in own)
        assert told["ratio"] == told["changed"] / len(own)
        assert told["slot_ratio"] == pytest.approx(sum(r.changed for r in own) / (10 * len(own)))
        for name, same in (("same_generation", True), ("other_generation", False)):
            part = [r for r in own if r.same_generation == same]
            assert (told[name]["repeats"], told[name]["changed"]) == (len(part), sum(r.changed > 0 for r in part))
            assert (told[name]["ratio"] is None) == (not part)


@given(st.lists(CALLS, max_size=80), st.lists(REPEATS, max_size=20), st.integers(0, 80))
def test_workers_reports_add_up_to_what_one_process_counts(
    calls: list[FinishedCall], repeats: list[Repeat], cut: int
) -> None:
    alone, master = Tally(), Tally()
    for sink in (alone, outbox := Outbox()):
        for number, call in enumerate(calls):
            sink.call(call)
            if sink is outbox and number == cut:
                add_report(master, json.loads(json.dumps(outbox.take())))
        for repeat in repeats:
            sink.repeat(repeat)
        sink.click(3)
    add_report(master, json.loads(json.dumps(outbox.take())))
    assert not any(outbox.take().values()), "nothing is told twice"
    assert master == alone and master.summary() == alone.summary()


@given(st.lists(st.floats(1e-4, 5), min_size=1, max_size=200))
def test_quantiles_are_right_to_one_percent(seconds: list[float]) -> None:
    tally = Tally()
    for one in seconds:
        tally.call(FinishedCall("Recommend", "OK", one))
    summary = tally.summary()
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        assert summary[name] == pytest.approx(np.quantile(seconds, share, method="inverted_cdf"), rel=0.0101)


def test_only_answered_queries_have_a_latency() -> None:
    tally = Tally()
    tally.call(FinishedCall("Recommend", "UNAVAILABLE", 0.001))
    tally.call(FinishedCall("Feedback", "OK", 0.001))
    summary = tally.summary()
    assert summary["p50"] is None and summary["requests"] == 1 and summary["failures"] == {"UNAVAILABLE": 1}
    assert summary["feedback"] == {"requests": 1, "failures": {}, "clicks": 0}


def test_rates_and_latencies_of_the_last_ten_ticks() -> None:
    tally = Tally()
    for second in range(30):
        for _ in range(5 if second < 20 else 8):
            tally.call(FinishedCall("Recommend", "OK", 1.0 if second < 20 else 0.1))
        tally.call(FinishedCall("Recommend", "UNAVAILABLE", 1.0))
        tally.tick(2.0, 18.0)
    assert tally.recent_rates() == (9.0, 4.0)
    assert tally.recent_latency(0.99) == pytest.approx(0.1, rel=0.0101)
    summary = tally.summary()
    assert (summary["seconds"], summary["offered"], summary["achieved"]) == (60.0, 9.0, 3.0)
    assert value(tally, "flicker_load_offered_rate") == 9 and value(tally, "flicker_load_achieved_rate") == 4
    assert value(tally, 'flicker_load_latency_seconds{quantile="0.5"}') == pytest.approx(0.1, rel=0.0101)


def test_the_live_ratio_forgets_and_the_counters_do_not() -> None:
    tally = Tally()
    for changed in [3] * 100 + [0] * (WINDOW - 50):
        tally.repeat(Repeat("relu", True, changed, 10))
    assert value(tally, 'flicker_user_visible_swap_ratio{arm="relu"}') == 50 / WINDOW
    labels = '{arm="relu",same_generation="true"}'
    assert value(tally, f"flicker_user_repeats_total{labels}") == WINDOW + 50
    assert value(tally, f"flicker_user_changed_total{labels}") == 100
    assert value(tally, f"flicker_user_slots_total{labels}") == 10 * (WINDOW + 50)
    assert value(tally, f"flicker_user_changed_slots_total{labels}") == 300


def test_a_test_without_any_call_has_a_summary_and_a_page() -> None:
    assert json.dumps(Tally().summary(), allow_nan=False)
    assert value(Tally(), "flicker_load_users") == 7
