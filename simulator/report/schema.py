"""The JSON schema of result.json, made from the class and the registry: python -m simulator.report.schema FILE."""

from __future__ import annotations

import ast
import inspect
import json
import sys
import textwrap
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from simulator.measures.registry import ACCURACY, DIFFERENCES, MEASURES, QUALITIES
from simulator.result import SCHEMA, Measures, Result, hints, json_name
from simulator.words import CAUSES, WORDS, word

PLAIN = {float: "number", int: "number", str: "string", bool: "boolean"}
HERE = "#/$defs/"


def schema() -> dict[str, Any]:
    """As docs/result.schema.json has it."""
    interval = {
        "description": "A mean with its 95 % interval; a plain number has none.",
        "type": ["object", "number", "null"],
        "properties": {name: {"type": ["number", "null"]} for name in ("mean", "low", "high")},
        "required": ["mean", "low", "high"],
        "additionalProperties": False,
    }
    known: dict[str, Any] = {"Interval": interval, "Measures": _measures()}
    _of(Result, known)
    whole: dict[str, Any] = known.pop("Result")
    whole["properties"] = {"schema": {"const": SCHEMA}} | whole["properties"]
    whole["required"] = ["schema", *whole["required"]]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Result"}
    return head | whole | {"$defs": known}


def _measures() -> dict[str, Any]:
    """Those with words of their own, and any other: nested at the dots of their names."""
    names = [*DIFFERENCES, *ACCURACY, *QUALITIES, *WORDS]
    found: dict[str, Any] = {name: _measure(name) for name in names}
    for cause in (*CAUSES, "swaps_these"):
        found[cause] = {
            "type": "object",
            "properties": {name: _measure(f"{cause}.{name}") for name in MEASURES},
            "additionalProperties": {"$ref": f"{HERE}Interval"},
        }
    anything = {"anyOf": [{"$ref": f"{HERE}Interval"}, {"$ref": f"{HERE}Measures"}]}
    return {"type": "object", "properties": found, "additionalProperties": anything}


def _measure(name: str) -> dict[str, Any]:
    told = word(name)
    return {"$ref": f"{HERE}Interval", "title": told.words, "description": told.about}


def _of(kind: Any, known: dict[str, Any]) -> dict[str, Any]:
    """The schema of a type; classes are put in `known`."""
    origin, inside = get_origin(kind), get_args(kind)
    if kind == Measures:
        return {"$ref": f"{HERE}Measures"}
    if isinstance(kind, type) and is_dataclass(kind):
        if kind.__name__ not in known:
            known[kind.__name__] = _class(kind, known)
        return {"$ref": f"{HERE}{kind.__name__}"}
    if origin is UnionType:
        return {"anyOf": [_of(inside[0], known), {"type": "null"}]}
    if origin is Literal:
        return {"enum": list(inside)}
    if origin is list:
        return {"type": "array", "items": _of(inside[0], known)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of(inside[1], known)}
    return {} if kind is Any else {"type": PLAIN[kind]}


def _class(kind: Any, known: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required, rest = [], False
    for each in fields(kind):
        name, its, told = json_name(each), hints(kind)[each.name], {"description": _told(kind).get(each.name, "")}
        if "spread" in each.metadata:
            rest |= not each.metadata["spread"]
            values = _of(its, known).get("additionalProperties", {})
            properties |= {part: values | told for part in each.metadata["spread"]}
        elif each.metadata.get("key"):
            properties[name] = {"type": "object", "additionalProperties": _of(get_args(its)[0], known)} | told
            required.append(name)
        elif each.name != "spec":
            properties[name] = _of(its, known) | told
            if each.default is MISSING and each.default_factory is MISSING:
                required.append(name)
    if rest:  # measures stand beside the class's own
        properties = {
            name: {"$ref": f"{HERE}Measures/properties/{name}"} for name in known["Measures"]["properties"]
        } | properties
    others = known["Measures"]["additionalProperties"] if rest else False
    found = {"type": "object", "description": inspect.getdoc(kind), "properties": properties, "required": required}
    return found | {"additionalProperties": others}


@cache
def _told(kind: type) -> dict[str, str]:
    """The docstring below each field."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = inspect.cleandoc(str(after.value.value))
    return found


def text() -> str:
    """What the file holds."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(), encoding="utf-8")
