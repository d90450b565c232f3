"""The mapping file: a few lines of TOML that say what the columns of a CSV or Parquet log mean.

    # clicks.toml
    log = "clicks.csv"            # relative to this file; CSV with a header line, or *.parquet
    user = "visitor"              # the columns
    item = "sku"
    time = "at"

    # all below is optional
    time_unit = "milliseconds"    # seconds (default), milliseconds, or iso8601 (no zone: UTC)
    label = "clicked"             # 1 or 0; without it every row is an engagement, negatives are sampled
    sort = true                   # rows are not in time order: load and sort them in memory
    delimiter = ";"               # of the CSV; default ","

    [features]                    # columns that describe ...
    user = ["country"]            # ... the user: the first also is the segment that candidates come from
    item = ["brand", { column = "tags", separator = "|" }]    # a separator: several values in a cell
    context = ["device"]          # ... the moment

What describes a user or an item is static: the first value seen counts. Any text or number is a value of its own; an
empty cell is unknown. In Parquet, lists are multi-valued (any separator will do) and timestamps need no time_unit.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from simulator.errors import DataError
from simulator.types import Side

UNITS = ("seconds", "milliseconds", "iso8601")
REQUIRED = ("log", "user", "item", "time")
KEYS = (*REQUIRED, "time_unit", "label", "sort", "delimiter", "features")
SIDES: tuple[Side, ...] = get_args(Side)


@dataclass(frozen=True)
class FeatureColumn:
    """A column that describes one side."""

    column: str
    side: Side
    separator: str | None
    """Between the values of a cell; None: one value."""


@dataclass(frozen=True)
class Mapping:
    """What the columns of a log mean; the fields are the keys of the file."""

    path: Path
    """The mapping file itself."""
    log: Path
    user: str
    item: str
    time: str
    time_unit: str = "seconds"
    label: str | None = None
    sort: bool = False
    delimiter: str = ","
    features: tuple[FeatureColumn, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are read."""
        named = (self.user, self.item, self.time, self.label, *(feature.column for feature in self.features))
        return tuple(column for column in named if column is not None)

    def check_columns(self, there: tuple[str, ...]) -> None:
        """DataError for a column that the log lacks or holds twice."""
        for column in self.columns:
            if there.count(column) != 1:
                fault = "no such column" if column not in there else "more than one such column"
                columns = ", ".join(there)
                raise _fault(self.path, column, f"column {column!r}: {fault} in {self.log}; it has {columns}")


def read_mapping(path: Path) -> Mapping:
    """Reads and checks a mapping file; DataError naming the line, the key and the way out."""
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: not a readable TOML file ({error}); see simulator/world/mapping.py") from error
    _known(path, settings, KEYS, "")
    for key in REQUIRED:
        if key not in settings:
            raise DataError(f"{path}: {key} is missing; a mapping needs {', '.join(REQUIRED)}")
    for key, value in settings.items():
        if not isinstance(value, {"sort": bool, "features": dict}.get(key, str)) or value == "":
            raise _fault(path, key, f"{key} = {value!r}: expected {_expected(key)}")
    if settings.get("time_unit", UNITS[0]) not in UNITS:
        raise _fault(path, "time_unit", f"time_unit = {settings['time_unit']!r}: one of {', '.join(UNITS)}")
    if len(settings.get("delimiter", ",")) != 1:
        raise _fault(path, "delimiter", f"delimiter = {settings['delimiter']!r}: a single character")
    settings["log"] = path.parent / settings["log"]
    settings["features"] = _features(path, settings.get("features", {}))
    mapping = Mapping(path=path, **settings)
    _distinct(mapping)
    return mapping


def _features(path: Path, sides: dict[str, Any]) -> tuple[FeatureColumn, ...]:
    """The section [features], in schema order."""
    _known(path, sides, SIDES, "features.")
    found = []
    for side in SIDES:
        entries = sides.get(side, [])
        for entry in entries if isinstance(entries, list) else [entries]:
            given = {"column": entry} if isinstance(entry, str) else entry
            if not isinstance(entries, list) or not isinstance(given, dict) or "column" not in given:
                raise _fault(
                    path, side, f'features.{side} = {entry!r}: expected ["column", {{column = "c", separator = "|"}}]'
                )
            _known(path, given, ("column", "separator"), f"features.{side}: ")
            separator = given.get("separator")
            for key, value in given.items():
                if not isinstance(value, str) or value == "":
                    raise _fault(path, key, f"features.{side}: {key} = {value!r}: expected {_expected(key)}")
            found.append(FeatureColumn(given["column"], side, cast("str | None", separator)))
    return tuple(found)


def _distinct(mapping: Mapping) -> None:
    """Every column has one meaning, and no feature is called as the two identities are."""
    for number, column in enumerate(mapping.columns):
        if column in mapping.columns[:number]:
            raise _fault(mapping.path, column, f"column {column!r} is named twice; give each column one meaning")
    for feature in mapping.features:
        if feature.column in ("user", "item"):
            message = f"feature {feature.column!r} has the name of the {feature.column} itself; rename the column"
            raise _fault(mapping.path, feature.column, message)


def _expected(key: str) -> str:
    if key in ("sort", "features"):
        return "true or false" if key == "sort" else "a section [features]"
    return "a file name" if key == "log" else "a text in quotes"


def _known(path: Path, given: dict[str, Any], keys: tuple[str, ...], prefix: str) -> None:
    """DataError for a key that means nothing."""
    for key in given:
        if key not in keys:
            raise _fault(path, key, f"{prefix}{key}: unknown key; the keys are {', '.join(keys)}")


def _fault(path: Path, word: str, message: str) -> DataError:
    """The error with the last line that holds the word: TOML readers keep no line numbers, features come last."""
    pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")
    lines = path.read_text(encoding="utf-8").splitlines()
    places = [number for number, line in enumerate(lines, start=1) if pattern.search(line.split("#")[0])]
    return DataError(f"{path}:{places[-1]}: {message}" if places else f"{path}: {message}")
