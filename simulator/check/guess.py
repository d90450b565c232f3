"""A mapping file to start from: the columns' meanings, guessed by names and by the first rows' values.

Names decide where they say it (`user_id`, `sku`, `timestamp`); then values: times lie between 1990 and 2100, users and
items are the columns with most values. Of the others, what is one for each user describes users, what is one for each
item describes items, and the rest describes the moment. What may be known only afterwards (a rating, seconds watched)
is left out: as a feature it would give the label away.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import cast

import numpy as np

from simulator.errors import DataError
from simulator.types import Ints, Side
from simulator.world.columns import as_number, as_seconds, as_text, is_list, is_text, joined, pa, pc, plain
from simulator.world.mapping import RESERVED_NAMES, SIDES, UNITS, Table
from simulator.world.source import DamagedRows, Source

SAMPLE = 50_000
"""Rows that are read."""
NAMES = {
    "user": "user uid visitor customer client member account reviewer person device session msno",
    "item": "item product sku article video movie track song news listing content asin document doc book game ad iid",
    "time": "timestamp time ts datetime date at created when unix",
    "label": "label click clicked target purchased converted engaged",
    "slate": "slate page impression request query",
    "position": "position rank pos",
}
"""Words that name a role, the surest first."""
FILLER_WORDS = set("id ids key code no nbr num is hash uuid pseudo parent event ms utc".split())
"""Words that may stand beside them in a name."""
OUTCOME_WORDS = re.compile(
    "event|action|behav|rating|score|star|review|dwell|play|watch|duration|conver|purchas|revenue|like|follow|cost|click"
)
"""Words in names of columns that hold what the user did, or what is known only afterwards."""
FORMS = ("%Y%m%d%H%M%S", "%Y%m%d%H", "%Y%m%d", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %I:%M:%S %p", "%d.%m.%Y %H:%M:%S")
EARLIEST, LATEST = datetime(1990, 1, 1).timestamp(), datetime(2100, 1, 1).timestamp()
MAX_CATEGORIES = 50
"""Numbers with no more values than this are taken as categories."""
SEPARATORS = "|;"
ZERO_ONE = pa.array([0.0, 1.0])


@dataclass(frozen=True)
class SampleColumn:
    """One column of the sample [n]."""

    name: str
    cells: pa.Array

    @cached_property
    def text(self) -> pa.Array:
        """[n] as text, null where it is empty; a list is one text."""
        return as_text(joined(self.cells, "|") if self.is_list else self.cells)

    @cached_property
    def codes(self) -> Ints:
        """[n] a number for each distinct cell, -1 is empty."""
        return cast(Ints, pc.fill_null(self.text.dictionary_encode().indices, -1).to_numpy().astype(np.int64))

    @cached_property
    def values(self) -> int:
        """Distinct cells."""
        return int(self.codes.max(initial=-1)) + 1

    @property
    def is_list(self) -> bool:
        """Whether a cell is a list."""
        return is_list(self.cells.type)

    @cached_property
    def is_number(self) -> bool:
        """Whether all that is not empty is a number."""
        return self.values > 0 and not self.is_list and as_number(self.cells).null_count <= int(self.text.null_count)

    @property
    def is_binary(self) -> bool:
        """Whether it holds 0 and 1, but for a damaged cell or two."""
        return self.values > 0 and not self.is_list and self._share(pc.is_in(as_number(self.cells), ZERO_ONE)) > 0.99

    @property
    def is_id(self) -> bool:
        """Whether it could name users or items: texts or whole numbers, more than a label's."""
        if self.is_list or self.values < 2 or self.is_binary:
            return False
        return not self.is_number or bool(pc.all(pc.equal(pc.trunc(numbers := as_number(self.cells)), numbers)).as_py())

    @property
    def separator(self) -> str | None:
        """The separator of a cell's values, if one holds several."""
        marks = "" if self.is_number or self.is_list else SEPARATORS
        return next((mark for mark in marks if self._share(pc.match_substring(self.text, mark)) > 0.2), None)

    @cached_property
    def unit(self) -> str | None:
        """Its unit if it is a time, else None."""
        return next((unit for unit in (*FORMS, *UNITS) if not self.is_list and self._is_time(unit)), None)

    def _is_time(self, unit: str) -> bool:
        seconds = as_seconds(self.cells, unit)
        return self._share(pc.and_(pc.greater(seconds, EARLIEST), pc.less(seconds, LATEST))) > 0.95

    def _share(self, true: pa.Array) -> float:
        """Of the cells that are not empty, how many are true; 0 where all are empty."""
        count: int = pc.sum(true).as_py() or 0
        return count / max(1, len(self.text) - int(self.text.null_count))

    @property
    def words(self) -> set[str]:
        """Words of its name: `visitorId_2` is visitor and id."""
        return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.name).lower()))

    @property
    def numbers_rows(self) -> bool:
        """Whether its values count up one by one."""
        return (
            self.is_number and len(self.cells) > 1 and bool((np.diff(as_number(self.cells).to_numpy(False)) == 1).all())
        )

    def rank(self, role: str) -> int | None:
        """Rank of a role by the column's name, 0 is the surest; None where the name does not fit."""
        role_words = NAMES[role].split()
        words = (
            {word if word in role_words else word.removesuffix("id") for word in self.words} - FILLER_WORDS - {""}
        )  # userid
        return min(map(role_words.index, words)) if words and words <= set(role_words) else None


