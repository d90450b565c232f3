"""`flicker compare`: anybody's predictions, as files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro
from rich.box import SIMPLE_HEAD
from rich.progress import TimeRemainingColumn
from rich.table import Table

from simulator.errors import SettingError
from simulator.files import require_empty, writing
from simulator.measures.registry import ACCURACY, DIFFERENCES, MEASURES, QUALITIES
from simulator.measures.words import interval, label, word
from simulator.predictions.compare import compare_sources
from simulator.predictions.read import ColumnNames, arrow, open_files
from simulator.report import write_report
from simulator.result import Result, write_result
from simulator.terminal import arm_table, open_console, progress_bar

ROWS = [f"{cause}.{name}" for cause in ("swaps", "refresh_swaps") for name in MEASURES]
ROWS += [*DIFFERENCES, *ACCURACY, *QUALITIES]
"""Of the table; the other causes are in result.json and on the page."""


@dataclass(frozen=True)
class CompareFlags(ColumnNames):
    """How much do the predictions of two models differ, or of as many as you like?

    flicker compare monday.parquet tuesday.parquet
        Two files with a row per query and item, columns q_id, doc_id and score: how many results changed?

    flicker compare a.csv b.csv c.csv --query request_id --item sku --score logit --log-odds --user customer
        Other names of columns. Scores that are log-odds also give the prediction difference. With a column of users,
        intervals say what other users would show.

    flicker compare old.run new.run --k 20
        Runs in the format of TREC. Item lists of LensKit (Parquet) need no flag either.

    flicker compare log.parquet --by country --out changed
        One file of several models (columns arm, fleet, duplicate, generation), results by country as well, and a folder
        with result.json and report.html.

    flicker compare runs/a runs/b
        Two runs of `flicker run --keep-predictions`, paired exactly: the same queries, users and events.

    flicker compare runs/native runs/torch --matched
        How much does the same model differ when another engine, machine, version or way of training made it?

    Files are Parquet, CSV with a header line, TREC runs, or folders of them: a folder is one model, unless columns say
    otherwise. They may be larger than memory; sorted by query they are read once, in any other order they go through
    temporary files. Without the columns arm, fleet, duplicate and generation the files are duplicates of one arm.
    """

    predictions: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Files, or folders of files."""
    out: Path | None = None
    """Folder for result.json and report.html (default: only the table)."""
    k: int = 10
    """Length of the slates that are compared: the first k items of each list; from 1."""
    matched: bool = False
    """Compare each model with the one of the same fleet and duplicate in the other arguments, and with no other of its
    own run; arms are matched in their order, whatever they are called."""
    temp: Path | None = None
    """Folder for temporary files (default: that of the system)."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise SettingError("k", self.k, "at least 1 item")

    @property
    def names(self) -> ColumnNames:
        """The columns."""
        return ColumnNames(**{f.name: getattr(self, f.name) for f in fields(ColumnNames)})


def run_compare(flags: CompareFlags, command: str) -> None:
    """Compare, show a table, and leave a folder where one is asked for. Raises FlickerError."""
    if not flags.predictions:
        raise SettingError("predictions", "none", "name two files, as in flicker compare A.parquet B.parquet")
    if flags.out is not None:
        require_empty(flags.out)
    arrow().set_memory_pool(arrow().system_memory_pool())  # the one that gives memory back
    console = open_console()
    sources = open_files(flags.predictions, flags.names)
    with progress_bar(console, "rows", TimeRemainingColumn()) as bar:
        task = bar.add_task("reading", total=sum(source.rows for source in sources))

        def progress(rows: int | None) -> None:
            bar.reset(task) if rows is None else bar.advance(task, rows)

        def log(line: str) -> None:
            console.print(line, style="yellow", soft_wrap=True)

        result = compare_sources(sources, flags.names, flags.k, flags.temp, progress, log, command, flags.matched)
        bar.update(task, total=bar.tasks[task].completed)
    console.print(*tables(result, console.width), sep="\n")
    for note in result.notes:
        console.print(note, style="dim", soft_wrap=True)
    if flags.out is not None:
        with writing("out", flags.out):
            flags.out.mkdir(parents=True, exist_ok=True)
        write_result(flags.out, result)
        console.print(f"All measures: {write_report(flags.out)}", soft_wrap=True)


def tables(result: Result, width: int) -> Iterator[Table]:
    """One row per measure, one column per arm: mean and 95 % interval; a second table per column of --by."""
    step = max(1, (width - 36) // 27)
    for start in range(0, len(result.arms), step):
        arms = result.arms[start : start + step]
        table = arm_table(arms)
        for name in ROWS:
            if any(name in arm.measures for arm in arms):
                table.add_row(word(name).words, *(" ".join(interval(arm.measures.get(name))) for arm in arms))
        yield table
    for arm in result.arms:
        for column, slices in arm.by.items():
            table = Table(box=SIMPLE_HEAD)
            for heading in (column, "queries", *(MEASURES[name].words for name in ("top1", "slot", "pair"))):
                table.add_column(heading, justify="left" if heading == column else "right")
            for slice_ in slices:
                values = (" ".join(interval(slice_.measures.get(f"swaps.{name}"))) for name in ("top1", "slot", "pair"))
                table.add_row(slice_.value, f"{100 * slice_.share:.1f} %", *values)
            table.title = label(arm.spec) if len(result.arms) > 1 else None
            yield table
