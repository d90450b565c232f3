"""The small form of `make fuzz` with logs."""

from __future__ import annotations

from tests.fuzz.logs import fuzz


def test_any_bytes_are_a_log_or_one_line() -> None:
    found = fuzz(30, seed=1)
    assert {outcome for _, _, outcome in found} == {"taken", "refused"}
    assert found["log.csv", "skip", "taken"] > found["log.csv", "stop", "taken"]
