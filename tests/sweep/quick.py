"""`flicker` whose runs draw no report, which takes them most of their time: `python -m tests.sweep.quick ARGUMENTS`."""

from __future__ import annotations

import sys
from pathlib import Path

import simulator.experiment.main
from simulator.cli import main
from simulator.sweep import backend
from simulator.sweep.record import Cell

ordinary = backend.command


def command(cell: Cell, out: Path) -> list[str]:
    """The command of a cell, of this module instead of `simulator`."""
    python, *module, run = ordinary(cell, out)[:4]
    assert module == ["-m", "simulator"]
    return [python, "-m", __spec__.name, run, *ordinary(cell, out)[4:]]


if __name__ == "__main__":
    simulator.experiment.main.write_report = lambda folder: folder / "report.html"
    backend.command = command
    sys.argv[0] = "flicker"
    main()
