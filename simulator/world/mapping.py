"""The meaning of a log's columns: a few lines of TOML, see docs/data.md, or a family's known columns."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from simulator.errors import DataError
from simulator.types import Side
from simulator.world.label import Label

UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds", "iso8601")
SIDES: tuple[Side, ...] = get_args(Side)
Kind = Literal["category", "number"]
MAX_SHOWN = 60
"""Characters of a value that a message shows."""
Form = Literal["plain", "movielens", "recbole", "mind"]


@dataclass(frozen=True)
class FeatureColumn:
    """A column that describes one side."""

    column: str
    side: Side
    separator: str | None = None
    """Between the values of a cell; None: one value, or a list."""
    kind: Kind = "category"
    """`category`: each value stands for itself; `number`: values are put into buckets."""
    buckets: int = 16
    """How many, of numbers; 2 to 1,000."""
    vocabulary: int = 100_000
    """Distinct values, the others share the remaining rows by their hash; 1 to 10,000,000."""


@dataclass(frozen=True)
class Table:
    """Files of rows, and how those that are text are taken apart."""

    path: str
    """A file, a folder, a glob or a URL."""
    delimiter: str = ","
    """Between the cells of a line."""
    columns: tuple[str, ...] = ()
    """Their names, where text has no header line."""
    form: Form = "plain"
    """`plain`: Parquet, or CSV with quotes. `movielens`, `recbole`, `mind`: see families.py."""


@dataclass(frozen=True)
class EntityTable:
    """A table with a row per user or item."""

    table: Table
    id: str
    """Column of the ids."""
    title: str | None = None
    """Column of what people read."""
    features: tuple[FeatureColumn, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are read."""
        return tuple(filter(None, (self.id, self.title, *(feature.column for feature in self.features))))


@dataclass(frozen=True)
class Mapping:
    """What the columns of a log mean; the fields are the keys of the file."""

    path: Path
    """The mapping file itself, or the folder or file of a family."""
    log: Table
    user: str
    item: str
    time: str
    time_unit: str = "seconds"
    """One of UNITS, or a form for strptime."""
    label: Label | None = None
    """None: every row is an engagement."""
    weight: str | None = None
    slate: str | None = None
    position: str | None = None
    history: int = 0
    features: tuple[FeatureColumn, ...] = ()
    """Of the columns of the log; those of the tables are theirs."""
    users: EntityTable | None = None
    items: EntityTable | None = None

    @property
    def name(self) -> str:
        """The log's name in results."""
        return self.path.stem if self.path.is_file() else self.path.resolve().name

    @property
    def roles(self) -> list[str]:
        """Columns that are what they are called, such as the user or the position."""
        roles = (self.user, self.item, self.time, self.weight, self.slate, self.position)
        return [column for column in roles if column is not None]

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns of the log that are read, each once."""
        label = self.label.columns if self.label else ()
        return tuple(dict.fromkeys([*self.roles, *label, *(feature.column for feature in self.features)]))

    def check_columns(self, table: Table, wanted: Sequence[str], available: Sequence[str]) -> None:
        """DataError for a column that a table lacks or holds twice."""
        for column in wanted:
            if available.count(column) != 1:
                fault = "no such column" if column not in available else "more than one such column"
                message = f"column {column!r}: {fault} in {table.path}; it has {', '.join(available)}"
                raise _fault(self.path, column, message)


def excerpt(value: object) -> str:
    """A value as a message shows it: on one line and not too long."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


REQUIRED = ("log", "user", "item", "time")
OPTIONAL = ("time_unit", "label", "weight", "slate", "position", "history", "sort", "delimiter", "columns")
KEYS = (*REQUIRED, *OPTIONAL, "features", "items", "users")
TABLE_KEYS = ("file", "id", "title", "features", "delimiter", "columns")
FEATURE_KEYS = ("column", "kind", "buckets", "separator", "vocabulary")
RESERVED_NAMES = {"user": "the user itself", "item": "the item itself", "history": "the user's history"}
"""Fields that no feature may be called as."""
RANGES = {"history": (0, 64), "buckets": (2, 1_000), "vocabulary": (1, 10_000_000)}
SECTIONS = ("features", "items", "users")


def read_mapping_file(path: Path) -> Mapping:
    """Reads and checks a mapping file; DataError naming the line, the key and a hint."""
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise DataError(f"{path}: not a readable TOML file ({error}); see docs/data.md") from error
    _check_keys(path, settings, KEYS, "")
    settings.pop("sort", None)  # of version 1: logs are sorted, whatever their order
    for key in REQUIRED:
        if key not in settings:
            raise DataError(f"{path}: {key} is missing; a mapping needs {', '.join(REQUIRED)}")
    unit = settings.get("time_unit", UNITS[0])
    if unit not in UNITS and "%" not in unit:
        raise _fault(path, "time_unit", f"time_unit = {unit!r}: one of {', '.join(UNITS)}, or a form such as %Y%m%d%H")
    settings["log"] = _table(path, settings, settings["log"], {})
    for side in ("users", "items"):
        if side in settings:
            settings[side] = _entities(path, side, settings[side], settings["log"])
    if "label" in settings:
        try:
            settings["label"] = Label(settings["label"])
        except ValueError as error:
            raise _fault(path, "label", f"label = {excerpt(settings['label'])}: {error}") from None
    settings["features"] = _features(path, settings.get("features", {}))
    fields = {key: value for key, value in settings.items() if key not in ("delimiter", "columns")}
    mapping = Mapping(path=path, **fields)
    _require_distinct(mapping)
    return mapping


