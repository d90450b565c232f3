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
from simulator.measures.words import CAUSES, WORDS, word
from simulator.result import SCHEMA, Measures, Result, hints, json_name

PLAIN = {float: "number", int: "number", str: "string", bool: "boolean"}
DEFINITIONS = "#/$defs/"


def schema() -> dict[str, Any]:
    """As docs/result.schema.json has it."""
    interval = {
        "description": "A mean with its 95 % interval; a plain number has none.",
        "type": ["object", "number", "null"],
        "properties": {name: {"type": ["number", "null"]} for name in ("mean", "low", "high")},
        "required": ["mean", "low", "high"],
        "additionalProperties": False,
    }
    definitions: dict[str, Any] = {"Interval": interval, "Measures": _measures()}
    _type_schema(Result, definitions)
    root: dict[str, Any] = definitions.pop("Result")
    root["properties"] = {"schema": {"const": SCHEMA}} | root["properties"]
    root["required"] = ["schema", *root["required"]]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Result"}
    return head | root | {"$defs": definitions}


def _measures() -> dict[str, Any]:
    """Those with words of their own, and any other: nested at the dots of their names."""
    names = [*DIFFERENCES, *ACCURACY, *QUALITIES, *WORDS]
    properties: dict[str, Any] = {name: _measure(name) for name in names}
    for cause in (*CAUSES, "swaps_these"):
        properties[cause] = {
            "type": "object",
            "properties": {name: _measure(f"{cause}.{name}") for name in MEASURES},
            "additionalProperties": {"$ref": f"{DEFINITIONS}Interval"},
        }
    any_measure = {"anyOf": [{"$ref": f"{DEFINITIONS}Interval"}, {"$ref": f"{DEFINITIONS}Measures"}]}
    return {"type": "object", "properties": properties, "additionalProperties": any_measure}


def _measure(name: str) -> dict[str, Any]:
    wording = word(name)
    return {"$ref": f"{DEFINITIONS}Interval", "title": wording.words, "description": wording.about}


def _type_schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a type; classes are put in `known`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind == Measures:
        return {"$ref": f"{DEFINITIONS}Measures"}
    if isinstance(kind, type) and is_dataclass(kind):
        if kind.__name__ not in definitions:
            definitions[kind.__name__] = _class_schema(kind, definitions)
        return {"$ref": f"{DEFINITIONS}{kind.__name__}"}
    if origin is UnionType:
        return {"anyOf": [_type_schema(arguments[0], definitions), {"type": "null"}]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": _type_schema(arguments[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type_schema(arguments[1], definitions)}
    return {} if kind is Any else {"type": PLAIN[kind]}


def _class_schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required, rest = [], False
    for field in fields(kind):
        name, kind_of_field = json_name(field), hints(kind)[field.name]
        description = {"description": _docstrings(kind).get(field.name, "")}
        if "spread" in field.metadata:
            rest |= not field.metadata["spread"]
            values = _type_schema(kind_of_field, definitions).get("additionalProperties", {})
            properties |= {part: values | description for part in field.metadata["spread"]}
        elif field.metadata.get("key"):
            values = _type_schema(get_args(kind_of_field)[0], definitions)
            properties[name] = {"type": "object", "additionalProperties": values} | description
            required.append(name)
        elif field.name != "spec":
            properties[name] = _type_schema(kind_of_field, definitions) | description
            if field.default is MISSING and field.default_factory is MISSING:
                required.append(name)
    measures = definitions["Measures"]
    if rest:  # measures stand beside the class's own
        named = {name: {"$ref": f"{DEFINITIONS}Measures/properties/{name}"} for name in measures["properties"]}
        properties = named | properties
    return {
        "type": "object",
        "description": inspect.getdoc(kind),
        "properties": properties,
        "required": required,
        "additionalProperties": measures["additionalProperties"] if rest else False,
    }


@cache
def _docstrings(kind: type) -> dict[str, str]:
    """The docstring below each field."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    docstrings = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            docstrings[field.target.id] = inspect.cleandoc(str(after.value.value))
    return docstrings


def text() -> str:
    """What the file holds."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(), encoding="utf-8")
