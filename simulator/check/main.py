"""`flicker check LOG`: reads all of a log, and reports on it: its content in numbers, and what looks wrong in it.

Shapes: n rows, U users, I items.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import time as now
from typing import Annotated, Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from simulator.check.guess import guessed, quoted
from simulator.config import ReplayConfig
from simulator.errors import SettingError
from simulator.files import writing
from simulator.terminal import open_console
from simulator.types import Doubles
from simulator.world.clicklog import ClickLog, Entities, Feature
from simulator.world.columns import as_number, as_text, pa, pc
from simulator.world.families import DERIVED, is_known, read_mapping
from simulator.world.mapping import FeatureColumn, Mapping
from simulator.world.open import open_log
from simulator.world.source import DamagedRows, Source

DAY = 86_400.0
MIN_ROWS = 1_000
"""Rows below which differences are lost in chance."""
MAX_EXAMPLES, MAX_LETTERS = 3, 24
"""Values of a field that are shown, and characters of each."""


@dataclass(frozen=True)
class CheckFlags:
    """What is in a click log, as Flicker reads it? Reads all of it, changes nothing, and keeps it ready for runs.

    flicker check clicks.toml
        A mapping file that says what the columns of CSV or Parquet mean (docs/data.md): rows, users, items, times,
        labels, cold starts, every field with its values, and what looks wrong.

    flicker check ml-1m
        A folder of a family that needs no mapping file: MovieLens (ratings.dat or ratings.csv), RecBole (*.inter),
        MIND (behaviors.tsv).

    flicker check clicks.csv --write clicks.toml
        A log without a mapping file (CSV, Parquet, a folder or glob of parts, a URL): guesses what the columns mean by
        their names and values, says why, shows what that gives, and writes a mapping file to correct and to start from.

    Ends with exit code 0, or with one line and exit code 2 where the log cannot be read.
    """

    log: Annotated[str, tyro.conf.Positional] = ""
    """A mapping file, a folder of a family, or the files of a log."""
    write: Path | None = None
    """Where to write the mapping file that was guessed (*.toml; a file that is there stays)."""
    bad_rows: Literal["stop", "skip"] = "stop"
    """`stop` at the first damaged row with its place, or `skip` them all and count them."""


def run_check(flags: CheckFlags) -> None:
    """Print what is in a log. Raises FlickerError."""
    if not flags.log:
        raise SettingError("log", "none", "name one, as in flicker check clicks.toml")
    console = open_console()
    if is_known(Path(flags.log)):
        if flags.write is not None:
            raise SettingError("--write", flags.write, f"{flags.log} needs no mapping file, or is one")
        _show(console, Path(flags.log), flags.bad_rows)
        return
    _guess(console, flags)


def _guess(console: Console, flags: CheckFlags) -> None:
    """Show and perhaps write a mapping file for a log that has none, and what is in the log by it."""
    if flags.write is not None and (flags.write.exists() or flags.write.suffix != ".toml"):
        raise SettingError("--write", flags.write, "name a file *.toml that is not there yet")
    body, notes = guessed(flags.log)
    place = flags.log if "://" in flags.log else str(Path(flags.log).resolve())
    console.print(f"{flags.log} has no mapping file. Guessed from its first rows:\n", markup=False, soft_wrap=True)
    console.print(f"{_log_line(flags.log)}{body}", markup=False, soft_wrap=True, style="bold")
    for note in notes:
        console.print(f"  {note}", style="dim", markup=False, soft_wrap=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "guess.toml"
        path.write_text(_log_line(place) + body, encoding="utf-8")
        _show(console, path, flags.bad_rows)
    if flags.write is None:
        console.print("\nKeep the mapping file with --write FILE.toml, correct it, then: flicker run --data FILE.toml")
        return
    with writing("--write", flags.write):
        relative = place if "://" in place else os.path.relpath(place, flags.write.resolve().parent)
        flags.write.write_text(_log_line(relative) + body, encoding="utf-8")
    console.print(f"\nWritten: {flags.write}. Correct it, then: flicker run --data {flags.write}", markup=False)


def _log_line(log: str) -> str:
    return f"# guessed by flicker check; docs/data.md tells of every key\nlog = {quoted(log)}\n"


def _show(console: Console, path: Path, bad_rows: Literal["stop", "skip"]) -> None:
    """All that is in the log of a mapping."""
    mapping = read_mapping(path)
    log = open_log(ReplayConfig(path, bad_rows=bad_rows))
    source = Source(mapping.log, DamagedRows(bad_rows))
    files, size = len(source.parts), sum(part.size for part in source.parts)
    head = f"{files:,} file{'s' * (files > 1)}, {size / 1e6:,.1f} MB"
    console.print(f"\n[bold]{escape(mapping.log.path)}[/bold]  {head}", soft_wrap=True)
    facts = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    for name, value in _facts(log, mapping, source):
        facts.add_row(name, escape(value))
    console.print(facts)
    if log.context_features or log.users.features or log.items.features:
        console.print(_field_table(log, mapping))
    for note in log.notes:
        console.print(f"  {note}", style="dim", markup=False, soft_wrap=True)
    used = {*mapping.columns, *DERIVED.get(mapping.log.form, {}).values()}
    if unused := [column for column in source.columns if column not in used]:
        console.print(f"  not used: {', '.join(unused)}", style="dim", markup=False, soft_wrap=True)
    warnings = list(doubts(log))
    for doubt in warnings:
        console.print(f"! {doubt}", style="yellow", markup=False, soft_wrap=True)
    if not warnings:
        console.print("Nothing looks wrong.", style="green")


def _facts(log: ClickLog, mapping: Mapping, source: Source) -> Iterator[tuple[str, str]]:
    """Facts of the whole log."""
    rows = len(log)
    left_out = f"   {log.skipped_rows:,} damaged ones left out" if log.skipped_rows else ""
    yield "rows", f"{rows:,}{left_out}"
    users, items = sides(log)
    yield "users", f"{users.in_log:,}   {rows / users.in_log:,.1f} rows each"
    more = f", {len(log.items) - items.in_log:,} more in the item table" if len(log.items) > items.in_log else ""
    yield "items", f"{items.in_log:,}   {rows / items.in_log:,.1f} rows each{more}"
    first, last = (datetime.fromtimestamp(float(log.time[row]), UTC) for row in (0, -1))
    zone = "; times without zone are taken as UTC" if _lacks_zone(mapping, source) else ""
    days = (last - first).total_seconds() / DAY
    yield "time", f"{first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S} UTC   {days:,.1f} days{zone}"
    if mapping.label:
        yield "label", f"{100 * float(log.label.mean()):.2f} % of rows   {mapping.label.text}"
    else:
        yield "label", "none: every row is an engagement, negatives are sampled"
    if log.slate is not None:
        pages = int(log.slate.max()) + 1
        yield "pages", f"{pages:,}   {rows / pages:,.1f} rows each"
    if log.weight is not None:
        low, high, mean = (float(statistic(log.weight)) for statistic in (np.min, np.max, np.mean))
        yield "weight", f"{low:g} to {high:g}, mean {mean:.3g}"
    cold = " and ".join(f"{100 * side.new:.1f} % have a new {side.word}" for side in (users, items))
    yield "cold starts", f"of the rows in the last tenth {cold}"


def _lacks_zone(mapping: Mapping, source: Source) -> bool:
    """Whether times are written as dates, and the first ones name no zone."""
    cells = next(batch.column(0) for _, batch in source.batches([mapping.time]))
    if pa.types.is_temporal(cells.type):
        return getattr(cells.type, "tz", None) is None
    text = as_text(cells)
    zoned = pc.match_substring_regex(text, r"\d(Z|[+-]\d\d:?\d\d)$")
    is_date = "%" in mapping.time_unit or as_number(cells).null_count > text.null_count
    return is_date and not pc.all(zoned).as_py()


def _field_table(log: ClickLog, mapping: Mapping) -> Table:
    """All features: their side, kind and values."""
    tables = (table for table in (mapping.users, mapping.items) if table)
    columns = [*mapping.features, *(feature for table in tables for feature in table.features)]
    by_column = {feature.column: feature for feature in columns}
    output = Table(box=SIMPLE_HEAD)
    for heading in ("field", "of the", "kind", "values", "empty", "such as"):
        output.add_column(heading, justify="right" if heading in ("values", "empty") else "left")
    for field in fields(log):
        name, names = field.feature.name, field.feature.names
        kind = _kind(by_column.get(name), field)
        numbers = (0, len(names) - 1) if kind.startswith("number") else range(MAX_EXAMPLES)
        examples = ", ".join(_short(names[number]) for number in dict.fromkeys(numbers) if number < len(names))
        empty = f"{100 * field.empty:.1f} %" if field.empty else ""
        output.add_row(*map(escape, (name, field.side, kind, f"{len(names):,}", empty, examples)))
    return output


def _kind(feature: FeatureColumn | None, field: FieldFacts) -> str:
    slots_text = f", up to {field.feature.slots} each" if field.feature.slots > 1 else ""
    if feature is None:
        return "position on the page"
    return f"{feature.kind}{', in buckets' if feature.kind == 'number' else ''}{slots_text}"


def _short(text: str) -> str:
    text = "".join(sign if sign.isprintable() else " " for sign in text[: MAX_LETTERS + 1])
    return text if len(text) <= MAX_LETTERS else f"{text[:MAX_LETTERS]}..."


@dataclass(frozen=True)
class LogSide:
    """Users or items in the log."""

    word: str
    number: NDArray[np.int32]
    """[n] of each row; numbered by first appearance."""
    entities: Entities

    @property
    def in_log(self) -> int:
        """Number in the log: a table may hold more."""
        return int(self.number.max()) + 1

    @property
    def new(self) -> float:
        """Share of the rows of the last tenth whose user or item is in none before."""
        tail = len(self.number) - max(1, len(self.number) // 10)
        return float((self.number[tail:] > self.number[:tail].max(initial=-1)).mean())


@dataclass(frozen=True)
class FieldFacts:
    """One feature of the log."""

    side: str
    feature: Feature
    empty: float
    """Share of the users, items or rows that have no value."""


def sides(log: ClickLog) -> tuple[LogSide, LogSide]:
    """Users and items."""
    return LogSide("user", log.user, log.users), LogSide("item", log.item, log.items)


def fields(log: ClickLog) -> Iterator[FieldFacts]:
    """All features in schema order."""
    for side in sides(log):
        for feature in side.entities.features:
            assert feature.values is not None
            yield FieldFacts(side.word, feature, float((feature.values[:, 0] < 0).mean()))
    slot = 0
    for feature in log.context_features:
        yield FieldFacts("moment", feature, float((log.context[:, slot] < 0).mean()))
        slot += feature.slots


def doubts(log: ClickLog) -> Iterator[str]:
    """What looks wrong, a line each with a hint."""
    if len(log) < MIN_ROWS:
        yield f"no more than {len(log):,} rows: differences between models will be lost in chance"
    yield from _time_doubts(log.time)
    rate = float(log.label.mean())
    if log.labelled and rate in (0, 1):
        yield f"every label is {rate:.0f}: nothing can be learned; correct `label`, or leave it out"
    if log.weight is not None and not log.weight.any():
        yield "every weight is 0: nothing can be learned; correct `weight`, or leave it out"
    if log.slate is not None and (pages := int(log.slate.max()) + 1) in (1, len(log)):
        yield f"{'all rows are one page' if pages == 1 else 'every row is another page'}: is `slate` the right column?"
    for side in sides(log):
        if side.in_log == 1:
            yield f"one {side.word} in all rows: is `{side.word}` the right column?"
        elif side.in_log > 0.95 * len(log):
            yield f"nearly every row has another {side.word}: is `{side.word}` a number of the row?"
        elif side.new > 0.9:
            yield f"{100 * side.new:.0f} % of the last tenth are new {side.word}s: is `{side.word}` the session's?"
    for field in fields(log):
        name, values = field.feature.name, len(field.feature.names)
        if field.empty == 1:
            yield f"{name} is empty everywhere; leave it out, or correct its column"
        elif values == 1:
            yield f"{name} has one value, {field.feature.names[0]}: it tells nothing; leave it out"
        elif field.side != "moment" and values > 0.9 * len(log.users if field.side == "user" else log.items) > MIN_ROWS:
            yield f"{name} has another value for nearly every {field.side}: it is a second id; leave it out"


def _time_doubts(time: Doubles) -> Iterator[str]:
    first, last = float(time[0]), float(time[-1])
    if last > now() + DAY:
        yield "the last rows are in the future: is `time_unit` right?"
    if last < 20 * 365 * DAY:
        unit = "nearly all of it in one day of 1970" if last - first < DAY else "before 1990"
        yield f"times are {unit}: is `time_unit` larger than the log's, or do times count from the log's start?"
    if first == last:
        yield "all rows have the same time: nothing can be learned before it is asked for; is `time` the right column?"
