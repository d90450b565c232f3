"""What sweep.json says (see record.py, which writes it): read here, also by who knows nothing of grids or torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simulator.errors import ResultError
from simulator.result import load_json

MEND = "mend it, or name another folder with --out"


def read_record(record: Path) -> dict[str, Any]:
    """`command`, `cells` (name -> arguments) and `places` (name -> {axis: value}). Raises ResultError."""
    content = load_json(record, MEND, MEND)
    content.setdefault("places", {})  # older versions wrote none
    good = {
        "command": isinstance(content.get("command"), str),
        "cells": _each(content.get("cells"), _words),
        "places": _each(content["places"], lambda place: _each(place, lambda value: isinstance(value, str))),
    }
    for name in (name for name, is_good in good.items() if not is_good):
        raise ResultError(f"{record}: {name} = {json.dumps(content.get(name))[:60]}: is damaged: {MEND}")
    return content


def _each(value: Any, good: Callable[[Any], bool]) -> bool:
    """Whether it is a JSON object whose values are all good."""
    return isinstance(value, dict) and all(map(good, value.values()))


def _words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def place_of(name: str) -> dict[str, str]:
    """Where a cell of this name stands in its grid, in the letters that the name has left of it."""
    parts = (part.partition("=") for part in name.split(","))
    return {axis: value for axis, _, value in parts}