def _table(path: Path, section: dict[str, Any], place: str, default: dict[str, str]) -> Table:
    """The table at a place beside the mapping file."""
    default_delimiter = "\t" if re.search(r"\.(tsv|tab)(\.|$)", place) else ","
    delimiter = section.get("delimiter", default.get("delimiter", default_delimiter))
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
        raise _fault(path, "delimiter", f"delimiter = {delimiter!r}: a single character of ASCII, no quote")
    columns = tuple(section.get("columns", ()))
    if not all(isinstance(column, str) for column in columns) or len(set(columns)) < len(columns):
        raise _fault(path, "columns", f"columns = {excerpt(section['columns'])}: a list of distinct texts")
    return Table(place if "://" in place else str(path.parent / place), delimiter, columns)


def _entities(path: Path, side: str, section: dict[str, Any], log: Table) -> EntityTable:
    """The section [users] or [items]."""
    _check_keys(path, section, TABLE_KEYS, f"{side}.", {"features": list})
    for key in ("file", "id"):
        if key not in section:
            raise _fault(path, side, f"[{side}]: {key} is missing; name the file and the column of its ids")
    default = {} if log.delimiter in ",\t" else {"delimiter": log.delimiter}
    features = _features(path, {side[:-1]: section.get("features", [])})
    return EntityTable(_table(path, section, section["file"], default), section["id"], section.get("title"), features)


def _features(path: Path, sides: dict[str, Any]) -> tuple[FeatureColumn, ...]:
    """The section [features], in schema order."""
    _check_keys(path, sides, SIDES, "features.", dict.fromkeys(SIDES, list))
    features = []
    for side in SIDES:
        for entry in sides.get(side, []):
            settings = {"column": entry} if isinstance(entry, str) else entry
            if not isinstance(settings, dict) or "column" not in settings:
                expected = 'expected "column" or {column = "c", kind = "number"}'
                raise _fault(path, side, f"features of the {side}: {excerpt(entry)}: {expected}")
            _check_keys(path, settings, FEATURE_KEYS, f"features of the {side}: ")
            if settings.get("kind", "category") not in get_args(Kind):
                raise _fault(path, "kind", f"kind = {settings['kind']!r}: one of {', '.join(get_args(Kind))}")
            wrong, kind = ("separator", "category") if settings.get("kind") == "number" else ("buckets", "number")
            if wrong in settings:
                raise _fault(path, wrong, f'{wrong} = {settings[wrong]!r}: only with kind = "{kind}"')
            features.append(FeatureColumn(**settings, side=side))
    return tuple(features)


def _require_distinct(mapping: Mapping) -> None:
    """Every column has one meaning, and no two features have the same name, or that of an identity."""
    tables = [table for table in (mapping.users, mapping.items) if table]
    features = [feature.column for feature in mapping.features]
    label = mapping.label.columns if mapping.label else ()
    for column in features:
        if column in label:
            message = f"column {column!r} decides the label, and would give it away as a feature; leave one out"
            raise _fault(mapping.path, column, message)
    plain_label = label if mapping.label and not mapping.label.is_expression else ()
    _require_once(mapping.path, [*mapping.roles, *features, *plain_label])
    for table in tables:
        _require_once(mapping.path, table.columns)
    names = dict(RESERVED_NAMES)
    for column in [*features, *filter(None, [mapping.position]), *(f.column for t in tables for f in t.features)]:
        if column in names:
            raise _fault(mapping.path, column, f"feature {column!r} has the name of {names[column]}; rename the column")
        names[column] = "another feature"


def _require_once(path: Path, columns: Sequence[str]) -> None:
    for number, column in enumerate(columns):
        if column in columns[:number]:
            raise _fault(path, column, f"column {column!r} is named twice; give each column one meaning")


def _check_keys(
    path: Path, section: Any, keys: Sequence[str], prefix: str, types: dict[str, type] | None = None
) -> None:
    """DataError for a key that means nothing, or a value of the wrong type or out of range."""
    types_of: dict[str, Any] = {"sort": bool, "columns": list, **dict.fromkeys(RANGES, int)}
    types_of |= dict.fromkeys(SECTIONS, dict) | (types or {})
    for key, value in section.items():
        if key not in keys:
            raise _fault(path, key, f"{prefix}{key}: unknown key; the keys are {', '.join(keys)}")
        low, high = RANGES.get(key, (0, 0))
        kind = types_of.get(key, str)
        if type(value) is not kind or value == "" or (kind is int and not low <= value <= high):
            expected = {str: "a text in quotes", bool: "true or false", dict: f"a section [{key}]"}.get(kind)
            expected = expected or ('a list such as ["a", "b"]' if kind is list else f"a whole number, {low} to {high}")
            raise _fault(path, key, f"{prefix}{key} = {excerpt(value)}: expected {expected}")


def _fault(path: Path, word: str, message: str) -> DataError:
    """The error with the last line that holds the word: TOML readers keep no line numbers, features come last."""
    if path.suffix != ".toml":
        return DataError(f"{path}: {message}")
    pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")
    lines = path.read_text(encoding="utf-8").splitlines()
    places = [number for number, line in enumerate(lines, start=1) if pattern.search(line.split("#")[0])]
    return DataError(f"{path}:{places[-1]}: {message}" if places else f"{path}: {message}")
