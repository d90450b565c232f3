"""Columns of every type as text, numbers and times."""

from __future__ import annotations

import decimal
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.world.columns import as_number, as_seconds, as_text

WHOLE = decimal.Decimal(7)


@pytest.mark.parametrize(
    ("column", "text", "number"),
    [
        (pa.array([7, None], pa.int8()), ["7", None], [7, None]),
        (
            pa.array([7.0, 7.5, float("nan"), float("inf"), None]),
            ["7", "7.5", None, "inf", None],
            [7, 7.5, *[None] * 3],
        ),
        (pa.array([WHOLE], pa.decimal128(38, 0)), ["7"], [7]),
        (pa.array([WHOLE, decimal.Decimal("7.25")], pa.decimal128(9, 2)), ["7", "7.25"], [7, 7.25]),
        (pa.array([True, False, None]), ["true", "false", None], [1, 0, None]),
        (pa.array(["7", "", " 7 ", "-.5e1", "True", "x", "1_0", "nan", None], pa.large_string()), None, None),
        (pa.array(["7", "8"], pa.string_view()), ["7", "8"], [7, 8]),
        (pa.array(["7", "8", "7", None]).dictionary_encode(), ["7", "8", "7", None], [7, 8, 7, None]),
        (pa.array([b"7", b"caf\xe9", "é".encode(), None]), ["7", "café", "é", None], [7, None, None, None]),
        (pa.array([[7, 8], [], None, [None]]).slice(1), [[], [], [None]], [[], [], [None]]),
        (pa.array([["7"], ["", "x"]], pa.large_list(pa.string())), [["7"], [None, "x"]], [[7], [None, None]]),
        (pa.array([[7, 8]], pa.list_(pa.int8(), 2)), [["7", "8"]], [[7, 8]]),
        (pa.array([date(1970, 1, 2)]), ["1970-01-02"], [86_400]),
        (pa.nulls(2), [None, None], [None, None]),
        (pa.array(np.array([0.5, 7], np.float16)), ["0.5", "7"], [0.5, 7]),
    ],
)
def test_a_column_of_any_type_is_text_and_numbers(column: pa.Array, text: Any, number: Any) -> None:
    if text is None:  # what spelling does
        text, number = ["7", None, " 7 ", "-.5e1", "True", "x", "1_0", "nan", None], [7, None, 7, -5, 1, *[None] * 4]
    assert as_text(column).to_pylist() == text
    assert as_number(column).to_pylist() == number


@given(st.lists(st.none() | st.floats() | st.integers(-(2**70), 2**70) | st.text(max_size=5), max_size=6))
def test_numbers_in_text_are_those_that_python_reads(cells: list[float | int | str | None]) -> None:
    def plain(cell: str) -> float | None:
        try:
            number = float(cell)
        except ValueError:
            return {"true": 1.0, "false": 0.0}.get(cell.strip().lower())
        return number if abs(number) < float("inf") and "_" not in cell and cell.isascii() else None

    spelled = [None if cell is None else str(cell) for cell in cells]
    expected = [None if cell is None else plain(cell) for cell in spelled]
    assert as_number(pa.array(spelled, pa.string())).to_pylist() == expected


NOON = datetime(2024, 2, 29, 12, 0, 0, 250_000, UTC)


@pytest.mark.parametrize(
    ("cells", "unit"),
    [
        (pa.array([NOON.timestamp(), None]), "seconds"),
        (pa.array([str(NOON.timestamp()), "soon"]), "seconds"),
        (pa.array([int(NOON.timestamp() * 1_000), None]), "milliseconds"),
        (pa.array([str(int(NOON.timestamp() * 1_000_000)), ""]), "microseconds"),
        (pa.array([NOON, None], pa.timestamp("ns", "Europe/Madrid")), "seconds"),
        (pa.array([NOON.replace(tzinfo=None), None], pa.timestamp("ms")), "milliseconds"),
        (pa.array(["2024-02-29T12:00:00.25", "2024-02-30T12:00:00"]), "iso8601"),
        (pa.array(["2024-02-29 12:00:00.250000", None]), "iso8601"),
        (pa.array(["2024-02-29 12:00:00.250000", "soon"]), "seconds"),
        (pa.array(["2024-02-29T14:00:00.25+02:00", ""]), "iso8601"),
        (pa.array(["2024-02-29T12:00:00.250Z", "noon"]), "iso8601"),
    ],
)
def test_times_of_every_unit_are_the_same_second(cells: pa.Array, unit: str) -> None:
    assert as_seconds(cells, unit).to_pylist() == [NOON.timestamp(), None]


def test_times_with_and_without_zone_mix_and_forms_are_of_your_own() -> None:
    hour = NOON.replace(minute=0, second=0, microsecond=0).timestamp()
    mixed = pa.array(["2024-02-29T12:00:00Z", "2024-02-29T12:00:00", "2024-02-29T13:00:00+01:00"])
    assert as_seconds(mixed, "iso8601").to_pylist() == [hour] * 3
    assert as_seconds(pa.array([24022912, None]), "%y%m%d%H").to_pylist() == [hour, None]
    assert as_seconds(pa.array(["2/29/2024 12:00:00 PM", "x"]), "%m/%d/%Y %I:%M:%S %p").to_pylist() == [hour, None]
    days = pa.array([date(1970, 1, 1) + timedelta(days=3), None])
    assert as_seconds(days, "seconds").to_pylist() == [3 * 86_400, None]
