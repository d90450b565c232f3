"""A mapping file to start from: which column means what, guessed by names and by what the first rows hold.

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
from simulator.world.mapping import SIDES, TAKEN, UNITS, Table
from simulator.world.source import Damage, Source

SAMPLE = 50_000
"""Rows that are looked at."""
NAMES = {
    "user": "user uid visitor customer client member account reviewer person device session msno",
    "item": "item product sku article video movie track song news listing content asin document doc book game ad iid",
    "time": "timestamp time ts datetime date at created when unix",
    "label": "label click clicked target purchased converted engaged",
    "slate": "slate page impression request query",
    "position": "position rank pos",
}
"""Words that name a role, the surest first."""
BESIDE = set("id ids key code no nbr num is hash uuid pseudo parent event ms utc".split())
"""Words that may stand beside them."""
OUTCOMES = re.compile(
    "event|action|behav|rating|score|star|review|dwell|play|watch|duration|conver|purchas|revenue|like|follow|cost|click"
)
"""What tells what the user did, or is known only afterwards."""
FORMS = ("%Y%m%d%H%M%S", "%Y%m%d%H", "%Y%m%d", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %I:%M:%S %p", "%d.%m.%Y %H:%M:%S")
EARLIEST, LATEST = datetime(1990, 1, 1).timestamp(), datetime(2100, 1, 1).timestamp()
FEW = 50
"""Numbers with no more values than this are taken as categories."""
SEPARATORS = "|;"
ZERO_ONE = pa.array([0.0, 1.0])


@dataclass(frozen=True)
class Column:
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
        """What stands between the values of a cell, if one holds several."""
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
        """Of its name: `visitorId_2` is visitor and id."""
        return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.name).lower()))

    @property
    def numbers_rows(self) -> bool:
        """Whether it counts one by one."""
        return (
            self.is_number and len(self.cells) > 1 and bool((np.diff(as_number(self.cells).to_numpy(False)) == 1).all())
        )

    def rank(self, role: str) -> int | None:
        """How surely its name says a role, 0 most; None where it does not."""
        known = NAMES[role].split()
        words = {word if word in known else word.removesuffix("id") for word in self.words} - BESIDE - {""}  # userid
        return min(map(known.index, words)) if words and words <= set(known) else None


def guessed(place: str) -> tuple[str, list[str]]:
    """The text of a mapping file for the CSV or Parquet at a place, without its key `log`, and why it says so.

    DataError where no column can be the user, the item or the time.
    """
    table = Table(place, _delimiter(place))
    columns = _sample(table)
    roles = _roles(columns, place)
    left = [column for column in columns if column not in roles.values()]
    features, out = _features(left, roles)
    lines = [f"{role} = {quoted(column.name)}" for role, column in roles.items()]
    if table.delimiter != ",":
        lines.append(f"delimiter = {quoted(table.delimiter)}")
    if (unit := roles["time"].unit) != UNITS[0] and not pa.types.is_temporal(roles["time"].cells.type):
        lines.append(f"time_unit = {quoted(unit or '')}")
    if "label" not in roles:
        lines.append(_label_hint(left))
    lines += ["", "[features]", *(f"{side} = [{', '.join(entries)}]" for side, entries in features.items())]
    notes = [f"{role} is {column.name}, {_why(role, column)}" for role, column in roles.items()]
    if "label" not in roles:
        notes.append("no column of 1 and 0 is called a label: every row is taken as an engagement")
    return "\n".join(lines) + "\n", notes + [f"{column.name} is left out: {why}" for column, why in out]


def _delimiter(place: str) -> str:
    """The mark that the first header has most of."""
    header = ",".join(Source(Table(place), Damage("skip")).columns)
    return max(",;\t|", key=header.count)


def _sample(table: Table) -> list[Column]:
    """The first rows, column by column."""
    source = Source(table, Damage("skip"))
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
    return [Column(name, _one_column(parts)[:SAMPLE]) for name, parts in zip(names, cells, strict=True)]


def _one_column(parts: Sequence[pa.Array]) -> pa.Array:
    """A column of several files, of which some may lack it or have it in a narrower type."""
    parts = [plain(part) for part in parts]
    if len({part.type for part in parts} - {pa.null()}) > 1:
        convert = as_text if any(is_text(part.type) or is_list(part.type) for part in parts) else as_number
        parts = [part if pa.types.is_null(part.type) else convert(part) for part in parts]
    kind = next((part.type for part in parts if not pa.types.is_null(part.type)), pa.null())
    return pa.concat_arrays([pa.nulls(len(part), kind) if pa.types.is_null(part.type) else part for part in parts])


def _readable(source: Source, name: str) -> bool:
    """Whether a column is of a type that a log may hold."""
    try:
        source.check_types([name])
    except DataError:
        return False
    return name != ""


def _roles(columns: Sequence[Column], place: str) -> dict[str, Column]:
    """Which column is what: user, item and time always, others where a name says so."""
    roles: dict[str, Column] = {}

    def take(role: str, fits: Callable[[Column], bool], required: bool = False) -> None:
        free = [column for column in columns if column not in roles.values() and fits(column)]
        named = [column for column in free if column.rank(role) is not None]
        if named:
            roles[role] = min(named, key=lambda column: cast(int, column.rank(role)))
        elif required:
            if not free:
                names = ", ".join(column.name for column in columns)
                hint = "write a mapping file that names it, see docs/data.md"
                raise DataError(f"{place}: no column looks like the {role}; it has {names}; {hint}")
            roles[role] = max(free, key=lambda column: column.values)

    take("time", lambda column: column.unit is not None, required=True)
    for role in ("user", "item"):
        take(role, lambda column: column.is_id, required=True)
    take("label", lambda column: column.is_binary)
    take("slate", lambda column: column.values > 1 and not column.is_list)
    take("position", lambda column: column.is_number and 1 < column.values <= 1_000)
    return {role: roles[role] for role in NAMES if role in roles}


def _features(
    left: Sequence[Column], roles: dict[str, Column]
) -> tuple[dict[Side, list[str]], list[tuple[Column, str]]]:
    """Entries for [features], and what is left out with the reason."""
    features: dict[Side, list[str]] = {side: [] for side in SIDES}
    out: list[tuple[Column, str]] = []
    for column in left:
        known = int((column.codes >= 0).sum())
        if OUTCOMES.search(column.name.lower()):
            out.append((column, "it may say what the user did, and give the label away"))
        elif column.unit is not None:
            out.append((column, "it is another time"))
        elif column.numbers_rows:
            out.append((column, "it numbers the rows"))
        elif column.name in TAKEN:
            out.append((column, "a feature must not have that name; rename the column"))
        elif column.values < 2:
            out.append((column, "it has one value" if column.values else "it is empty"))
        elif column.is_number and column.values > FEW and "id" not in column.words:
            features[_side(column, roles)].append(f'{{ column = {quoted(column.name)}, kind = "number" }}')
        elif column.separator:
            mark = quoted(column.separator)
            features[_side(column, roles)].append(f"{{ column = {quoted(column.name)}, separator = {mark} }}")
        elif column.values > 0.5 * known and known > FEW:
            out.append((column, "nearly every row has another value"))
        else:
            features[_side(column, roles)].append(quoted(column.name))
    return {side: entries for side, entries in features.items() if entries}, out


def _side(column: Column, roles: dict[str, Column]) -> Side:
    """Whom a column describes: the one side for each of which it has one value."""
    for side in SIDES[:2]:
        of = roles[side].codes
        known = (column.codes >= 0) & (of >= 0)
        pairs = np.unique(of[known] * (column.values + 1) + column.codes[known])
        if len(pairs) == len(np.unique(of[known])) < known.sum():
            return side
    return "context"


def _why(role: str, column: Column) -> str:
    """What a role was guessed by."""
    if column.rank(role) is not None:
        return "by its name"
    return "by its values" if role == "time" else f"because it has most values ({column.values:,} in the first rows)"


def _label_hint(left: Sequence[Column]) -> str:
    """A comment that shows how a label would be said."""
    for column in left:
        if "rating" in column.name.lower() and column.is_number:
            return f'# label = "{column.name} >= {np.median(as_number(column.cells).drop_null()):g}"'
        if re.search("event|action|behavior|type", column.name.lower()) and 1 < column.values <= 20:
            return f"# label = \"{column.name} == '{column.text.drop_null()[0]}'\""
    return '# label = "a column of 1 and 0, or such as: seconds > 30"'


def quoted(text: str) -> str:
    """A text as TOML writes it."""
    return json.dumps(text, ensure_ascii=False)