def guessed(place: str) -> tuple[str, list[str]]:
    """The text of a mapping file for the CSV or Parquet at a place, without its key `log`, and the reasons.

    DataError where no column can be the user, the item or the time.
    """
    table = Table(place, _delimiter(place))
    columns = _sample(table)
    roles = _roles(columns, place)
    unassigned = [column for column in columns if column not in roles.values()]
    features, excluded = _features(unassigned, roles)
    lines = [f"{role} = {quoted(column.name)}" for role, column in roles.items()]
    if table.delimiter != ",":
        lines.append(f"delimiter = {quoted(table.delimiter)}")
    if (unit := roles["time"].unit) != UNITS[0] and not pa.types.is_temporal(roles["time"].cells.type):
        lines.append(f"time_unit = {quoted(unit or '')}")
    if "label" not in roles:
        lines.append(_label_hint(unassigned))
    lines += ["", "[features]", *(f"{side} = [{', '.join(entries)}]" for side, entries in features.items())]
    notes = [f"{role} is {column.name}, {_reason(role, column)}" for role, column in roles.items()]
    if "label" not in roles:
        notes.append("no column of 1 and 0 is called a label: every row is taken as an engagement")
    return "\n".join(lines) + "\n", notes + [f"{column.name} is left out: {reason}" for column, reason in excluded]


def _delimiter(place: str) -> str:
    """The most frequent delimiter of the first header."""
    header = ",".join(Source(Table(place), DamagedRows("skip")).columns)
    return max(",;\t|", key=header.count)


def _sample(table: Table) -> list[SampleColumn]:
    """The first rows, column by column."""
    source = Source(table, DamagedRows("skip"))
    names = [name for name in source.columns if source.columns.count(name) == 1 and _readable(source, name)]
    batches, rows = [], 0
    for _, batch in source.batches(names):
        batches.append(batch)
        if (rows := rows + len(batch)) >= SAMPLE:
            break
    if any(re.fullmatch(r"[\d.]+", name) for name in names):
        hint = "write a mapping file that names them with `columns`, see docs/data.md"
        raise DataError(f"{table.path}: its first line holds numbers, not names of columns; {hint}")
    if not rows:
        raise DataError(f"{table.path}: no rows in it; give a log with at least one row")
    cells = ([batch.column(name) for batch in batches] for name in names)
    return [SampleColumn(name, _one_column(parts)[:SAMPLE]) for name, parts in zip(names, cells, strict=True)]


def _one_column(parts: Sequence[pa.Array]) -> pa.Array:
    """A column of several files, of which some may lack it or have it in a narrower type."""
    parts = [plain(part) for part in parts]
    if len({part.type for part in parts} - {pa.null()}) > 1:
        convert = as_text if any(is_text(part.type) or is_list(part.type) for part in parts) else as_number
        parts = [part if pa.types.is_null(part.type) else convert(part) for part in parts]
    type_ = next((part.type for part in parts if not pa.types.is_null(part.type)), pa.null())
    return pa.concat_arrays([pa.nulls(len(part), type_) if pa.types.is_null(part.type) else part for part in parts])


