"""`make tutorial`: run docs/tutorial.ipynb as its reader would, and keep what its cells print in it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "docs" / "tutorial.ipynb"


def executed(folder: Path) -> Any:
    """The notebook after every cell was run in a folder, with the commands and modules of this checkout. Raises
    CellExecutionError."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    own = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=str(folder / "kernel"))  # no port
    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(nbformat.read(TUTORIAL, 4), km=kernel, timeout=300, resources=where)
    client.execute(env=own)
    return client.nb


def main(out: Path = TUTORIAL) -> None:
    """Write it, or a copy: of a table the HTML alone, no times, no colours of a terminal."""
    with TemporaryDirectory() as folder:
        made = executed(Path(folder))
    for cell in made.cells:
        cell.metadata = {}
        for output in cell.get("outputs", []):
            if "text" in output:
                output.text = re.sub(r"\x1b\[[0-9;]*m", "", output.text)
            if "text/html" in output.get("data", {}):
                output.data.pop("text/plain")
    nbformat.write(made, out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
