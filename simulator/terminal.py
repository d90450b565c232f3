"""Output of commands: a progress bar while they work, a table of arms when they are done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from simulator.decide.evidence import ratio_to
from simulator.measures.registry import MEASURES
from simulator.measures.words import DASH, duration, interval, label, number, summed_up, word
from simulator.result import Arm, Result
from simulator.types import Interval, exact

WIDTH = 120
"""Columns where the output is a file or a pipe."""
ARM_WIDTH = 31
"""Columns that one arm takes in the table."""


class EventsPerSecond(ProgressColumn):
    """How fast events are learned, all duplicates of all arms together."""

    def render(self, task: Task) -> Text:
        """Events of the log per second, as each of the duplicates learned it."""
        return Text(f"{task.speed or 0:,.0f} events/s", style="progress.data.speed")


def progress_bar(console: Console, *columns: str | ProgressColumn) -> Progress:
    """A bar with the count and these columns behind it: by default events/s and the time left."""
    columns = columns or (EventsPerSecond(), "left", TimeRemainingColumn(elapsed_when_finished=True))
    return Progress("{task.description}", BarColumn(), MofNCompleteColumn(), *columns, console=console)


def open_console() -> Console:
    """Standard output; wide enough for the table where it is a file or a pipe."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def arm_table(arms: Iterable[Arm]) -> Table:
    """A table without rows: a column of names, and one for each arm."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("")
    for arm in arms:
        table.add_column(label(arm.spec), justify="right", no_wrap=True)
    return table


def tables(result: Result, width: int) -> Iterator[Table]:
    """One row per measure, one column per arm: mean, 95 % interval, and ratio to the first arm. As many tables as the
    width asks for, each with the first arm in it."""
    first, rest = result.arms[0], result.arms[1:]
    step = max(1, (width - 20) // ARM_WIDTH - 1)
    for start in range(0, max(len(rest), 1), step):
        arms = [first, *rest[start : start + step]]
        table = arm_table(arms)
        for measure in summed_up((arm.measures for arm in result.arms), MEASURES):
            wording = word(measure)
            table.add_row(wording.words, *(_cell(arm, first, measure, wording.places) for arm in arms))
        if any("train_seconds" in arm.costs for arm in result.arms):
            table.add_row("train time", *(_seconds(arm, first) for arm in arms))
        yield table
    if result.baselines:
        yield _baselines(result)


def _baselines(result: Result) -> Table:
    """A row for each of them: accuracy alone, to compare with that of the arms."""
    table = Table(box=SIMPLE_HEAD)
    measures = summed_up(result.baselines.values())
    for heading in ("baseline", *(word(name).words for name in measures)):
        table.add_column(heading, justify="left" if heading == "baseline" else "right")
    for name, accuracies in result.baselines.items():
        table.add_row(name, *(interval(accuracies.get(measure), word(measure).places)[0] for measure in measures))
    return table


def _cell(arm: Arm, first: Arm, measure: str, places: int | None) -> str:
    mean, limits = interval(arm.measures.get(measure), places)
    return " ".join(
        filter(None, [mean, limits.replace(" to ", "–"), _ratio_text(arm, first, ratio_to(arm, first, measure))])
    )


def _seconds(arm: Arm, first: Arm) -> str:
    seconds, ratio = arm.costs.get("train_seconds"), arm.cost_ratio(first, "train_seconds")
    if not seconds:
        return DASH
    return f"{duration(seconds)} {_ratio_text(arm, first, exact(ratio) if ratio else None)}".strip()


def _ratio_text(arm: Arm, first: Arm, ratio: Interval | None) -> str:
    """The ratio to the first arm, such as `×0.45`; close to 1 it takes more digits to say anything."""
    if arm is first or ratio is None:
        return ""
    places = 4 if abs(ratio.mean - 1) <= 0.05 else 2 if ratio.mean >= 0.01 else None
    return f"[bold]×{number(ratio.mean, places)}[/bold]"
