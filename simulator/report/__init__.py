"""One self-contained page that shows what a run found: `write_report(folder)` turns result.json into report.html.

    finding.py   what the numbers say, in sentences: page title, what you see, what to do next, the claim above each
                 picture
    charts.py    matplotlib drawings as inline SVG that follow the page's light or dark colours
    page.py      tables, pictures, glossary and settings together; html.py pieces of a page, style.css its look

No torch here: the run samples the activations and writes them into result.json.
"""

from __future__ import annotations

from pathlib import Path

from simulator.errors import ResultError
from simulator.files import write_atomically
from simulator.report.page import page
from simulator.result import read_result


def write_report(folder: Path) -> Path:
    """Draw `folder`/report.html from `folder`/result.json and `folder`/config.json; returns its path.

    The same two files always give the same page. A page that was there before is replaced in one step.
    Raises ResultError where one of the files is missing, damaged or of another schema, or the page cannot be written.
    """
    html = page(read_result(folder))
    target = folder / "report.html"
    try:
        write_atomically(target, html.encode())
    except OSError as error:
        raise ResultError(f"{target}: {(error.strerror or str(error)).lower()}: make the folder writable") from None
    return target