def _readable(source: Source, name: str) -> bool:
    """Whether a column is of a type that a log may hold."""
    try:
        source.check_types([name])
    except DataError:
        return False
    return name != ""


def _roles(columns: Sequence[SampleColumn], place: str) -> dict[str, SampleColumn]:
    """Columns by role: user, item and time always, others by their names."""
    roles: dict[str, SampleColumn] = {}

    def take(role: str, fits: Callable[[SampleColumn], bool], required: bool = False) -> None:
        candidates = [column for column in columns if column not in roles.values() and fits(column)]
        by_name = [column for column in candidates if column.rank(role) is not None]
        if by_name:
            roles[role] = min(by_name, key=lambda column: cast(int, column.rank(role)))
        elif required:
            if not candidates:
                names = ", ".join(column.name for column in columns)
                hint = "write a mapping file that names it, see docs/data.md"
                raise DataError(f"{place}: no column looks like the {role}; it has {names}; {hint}")
            roles[role] = max(candidates, key=lambda column: column.values)

    take("time", lambda column: column.unit is not None, required=True)
    for role in ("user", "item"):
        take(role, lambda column: column.is_id, required=True)
    take("label", lambda column: column.is_binary)
    take("slate", lambda column: column.values > 1 and not column.is_list)
    take("position", lambda column: column.is_number and 1 < column.values <= 1_000)
    return {role: roles[role] for role in NAMES if role in roles}


def _features(
    unassigned: Sequence[SampleColumn], roles: dict[str, SampleColumn]
) -> tuple[dict[Side, list[str]], list[tuple[SampleColumn, str]]]:
    """Entries for [features], and what is left out with the reason."""
    features: dict[Side, list[str]] = {side: [] for side in SIDES}
    excluded: list[tuple[SampleColumn, str]] = []
    for column in unassigned:
        filled = int((column.codes >= 0).sum())
        if OUTCOME_WORDS.search(column.name.lower()):
            excluded.append((column, "it may say what the user did, and give the label away"))
        elif column.unit is not None:
            excluded.append((column, "it is another time"))
        elif column.numbers_rows:
            excluded.append((column, "it numbers the rows"))
        elif column.name in RESERVED_NAMES:
            excluded.append((column, "a feature must not have that name; rename the column"))
        elif column.values < 2:
            excluded.append((column, "it has one value" if column.values else "it is empty"))
        elif column.is_number and column.values > MAX_CATEGORIES and "id" not in column.words:
            features[_side(column, roles)].append(f'{{ column = {quoted(column.name)}, kind = "number" }}')
        elif column.separator:
            mark = quoted(column.separator)
            features[_side(column, roles)].append(f"{{ column = {quoted(column.name)}, separator = {mark} }}")
        elif column.values > 0.5 * filled and filled > MAX_CATEGORIES:
            excluded.append((column, "nearly every row has another value"))
        else:
            features[_side(column, roles)].append(quoted(column.name))
    return {side: entries for side, entries in features.items() if entries}, excluded


def _side(column: SampleColumn, roles: dict[str, SampleColumn]) -> Side:
    """The side that a column describes: the one for each of which it has one value."""
    for side in SIDES[:2]:
        owner = roles[side].codes
        both_known = (column.codes >= 0) & (owner >= 0)
        pairs = np.unique(owner[both_known] * (column.values + 1) + column.codes[both_known])
        if len(pairs) == len(np.unique(owner[both_known])) < both_known.sum():
            return side
    return "context"


def _reason(role: str, column: SampleColumn) -> str:
    """The reason for a guessed role."""
    if column.rank(role) is not None:
        return "by its name"
    return "by its values" if role == "time" else f"because it has most values ({column.values:,} in the first rows)"


def _label_hint(unassigned: Sequence[SampleColumn]) -> str:
    """A comment that shows how to write a label."""
    for column in unassigned:
        if "rating" in column.name.lower() and column.is_number:
            return f'# label = "{column.name} >= {np.median(as_number(column.cells).drop_null()):g}"'
        if re.search("event|action|behavior|type", column.name.lower()) and 1 < column.values <= 20:
            return f"# label = \"{column.name} == '{column.text.drop_null()[0]}'\""
    return '# label = "a column of 1 and 0, or such as: seconds > 30"'


def quoted(text: str) -> str:
    """A text as TOML writes it."""
    return json.dumps(text, ensure_ascii=False)
