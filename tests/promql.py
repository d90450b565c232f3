"""Reads a PromQL expression: the metrics and labels that it uses, and the labels of what comes out.

A metric that no code declares, or a label that the metric does not have, is no error to Prometheus: the panel just
stays empty and the alert silent. Labels are those that samples may carry; two sides of an operator that never match are
told.
"""

from __future__ import annotations

from collections.abc import Mapping

import promql_parser as promql

Labels = frozenset[str]
NONE: Labels = frozenset()
KEEPING = {"topk", "bottomk"}
"""Aggregations that pick samples and keep their labels."""


def problems(expression: str, declared: Mapping[str, Labels]) -> list[str]:
    """What is wrong with the names and labels of an expression, a line each; `declared` maps a metric to its labels.

    Raises ValueError for what is no PromQL.
    """
    reader = _Reader(declared)
    reader.labels(promql.parse(expression))
    return reader.problems


def labels(expression: str, declared: Mapping[str, Labels]) -> Labels:
    """The labels that the samples of an expression may carry. Raises ValueError for what is no PromQL."""
    return _Reader(declared).labels(promql.parse(expression))


class _Reader:
    """One walk through an expression, from the inside out."""

    def __init__(self, declared: Mapping[str, Labels]) -> None:
        self._declared = declared
        self.problems: list[str] = []

    def labels(self, node: promql.Expr) -> Labels:
        """The labels of what a part of the expression gives."""
        match node:
            case promql.VectorSelector():
                return self._selected(node)
            case promql.MatrixSelector():
                return self._selected(node.vector_selector)
            case promql.AggregateExpr():
                return self._aggregated(node)
            case promql.Call():
                return self._called(node)
            case promql.BinaryExpr():
                return self._combined(node)
            case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
                return self.labels(node.expr)
            case _:  # a number or a string
                return NONE

    def _need(self, wanted: Labels, there: Labels, node: promql.Expr) -> None:
        self.problems += [f"no label {name} in {_line(node)}" for name in sorted(wanted - there)]

    def _selected(self, selector: promql.VectorSelector) -> Labels:
        matched = frozenset(matcher.name for matcher in selector.matchers.matchers)
        if selector.name not in self._declared:
            self.problems.append(f"no metric {selector.name}")
            return matched
        self._need(matched, self._declared[selector.name], selector)
        return self._declared[selector.name]

    def _aggregated(self, node: promql.AggregateExpr) -> Labels:
        inside = self.labels(node.expr)
        named = frozenset(node.modifier.labels) if node.modifier else NONE
        self._need(named, inside, node)
        if str(node.op) in KEEPING:
            return inside
        if node.modifier and node.modifier.type == promql.AggModifierType.Without:
            return inside - named
        return named

    def _called(self, node: promql.Call) -> Labels:
        inside = NONE.union(*(self.labels(argument) for argument in node.args))
        texts = [argument.val for argument in node.args if isinstance(argument, promql.StringLiteral)]
        match node.func.name:
            case "histogram_quantile":
                self._need(frozenset({"le"}), inside, node)
                return inside - {"le"}
            case "label_replace":
                self._need(frozenset({texts[2]}), inside, node)
                return inside | {texts[0]}
            case "label_join":
                self._need(frozenset(texts[2:]), inside, node)
                return inside | {texts[0]}
            case "absent" if isinstance(node.args[0], promql.VectorSelector):
                matchers = node.args[0].matchers.matchers
                return frozenset(matcher.name for matcher in matchers if matcher.op == promql.MatchOp.Equal)
            case _:
                return inside

    def _combined(self, node: promql.BinaryExpr) -> Labels:
        left, right = self.labels(node.lhs), self.labels(node.rhs)
        if _is_scalar(node.lhs) or _is_scalar(node.rhs):
            return left | right
        modifier = node.modifier
        card = modifier.card if modifier else promql.VectorMatchCardinality.OneToOne
        named = frozenset(modifier.matching.labels) if modifier and modifier.matching else NONE
        on = bool(modifier and modifier.matching and modifier.matching.type == promql.LabelModifierType.Include)
        operator = str(node.op)
        self._need(named, left | right if not on else left & right, node)
        if not on and operator != "or" and left - named != right - named:
            self.problems.append(f"sides with labels {sorted(left)} and {sorted(right)} in {_line(node)}")
        if operator == "or":
            return left | right
        if operator in ("and", "unless"):
            return left
        if card == promql.VectorMatchCardinality.OneToOne:
            return named if on else left - named
        many, one = (left, right) if card == promql.VectorMatchCardinality.ManyToOne else (right, left)
        added = frozenset(modifier.group_labels)
        self._need(added, one, node)
        return many | added


def _is_scalar(node: promql.Expr) -> bool:
    match node:
        case promql.NumberLiteral():
            return True
        case promql.Call():
            return bool(node.func.return_type == promql.ValueType.Scalar)
        case promql.ParenExpr() | promql.UnaryExpr():
            return _is_scalar(node.expr)
        case promql.BinaryExpr():
            return _is_scalar(node.lhs) and _is_scalar(node.rhs)
        case _:
            return False


def _line(node: promql.Expr) -> str:
    return " ".join(node.prettify().split())
