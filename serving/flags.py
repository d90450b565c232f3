"""Flags of a serving process, from a dataclass whose docstrings are the help; what cannot be used is one line."""

from __future__ import annotations

import contextlib
import io
import re
from typing import TypeVar

import tyro

from simulator.errors import FlickerError

Flags = TypeVar("Flags")


def parse(kind: type[Flags], program: str, arguments: list[str]) -> Flags:
    """Flags of a program. Prints help and exits with 0 for --help; raises FlickerError for what cannot be used."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(kind, prog=program, args=arguments)
    except SystemExit as ended:
        if not ended.code:
            raise
        lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip("│ ") for line in complaint.getvalue().splitlines()]
        words = " ".join(line for line in lines if line and line[0] not in "╭╰─" and "full helptext" not in line)
        raise FlickerError(f"{words.partition(' Argument helptext: ')[0]}; see {program} --help") from None
