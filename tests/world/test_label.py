"""Label expressions against a plain interpreter of the same, on random rows; and what is refused."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.world.label import MAX_LENGTH, Label

Row = dict[str, Any]
Condition = tuple[str, Callable[[Row], bool | None]]
"""An expression and what it means: true, false or null (None), as in SQL."""
TEXTS = st.sampled_from(["buy", "view", "it's", '"', "ü"])
NUMBERS = st.sampled_from([-2.5, -1, 0, 1, 3, 30])
OPERATORS = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt}
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "event": st.none() | TEXTS,
            "seconds": st.none() | NUMBERS,
            "other": st.none() | NUMBERS,
        }
    ),
    min_size=1,
    max_size=8,
)


def compared(symbol: str, left: Any, right: Any) -> bool | None:
    return None if left is None or right is None else bool(OPERATORS[symbol](left, right))


def both(left: bool | None, right: bool | None) -> bool | None:
    return False if left is False or right is False else None if left is None or right is None else True


def negated(truth: bool | None) -> bool | None:
    return None if truth is None else not truth


@st.composite
def comparisons(draw: st.DrawFn) -> Condition:
    column, values = draw(st.sampled_from([("event", TEXTS), ("seconds", NUMBERS), ("other", NUMBERS)]))
    symbols = st.sampled_from(list(OPERATORS))
    kind = draw(st.sampled_from(["plain", "turned", "in", "not in", "chained", "columns"]))
    first, second, one, two = draw(values), draw(values), draw(symbols), draw(symbols)
    if kind == "plain":
        return f"{column} {one} {first!r}", lambda row: compared(one, row[column], first)
    if kind == "turned":
        return f"{first!r} {one} {column}", lambda row: compared(one, first, row[column])
    if kind == "chained":
        text = f"{first!r} {one} {column} {two} {second!r}"
        return text, lambda row: both(compared(one, first, row[column]), compared(two, row[column], second))
    if kind == "columns":
        return f"seconds {one} other", lambda row: compared(one, row["seconds"], row["other"])
    inside: Callable[[Row], bool | None] = lambda row: None if row[column] is None else row[column] in (first, second)  # noqa: E731
    turn = negated if kind == "not in" else lambda truth: truth
    return f"{column} {kind} [{first!r}, {second!r}]", lambda row: turn(inside(row))


def joined(parts: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    def two(pair: tuple[Condition, Condition], word: str) -> Condition:
        (left, is_left), (right, is_right) = pair
        if word == "and":
            return f"({left}) and ({right})", lambda row: both(is_left(row), is_right(row))
        return f"({left}) or ({right})", lambda row: negated(both(negated(is_left(row)), negated(is_right(row))))

    not_one = parts.map(lambda part: (f"not ({part[0]})", lambda row: negated(part[1](row))))
    return not_one | st.builds(two, st.tuples(parts, parts), st.sampled_from(["and", "or"]))


@given(st.recursive(comparisons(), joined, max_leaves=6), ROWS, st.booleans())
def test_an_expression_means_what_python_makes_of_it_row_by_row(
    condition: Condition, rows: list[Row], as_text: bool
) -> None:
    text, meaning = condition
    batch = pa.RecordBatch.from_pylist(
        rows, pa.schema({"event": pa.string(), "seconds": pa.float64(), "other": pa.float64()})
    )
    if as_text:  # as a CSV has them
        batch = pa.record_batch([column.cast(pa.string()) for column in batch.columns], batch.schema.names)
    assert Label(text).of(batch).to_pylist() == [int(meaning(row) is True) for row in rows]


def test_a_column_is_1_or_0_or_damage() -> None:
    rows = pa.record_batch({"clicked": ["1", "0", "1.0", "true", "False", "2", "yes", "", None], "is it": [True] * 9})
    assert Label("clicked").of(rows).to_pylist() == [1, 0, 1, 1, 0, None, None, None, None]
    assert Label("is it").of(rows).to_pylist() == [1] * 9
    assert Label("not clicked").of(rows).to_pylist() == [0, 1, 0, 0, 1, 0, 0, 0, 0]


def test_columns_are_those_that_an_expression_names_each_once() -> None:
    assert sorted(Label("a == 'x' and (b > 3 or a == 'y') and not c").columns) == ["a", "b", "c"]
    assert Label("add-to-cart").columns == ("add-to-cart",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os').system('true') == 1", "is neither a column nor a text nor a number"),
        ("a.b == 1", "'a.b' is neither"),
        ("a[0] == 1", "'a[0]' is neither"),
        ("a + 1 == 2", "'a + 1' is neither"),
        ("a == None", "'None' is neither"),
        ("a == b'x'", "is neither"),
        ("a == f'{b}'", "is neither"),
        ("a in ()", "'()' is neither"),
        ("a == " + "9" * 900, "is neither"),
        ("a == 1e999", "is neither"),
        ("lambda: a == 1", "is no condition; use comparisons, and, or, not, in"),
        ("a == 1 if b == 1 else c == 1", "is no condition"),
        ("(a := b) == 1", "is neither"),
        ("1 == 1", "a comparison without a column"),
        ("1 < 2 < a", "a comparison without a column"),
        ("a in b", "a list of texts or numbers stands behind `in`"),
        ("a == (1, 2)", "a list of texts or numbers stands behind `in`"),
        ("a in (1, 'b')", "texts alone, or numbers alone"),
        ("a is 1 and b == 1", "use == or !="),
        ("a ==", "no expression (invalid syntax)"),
        ("a = 1", "no expression"),
        ("a == '\\d' and \0", "no expression"),
        ("(" * 300 + "a == 1" + ")" * 300, "no expression (too many nested parentheses)"),
        ("not " * 5_000 + "a", f"longer than {MAX_LENGTH:,} characters"),
    ],
)
def test_anything_but_conditions_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Label(text)
    assert message in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_deep_conditions_are_computed() -> None:
    deep = "not " * (MAX_LENGTH // 4 - 1) + "a"
    assert Label(deep).of(pa.record_batch({"a": [1, 0]})).to_pylist() == [0, 1]
