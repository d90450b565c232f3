"""Errors meant for the user: one line that names the setting or row, its value, and a hint.

    FlickerError
    ├── SettingError   a flag, preset or spec that cannot be used
    ├── DataError      a log, mapping file or row that cannot be read
    └── ResultError    a result folder or snapshot that is missing, damaged or in the way

The command line prints the message and ends with exit code 2; anything else that is raised is a bug of ours.
"""

from __future__ import annotations


class FlickerError(ValueError):
    """Base of every error whose message is written for the user."""


class SettingError(FlickerError):
    """A setting is out of range or unknown.

    `SettingError("duplicates", 0, "at least 1")` reads: `duplicates = 0: at least 1`.
    """

    def __init__(self, setting: str, value: object, hint: str) -> None:
        super().__init__(f"{setting} = {value}: {hint}")
        self.setting, self.value, self.hint = setting, value, hint


class DataError(FlickerError):
    """A log, a mapping file or a row of them cannot be used; the message names file and line."""


class ResultError(FlickerError):
    """A result folder or a snapshot is missing, damaged, or holds something else."""
