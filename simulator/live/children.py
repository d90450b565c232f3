"""A supervised process: started with its output in a log file, watched, restarted when it dies, stopped by its id."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from simulator.process import last_line, launched, wait_or_kill

RESTARTS, RESTART_SPAN = 3, 60.0
"""A process that dies more often than this within so many seconds is dead for good."""
BAD_SETTING = 2
"""Exit code of a process that cannot run with its settings: starting it again would not help."""


@dataclass
class Child:
    """One process of the live system."""

    name: str
    command: list[str]
    """Program and arguments; the program is a path."""
    log: Path
    """Where its standard output and error go; what was there stays."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables beside those of this process."""
    may_end: bool = False
    """Whether it may end by itself with exit code 0, as timed traffic does."""
    process: subprocess.Popen[bytes] | None = None
    struck: bool = False
    """Whether `kill` ended it: a death that counts for nothing."""
    bad_setting: bool = False
    """Whether it ended because it cannot run with its settings."""
    deaths: list[float] = field(default_factory=list)
    """When it died, on the monotonic clock."""

    def start(self) -> None:
        """Start it in a session of its own: Ctrl-C reaches this process alone, and the order of ending is ours."""
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(
                launched(self.command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | self.environment,
                start_new_session=True,
            )

    def watch(self) -> str | None:
        """Restart it where it died; returns why it is dead for good, or None."""
        code = None if self.process is None else self.process.poll()
        if code is None or (code == 0 and self.may_end):
            return None
        if self.struck:
            self.struck = False
            self.start()
            return None
        now = time.monotonic()
        self.deaths = [death for death in self.deaths if now - death < RESTART_SPAN] + [now]
        self.bad_setting = code == BAD_SETTING
        if self.bad_setting or len(self.deaths) > RESTARTS:
            return f"{self.name}: ended with {_ending(code)}: {self.last_words()} (log: {self.log})"
        self.start()
        return None

    def ended(self) -> bool:
        """Whether it is not running."""
        return self.process is None or self.process.poll() is not None

    def kill(self) -> None:
        """SIGKILL, where it still runs, to see what follows: `watch` starts it again, however often."""
        if not self.ended():
            assert self.process is not None
            self.struck = True
            self.process.kill()

    def ask_to_stop(self) -> None:
        """SIGTERM, where it still runs."""
        if not self.ended():
            assert self.process is not None
            self.process.send_signal(signal.SIGTERM)

    def stop(self, seconds: float) -> None:
        """End it in order, or after `seconds` at once."""
        self.ask_to_stop()
        self.finish(seconds)

    def finish(self, seconds: float) -> None:
        """Wait until it has ended after it was asked to; after `seconds` end it at once."""
        if self.process is not None:
            wait_or_kill(self.process, max(seconds, 0.1))

    def last_words(self) -> str:
        """The last line of its log."""
        try:
            return last_line(self.log.read_text(errors="replace")) or "no message"
        except OSError:
            return "no log"


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
