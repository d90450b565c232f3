"""What makes a row an engagement: a column of 1 and 0, or an expression such as `event == 'buy' and seconds > 30`.

Expressions are parsed by `ast` and computed by pyarrow, column by column; nothing is ever run. They hold comparisons
(chained ones too), `in` and `not in` a list, `and`, `or`, `not`, texts, numbers, and names of columns. Beside a number
a column is read as numbers, beside a text as text; `<` and `>` between two columns compare numbers, `==` texts. A cell
that is empty, or no number where one is wanted, is null as in SQL: a comparison with it is neither true nor false, and
a row whose label comes out so is 0.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

LONGEST = 1_000
"""Characters of an expression."""
OPERATORS = {
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
}
Side = ast.Name | float | str | list[float] | list[str]
"""Of a comparison: a column, a literal, or a list of them."""


@dataclass(frozen=True)
class Label:
    """Which rows are engagements."""

    text: str
    """The column, or the expression."""

    @classmethod
    def read(cls, text: str) -> Label:
        """A label as the mapping file writes it; ValueError saying what is wrong with it."""
        label = cls(text)
        if label.is_expression:
            _check(label._tree)
        return label

    @property
    def is_expression(self) -> bool:
        """Whether it is more than the name of a column."""
        return re.search(r"[=<>]|\b(in|not|and|or)\b", self.text) is not None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it is made of."""
        if not self.is_expression:
            return (self.text,)
        return tuple(dict.fromkeys(node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)))

    def of(self, rows: pa.RecordBatch) -> pa.Array:
        """[n] 1 or 0 as uint8; null where the cell of a label column is neither."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from simulator.world.columns import as_number

        if self.is_expression:
            return pc.fill_null(_truth(self._tree, rows), False).cast(pa.uint8())
        number = as_number(rows.column(self.text))
        sound = pc.or_(pc.equal(number, 0), pc.equal(number, 1))
        return pc.if_else(sound, number, None).cast(pa.uint8())

    @cached_property
    def _tree(self) -> ast.expr:
        if len(self.text) > LONGEST:
            raise ValueError(f"longer than {LONGEST:,} characters; make a column of it")
        try:
            with warnings.catch_warnings(action="ignore"):
                return ast.parse(self.text.strip(), mode="eval").body
        except SyntaxError as error:
            raise ValueError(f"no expression ({error.msg})") from None
        except (ValueError, RecursionError, MemoryError):
            raise ValueError("no expression; an example is event == 'buy' and seconds > 30") from None


def _check(node: ast.expr) -> None:
    """ValueError for anything but conditions."""
    match node:
        case ast.BoolOp(values=parts):
            for part in parts:
                _check(part)
        case ast.UnaryOp(op=ast.Not(), operand=part):
            _check(part)
        case ast.Compare():
            for left, operator, right in _pairs(node):
                _check_pair(left, operator, right)
        case ast.Name():
            pass
        case _:
            raise ValueError(f"{_excerpt(node)} is no condition; use comparisons, and, or, not, in")


def _check_pair(left: Side, operator: ast.cmpop, right: Side) -> None:
    """ValueError for a comparison that means nothing."""
    is_in = isinstance(operator, ast.In | ast.NotIn)
    if not is_in and type(operator) not in OPERATORS:
        raise ValueError("`is` compares nothing here; use == or !=")
    if is_in != isinstance(right, list) or isinstance(left, list):
        raise ValueError("a list of texts or numbers stands behind `in`, and nowhere else")
    if not isinstance(left, ast.Name) and (is_in or not isinstance(right, ast.Name)):
        raise ValueError("a comparison without a column; name one on either side")


def _pairs(node: ast.Compare) -> Iterator[tuple[Side, ast.cmpop, Side]]:
    """The comparisons of a chain: a < b < c is a < b and b < c."""
    sides = pairwise(_side(side) for side in (node.left, *node.comparators))
    for (left, right), operator in zip(sides, node.ops, strict=True):
        yield left, operator, right


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


def _truth(node: ast.expr, rows: pa.RecordBatch) -> pa.Array:
    """[n] true, false or null."""
    import pyarrow.compute as pc

    from simulator.world.columns import as_number

    match node:
        case ast.BoolOp(op=joint, values=parts):
            join = pc.and_kleene if isinstance(joint, ast.And) else pc.or_kleene
            truth = _truth(parts[0], rows)
            for part in parts[1:]:
                truth = join(truth, _truth(part, rows))
            return truth
        case ast.UnaryOp(operand=part):
            return pc.invert(_truth(part, rows))
        case ast.Compare():
            truth = None
            for left, operator, right in _pairs(node):
                pair = _compared(left, operator, right, rows)
                truth = pair if truth is None else pc.and_kleene(truth, pair)
            return truth
        case ast.Name(id=column):
            return pc.not_equal(as_number(rows.column(column)), 0)
    raise AssertionError(node)


def _compared(left: Side, operator: ast.cmpop, right: Side, rows: pa.RecordBatch) -> pa.Array:
    """[n] one comparison; null where either side is."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from simulator.world.columns import as_number, as_text

    literal = right if isinstance(left, ast.Name) else left
    sample = literal[0] if isinstance(literal, list) else literal
    both = isinstance(sample, ast.Name) and isinstance(operator, ast.Eq | ast.NotEq)
    convert = as_text if both or isinstance(sample, str) else as_number
    if isinstance(right, list) and isinstance(left, ast.Name):
        column = convert(rows.column(left.id))
        truth = pc.is_in(column, pa.array(right))
        truth = pc.if_else(column.is_valid(), truth, None)
        return pc.invert(truth) if isinstance(operator, ast.NotIn) else truth
    sides = [convert(rows.column(side.id)) if isinstance(side, ast.Name) else pa.scalar(side) for side in (left, right)]
    return getattr(pc, OPERATORS[type(operator)])(*sides)


def _excerpt(node: ast.expr) -> str:
    text = ast.unparse(node)
    return repr(text if len(text) <= 60 else f"{text[:60]}...")
