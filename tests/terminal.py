"""The command line, run in this process, which has torch imported already."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from simulator.cli import main

SMALL_RUN = (
    "--preset smoke --batch 32 --window 4 --hidden 16 8 --k 5 --candidates 30 --queries 40 --generations 3".split()
)
"""Flags of a run of about a second."""


class Said(NamedTuple):
    """What a command left behind on the terminal."""

    code: int
    out: str
    err: str


class Terminal:
    """Call it with the arguments of `flicker`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._captured = monkeypatch, capfd

    def __call__(self, *arguments: str | Path) -> Said:
        self._monkeypatch.setattr(sys, "argv", ["flicker", *map(str, arguments)])
        code: Any = 0
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Said(code, *self._captured.readouterr())


def assert_refused(said: Said, *words: str) -> None:
    """One line on standard error that holds the words; exit code 2."""
    assert said.code == 2
    assert said.err.count("\n") == 1 and said.err.endswith("\n") and said.err.startswith("flicker: "), said.err
    assert [word for word in words if word not in said.err] == [], said.err
