"""Columns of any type as text, as numbers, as times; cells that are none become null, never an error.

An empty text is null, too. Shapes: n rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet  # noqa: F401  (a part of `pa` for all who take it from here)

from simulator.errors import DataError

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
WHOLE = 2.0**53
"""Floats below it are whole numbers without loss."""
PER_SECOND = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
types = pa.types
__all__ = ["pa", "pc", "types", "as_text", "as_number", "as_seconds", "decoded", "flat", "is_list", "is_text"]
__all__ += ["joined", "plain"]


def is_text(kind: pa.DataType) -> bool:
    """Whether cells are text or bytes."""
    binary = types.is_binary(kind) or types.is_large_binary(kind)
    return bool(binary or types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether a cell holds several values."""
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def flat(rows: pa.RecordBatch, name: str) -> pa.Array:
    """[n] a column whose cells hold one value each; DataError where they are lists."""
    column = rows.column(name)
    if is_list(column.type):
        raise DataError(f"column {name!r} holds {column.type}; only a feature of kind category may hold lists")
    return column


def plain(column: pa.Array) -> pa.Array:
    """The column without dictionary."""
    return column.dictionary_decode() if types.is_dictionary(column.type) else column


def as_text(column: pa.Array) -> pa.Array:
    """[n] strings; 7, 7.0 and "7" are the same. Lists become lists of strings, no list an empty one."""
    column = plain(column)
    kind = column.type
    if is_list(kind):
        return _in_lists(column, as_text)
    if types.is_decimal(kind) and kind.scale > 0:
        return as_text(column.cast(pa.float64(), safe=False))
    if types.is_floating(kind):
        column = column.cast(pa.float32()) if types.is_float16(kind) else column
        is_whole = pc.and_(pc.equal(column, pc.trunc(column)), pc.less(pc.abs(column), WHOLE))
        number = pc.if_else(is_whole, column, None).cast(pa.int64())
        text = pc.coalesce(number.cast(pa.string()), column.cast(pa.string()))
        return pc.if_else(pc.is_nan(column), None, text)
    if not is_text(kind):
        return column.cast(pa.string())
    try:
        text = column.cast(pa.string())
    except pa.ArrowInvalid:  # bytes that are no UTF-8
        text = pa.array([None if cell is None else decoded(cell) for cell in column.to_pylist()], pa.string())
    return pc.if_else(pc.equal(text, ""), None, text)


def joined(column: pa.Array, mark: str) -> pa.Array:
    """[n] the values of each list as one text; null is an empty text."""
    lists = as_text(column)
    return pc.binary_join(pa.ListArray.from_arrays(lists.offsets, lists.values.fill_null("")), mark)


def as_number(column: pa.Array) -> pa.Array:
    """[n] finite doubles; true is 1, also as text. Lists become lists of doubles, no list an empty one."""
    column = plain(column)
    kind = column.type
    if is_list(kind):
        return _in_lists(column, as_number)
    if types.is_boolean(kind):
        column = column.cast(pa.int8())
    elif is_text(kind):
        column = _numbers_in(column)
    elif types.is_date(kind) or types.is_timestamp(kind):
        column = as_seconds(column, "seconds")
    column = column.cast(pa.float64(), safe=False)
    return pc.if_else(pc.is_finite(column), column, None)


def _in_lists(column: pa.Array, convert: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Lists of converted values; no list is an empty one."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).cast(pa.int32())
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths)])
    return pa.ListArray.from_arrays(offsets, convert(column.flatten()))


def _numbers_in(text: pa.Array) -> pa.Array:
    try:
        return text.cast(pa.float64())
    except pa.ArrowInvalid:
        text = pc.utf8_lower(pc.utf8_trim_whitespace(as_text(text)))
        text = pc.if_else(pc.equal(text, "true"), "1", pc.if_else(pc.equal(text, "false"), "0", text))
        return pc.if_else(pc.match_substring_regex(text, NUMBER), text, None).cast(pa.float64())


def as_seconds(column: pa.Array, unit: str) -> pa.Array:
    """[n] unix seconds as doubles, UTC where no zone is named.

    `unit` as in the mapping file: timestamps, dates, and ISO 8601 where it is the default, need none.
    """
    column = plain(column)
    kind = column.type
    if types.is_date(kind) or types.is_timestamp(kind):
        micro = pa.timestamp("us", kind.tz if types.is_timestamp(kind) else None)
        return _of_micro(column.cast(micro, safe=False))
    if unit in PER_SECOND:
        seconds = pc.divide(as_number(column), PER_SECOND[unit])
        dates = unit == "seconds" and is_text(kind) and seconds.null_count > as_text(column).null_count
        return pc.coalesce(seconds, _iso(as_text(column))) if dates else seconds
    text = as_text(column)
    return _iso(text) if unit == "iso8601" else _of_micro(pc.strptime(text, unit, "us", error_is_null=True))


def _iso(text: pa.Array) -> pa.Array:
    for zone in (None, "UTC"):
        try:
            return _of_micro(text.cast(pa.timestamp("us", zone)))
        except pa.ArrowInvalid:  # another form, or with and without zones
            pass
    return pa.array([_instant(cell) for cell in text.to_pylist()], pa.float64())


def _of_micro(column: pa.Array) -> pa.Array:
    return pc.divide(column.cast(pa.int64()).cast(pa.float64(), safe=False), 1e6)


def _instant(cell: str | None) -> float | None:
    try:
        time = datetime.fromisoformat(cell or "")
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def decoded(line: bytes) -> str:
    """UTF-8, or else Latin-1 (as the titles of MovieLens 1M are)."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")
