"""One self-contained page of a result: `write_report(folder)` turns result.json into report.html.

    finding.py    sentences computed from the numbers: page title, what you see, the claim above each picture
    charts.py     the kit of drawings: points as inline SVG, and as rows of a CSV file
    kit.py        the kit of pages: templates/kit.html, style sheets, looks of arms, two slates side by side
    page.py       what is on the page: templates/report.html
    pool.py       results of several seeds as one
    schema.py     docs/result.schema.json

No torch here: the run samples the activations and writes them into result.json. And no matplotlib, which takes 40 MB,
until something is drawn: the live page shares words, sentences and templates.
"""

from __future__ import annotations

from collections.abc import Sequence
from os.path import commonpath
from pathlib import Path

from simulator.errors import ResultError
from simulator.files import write_atomically
from simulator.result import Result, read_result, worlds_of


def write_report(folder: Path) -> Path:
    """Draw `folder`/report.html from what `flicker run`, `up` or `compare` left there; returns its path.

    The same files always give the same page. A page that was there before is replaced in one step.
    Raises ResultError where a file is missing, damaged or of another schema, or the page cannot be written.
    """
    return _write(read_result(folder), folder)


def read_results(folders: Sequence[Path]) -> Result:
    """The result of a folder; of several that are alike but for their seeds, or of a sweep of seeds, all as one.

    Raises FlickerError also where they do not measure the same.
    """
    from simulator.report.pool import pooled

    cells = [cell for folder in folders for cell in sorted(folder.glob("cells/*")) or [folder]]
    finished = [cell for cell in cells if (cell / "result.json").exists() or cell in folders]
    finished = [world for cell in finished for world in worlds_of(cell)]
    return pooled([(cell, read_result(cell)) for cell in finished])


def write_pooled(folders: Sequence[Path]) -> Path:
    """One page of several results in the folder that holds them; returns its path. Raises as `read_results`."""
    parent = folders[0] if len(folders) == 1 else Path(commonpath([folder.absolute() for folder in folders]))
    return _write(read_results(folders), parent)


def _write(result: Result, folder: Path) -> Path:
    from simulator.report.page import page

    target = folder / "report.html"
    try:
        write_atomically(target, page(result).encode())
    except OSError as error:
        raise ResultError(f"{target}: {(error.strerror or str(error)).lower()}: make the folder writable") from None
    return target
