"""The label of a row: a column of 1 and 0, or an expression such as `event == 'buy' and seconds > 30`.

Expressions are parsed by `ast` and computed by pyarrow, column by column; nothing is ever run. docs/data.md says what
they may hold and mean.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise
from typing import Any

from simulator.world.columns import as_number, as_text, flat, pa, pc

MAX_LENGTH = 1_000
"""Characters of an expression."""
OPERATORS = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
Condition = Callable[[pa.RecordBatch], pa.Array]
"""From a batch [n] to [n] true, false or null."""
Side = ast.Name | float | str | list[float] | list[str]
"""Of a comparison: a column, a literal, or a list of them."""


@dataclass(frozen=True)
class Label:
    """Which rows are engagements. ValueError, when made, saying what is wrong with the text."""

    text: str
    """The column, or the expression."""

    def __post_init__(self) -> None:
        _ = self._condition

    @property
    def is_expression(self) -> bool:
        """Whether it is more than the name of a column."""
        return re.search(r"[=<>]|\b(in|not|and|or)\b", self.text) is not None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it is made of."""
        if not self.is_expression:
            return (self.text,)
        return tuple(dict.fromkeys(node.id for node in ast.walk(_parsed(self.text)) if isinstance(node, ast.Name)))

    def of(self, rows: pa.RecordBatch) -> pa.Array:
        """[n] 1 or 0 as uint8; null where the cell of a label column is neither."""
        return self._condition(rows).cast(pa.uint8())

    @cached_property
    def _condition(self) -> Condition:
        if not self.is_expression:
            return self._column
        condition = _condition(_parsed(self.text))
        return lambda rows: pc.fill_null(condition(rows), False)

    def _column(self, rows: pa.RecordBatch) -> pa.Array:
        number = as_number(flat(rows, self.text))
        return pc.if_else(pc.or_(pc.equal(number, 0), pc.equal(number, 1)), number, None)


def _parsed(text: str) -> ast.expr:
    if len(text) > MAX_LENGTH:
        raise ValueError(f"longer than {MAX_LENGTH:,} characters; make a column of it")
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"no expression ({error.msg})") from None
    except (ValueError, RecursionError, MemoryError):
        raise ValueError("no expression; an example is event == 'buy' and seconds > 30") from None


def _condition(node: ast.expr) -> Condition:
    """A node's condition; ValueError for anything else."""
    match node:
        case ast.BoolOp(op=operator, values=values):
            join = pc.and_kleene if isinstance(operator, ast.And) else pc.or_kleene
            return _joined(join, list(map(_condition, values)))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            inner = _condition(operand)
            return lambda rows: pc.invert(inner(rows))
        case ast.Compare():  # a < b < c is a < b and b < c
            sides = pairwise(map(_side, (node.left, *node.comparators)))
            parts = [_comparison(*pair, operation) for pair, operation in zip(sides, node.ops, strict=True)]
            return _joined(pc.and_kleene, parts)
        case ast.Name(id=column):
            return lambda rows: pc.not_equal(as_number(flat(rows, column)), 0)
    raise ValueError(f"{_excerpt(node)} is no condition; use comparisons, and, or, not, in")


def _joined(join: Callable[[pa.Array, pa.Array], pa.Array], parts: list[Condition]) -> Condition:
    return lambda rows: reduce(join, (part(rows) for part in parts))


def _side(node: ast.expr) -> Side:
    """A side of a comparison; ValueError for what is none."""
    match node:
        case ast.Name():
            return node
        case ast.Constant(value=str() as text):
            return text
        case ast.Constant(value=int() | float() as number) if abs(number) < 1e300:
            return float(number)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)) if abs(number) < 1e300:
            return -float(number)
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts) if parts:
            values: Any = [_side(part) for part in parts]
            if all(isinstance(value, str) for value in values) or all(isinstance(value, float) for value in values):
                return values  # type: ignore[no-any-return]
            raise ValueError("a list behind `in` holds texts alone, or numbers alone")
    raise ValueError(f"{_excerpt(node)} is neither a column nor a text nor a number")


def _comparison(left: Side, right: Side, operator: ast.cmpop) -> Condition:
    """One comparison, null where either side is; ValueError for one that means nothing."""
    is_in = isinstance(operator, ast.In | ast.NotIn)
    if not is_in and type(operator) not in OPERATORS:
        raise ValueError("`is` compares nothing here; use == or !=")
    if is_in != isinstance(right, list) or isinstance(left, list):
        raise ValueError("a list of texts or numbers stands behind `in`, and nowhere else")
    if not isinstance(left, ast.Name) and (is_in or not isinstance(right, ast.Name)):
        raise ValueError("a comparison without a column; name one on either side")
    literal: Any = right if isinstance(left, ast.Name) else left
    sample = literal[0] if is_in else literal
    equal = isinstance(operator, ast.Eq | ast.NotEq)
    convert = as_text if isinstance(sample, str) or (isinstance(sample, ast.Name) and equal) else as_number

    def value(side: Side, rows: pa.RecordBatch) -> pa.Array | pa.Scalar:
        return convert(flat(rows, side.id)) if isinstance(side, ast.Name) else pa.scalar(side)

    def inside(rows: pa.RecordBatch) -> pa.Array:
        column = value(left, rows)
        is_in_list = pc.if_else(column.is_valid(), pc.is_in(column, pa.array(literal)), None)
        return pc.invert(is_in_list) if isinstance(operator, ast.NotIn) else is_in_list

    return inside if is_in else lambda rows: OPERATORS[type(operator)](value(left, rows), value(right, rows))


def _excerpt(node: ast.expr) -> str:
    text = ast.unparse(node)
    return repr(text if len(text) <= 60 else f"{text[:60]}...")
