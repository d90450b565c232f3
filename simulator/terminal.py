"""What `flicker run` shows: a progress bar while it works, a table when it is done."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from simulator.report.finding import ratio_to
from simulator.report.result import Arm, Result
from simulator.report.words import DASH, duration, interval, label, number

COLUMNS = (
    ("PD", "pd", None),
    ("pair swaps", "swaps.pair", None),
    ("top-1 swaps", "swaps.top1", None),
    ("refresh pair swaps", "refresh_swaps.pair", None),
    ("log loss", "log_loss", 4),
    ("AUC", "auc", 4),
    ("ranking loss", "ranking_loss", 4),
)
"""Heading, measure, decimal places (three significant digits where None)."""
WIDTH = 132
"""Columns of the table where the output is no terminal that knows better."""


class EventsPerSecond(ProgressColumn):
    """How fast events are learned, all duplicates of all arms together."""

    def render(self, task: Task) -> Text:
        """Events of the log per second, as each of the duplicates learned it."""
        return Text(f"{task.speed or 0:,.0f} events/s", style="progress.data.speed")


def progress_bar(console: Console) -> Progress:
    """Events learned, events/s and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        EventsPerSecond(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
    )


def open_console() -> Console:
    """Standard output; wide enough for the table where it is a file or a pipe."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def table(result: Result) -> Table:
    """One row per arm: mean, ratio to the first arm, and 95 % interval of each measure."""
    drawn = Table(caption="mean  ×ratio to the first arm / (95 % interval)", caption_justify="left", show_lines=True)
    drawn.add_column("arm", no_wrap=True)
    for heading, _, _ in COLUMNS:
        drawn.add_column(heading, justify="right")
    drawn.add_column("train time", justify="right")
    for arm in result.arms:
        cells = [_cell(arm, result.arms[0], measure, places) for _, measure, places in COLUMNS]
        seconds = arm.costs.get("train_seconds")
        drawn.add_row(label(arm.spec), *cells, duration(seconds) if seconds else DASH)
    return drawn


def _cell(arm: Arm, first: Arm, measure: str, places: int | None) -> str:
    mean, limits = interval(arm.measures.get(measure), places)
    ratio = ratio_to(arm, first, measure)
    beside = "" if arm is first or ratio is None else f" ×{number(ratio.mean, 2 if abs(ratio.mean - 1) > 0.05 else 4)}"
    return f"{mean}{beside}\n{limits.replace(' to ', '–')}"
