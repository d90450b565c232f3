"""One self-contained page that shows what was found: `write_report(folder)` turns result.json into report.html.

    finding.py    what the numbers say, in sentences: page title, what you see, the claim above each picture
    charts.py     the kit of drawings: points as inline SVG, and as rows of a CSV file
    templates.py  the kit of pages: templates/kit.html, style.css
    page.py       what is on the page: templates/report.html

No torch here: the run samples the activations and writes them into result.json.
"""

from __future__ import annotations

from pathlib import Path

from simulator.errors import ResultError
from simulator.files import write_atomically
from simulator.report.page import page
from simulator.result import read_result


def write_report(folder: Path) -> Path:
    """Draw `folder`/report.html from what `flicker run`, `up` or `compare` left there; returns its path.

    The same files always give the same page. A page that was there before is replaced in one step.
    Raises ResultError where a file is missing, damaged or of another schema, or the page cannot be written.
    """
    html = page(read_result(folder))
    target = folder / "report.html"
    try:
        write_atomically(target, html.encode())
    except OSError as error:
        raise ResultError(f"{target}: {(error.strerror or str(error)).lower()}: make the folder writable") from None
    return target
