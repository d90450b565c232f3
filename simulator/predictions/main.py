"""`flicker compare`, and the same from Python."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from simulator.errors import ResultError, SettingError
from simulator.measures.registry import ACCURACY, DIFFERENCES, MEASURES, QUALITIES
from simulator.predictions.compare import compare
from simulator.predictions.parts import Reading
from simulator.predictions.read import Names, Source, arrow, open_files, open_frame
from simulator.process import peak_memory
from simulator.report.words import interval, label
from simulator.result import Result, write_result
from simulator.terminal import open_console

CAUSES = {
    "swaps": "",
    "refresh_swaps": " at a refresh",
    "both_swaps": " at a refresh, another model",
}
"""Cause -> what stands behind a measure's words."""


@dataclass(frozen=True)
class CompareFlags(Names):
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
    temp: Path | None = None
    """Folder for temporary files (default: that of the system)."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise SettingError("k", self.k, "at least 1 item")

    @property
    def names(self) -> Names:
        """The columns."""
        return Names(**{f.name: getattr(self, f.name) for f in fields(Names)})


def run_compare(flags: CompareFlags, command: str) -> None:
    """Compare, show a table, and leave a folder where one is asked for. Raises FlickerError."""
    if not flags.predictions:
        raise SettingError("predictions", "none", "name two files, as in flicker compare A.parquet B.parquet")
    if flags.out is not None and (flags.out.is_file() or (flags.out.is_dir() and any(flags.out.iterdir()))):
        raise ResultError(f"out = {flags.out}: is not empty: name another folder, or delete it")
    arrow().set_memory_pool(arrow().system_memory_pool())  # the one that gives memory back
    console = open_console()
    sources = open_files(flags.predictions, flags.names)
    with _bar(console) as bar:
        result = compare_sources(sources, flags.names, flags.k, flags.temp, bar, console, command)
    console.print(*tables(result, console.width), sep="\n")
    for note in result.notes:
        console.print(note, style="dim", soft_wrap=True)
    if flags.out is not None:
        from simulator.report import write_report  # brings matplotlib

        flags.out.mkdir(parents=True, exist_ok=True)
        write_result(flags.out, result)
        console.print(f"All measures: {write_report(flags.out)}", soft_wrap=True)


def compare_frames(frames: Sequence[Any], *, k: int = 10, **names: Any) -> Result:
    """`flicker.compare`: what differs between the predictions in frames, dicts of arrays, or files.

    Each of `frames` is a pandas or polars frame, an Arrow table, a dict of arrays, or a path. `names`: of Names, such
    as query="request_id", log_odds=True or by=("country",). Raises FlickerError, one line for the user.
    """
    called = Names(**names)
    if isinstance(frames, (str, os.PathLike)) or not isinstance(frames, Sequence):
        raise SettingError("frames", type(frames).__name__, "give several, as in compare([monday, tuesday])")
    sources: list[Source] = []
    for number, frame in enumerate(frames):
        if isinstance(frame, (str, os.PathLike)):
            sources += [replace(s, argument=number) for s in open_files([Path(frame)], called)]
        else:
            sources.append(open_frame(frame, number, called))
    return compare_sources(sources, called, k)


def compare_sources(
    sources: Sequence[Source],
    names: Names,
    k: int = 10,
    temporary: Path | None = None,
    bar: Progress | None = None,
    console: Console | None = None,
    command: str = "",
) -> Result:
    """The Result with its costs; `bar` shows rows, `console` says what goes to disk."""
    started, values = time.monotonic(), dict[str, dict[int, str]]()
    bar = bar or Progress(disable=True)
    task = bar.add_task("reading", total=sum(source.rows for source in sources))

    def say(line: str) -> None:
        if console:
            console.print(line, style="yellow", soft_wrap=True)

    def reading(optional: tuple[str, ...]) -> Reading:
        return Reading(sources, names, optional, values, lambda rows: bar.advance(task, rows), say, temporary)

    result = compare(sources, names, k=k, reading=reading, restart=lambda: bar.reset(task))
    bar.update(task, total=bar.tasks[task].completed)
    config = {"predictions": [s.name for s in sources], "k": k, "columns": {f.name: getattr(names, f.name) for f in fields(Names)}}
    versions = {"pyarrow": arrow().__version__}
    seconds = round(time.monotonic() - started, 2)
    return replace(
        result, seconds=seconds, peak_memory_bytes=peak_memory(), config=config, versions=versions, command=command
    )


def _bar(console: Console) -> Progress:
    """Rows read, and the time left."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeRemainingColumn()
    return Progress(*columns, console=console)


def tables(result: Result, width: int) -> Iterator[Table]:
    """One row per measure, one column per arm: mean and 95 % interval; a second table per column of --by."""
    step = max(1, (width - 36) // 27)
    for start in range(0, len(result.arms), step):
        arms = result.arms[start : start + step]
        drawn = Table(box=SIMPLE_HEAD)
        drawn.add_column("")
        for arm in arms:
            drawn.add_column(label(arm.spec), justify="right", no_wrap=True)
        for name, words in _rows():
            if any(name in arm.measures for arm in arms):
                drawn.add_row(words, *(" ".join(interval(arm.measures.get(name))) for arm in arms))
        yield drawn
    for arm in result.arms:
        for column, slices in arm.by.items():
            drawn = Table(box=SIMPLE_HEAD)
            for heading in (column, "queries", *(MEASURES[name].words for name in ("top1", "slot", "pair"))):
                drawn.add_column(heading, justify="left" if heading == column else "right")
            for each in slices:
                shown = (" ".join(interval(each.measures.get(f"swaps.{name}"))) for name in ("top1", "slot", "pair"))
                drawn.add_row(each.value, f"{100 * each.share:.1f} %", *shown)
            drawn.title = label(arm.spec) if len(result.arms) > 1 else None
            yield drawn


def _rows() -> Iterator[tuple[str, str]]:
    """(measure, words) of everything that a comparison may hold, in the order of the table."""
    for cause, behind in CAUSES.items():
        yield from ((f"{cause}.{name}", each.words + behind) for name, each in MEASURES.items())
    for held in (DIFFERENCES, ACCURACY, QUALITIES):
        yield from ((name, each.words) for name, each in held.items())  # type: ignore[attr-defined]


