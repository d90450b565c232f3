"""Shared by every live process: logging, a stop flag, retries with backoff, children, and how it ends.

A process runs in three verbs (startup, main loop, shutdown); SIGTERM, SIGINT and SIGHUP (its terminal is gone) raise a
flag that its loops look at.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from simulator.errors import FlickerError, SettingError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Result = TypeVar("Result")
Setting = TypeVar("Setting", str, int, float)
ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""Signals that ask a process to end."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between attempts: doubled each time, so that all are back within 2 s of what they waited for."""


# Linux tells a process that its parent died (PR_SET_PDEATHSIG = 1); the order survives exec. A small program sets it
# and becomes the child, since code between fork and exec of a process with threads may hang. Elsewhere a child whose
# parent was killed stays.
LAUNCH = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]): sys.exit("the parent died first")
os.execv(sys.argv[2], sys.argv[2:])
"""


class Parser(argparse.ArgumentParser):
    """Reports errors in one line, as all commands do."""

    def error(self, message: str) -> NoReturn:
        """Raises FlickerError."""
        raise FlickerError(f"{message}; see {self.prog} --help")


class Stopped(Exception):
    """The stop flag was raised while something was waited for."""


def configure_logging() -> None:
    """One line per event on standard error: time, level, who, what."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", force=True
    )


def end_on_sigterm() -> None:
    """SIGTERM ends the process at once, with exit code 0, until `stop_on_signals`: for a startup of several seconds.

    The first process of a container would otherwise not end at all: there a signal without a handler does nothing.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))


def stop_on_signals() -> threading.Event:
    """The flag that the signals of ENDING raise from now on, instead of ending the process. For the main thread.

    But not SIGHUP where it is ignored already: so `nohup` asks for.

    A thread raises it: a handler runs inside the main thread, perhaps while that holds the flag's own lock in `wait`,
    and would wait for it for ever. What the signals write to the pipe needs no lock.
    """
    flag = threading.Event()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in ENDING:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: None)

    def raise_flag() -> None:
        while ENDING.isdisjoint(os.read(reader, 1)):
            pass
        flag.set()

    threading.Thread(target=raise_flag, name="stop on signals", daemon=True).start()
    return flag


def retry(
    action: Callable[[], Result],
    retried: type[Exception] | tuple[type[Exception], ...],
    stop: threading.Event,
    on_error: Callable[[Exception], None],
) -> Result:
    """The result of `action`, retried with backoff after each error of the types `retried`; calls `on_error` with it.

    Raises Stopped when the flag is raised in between, and any other error at once.
    """
    pause = FIRST_PAUSE
    while True:
        try:
            return action()
        except retried as problem:
            on_error(problem)
        if stop.wait(pause):
            raise Stopped
        pause = min(2 * pause, LONGEST_PAUSE)


def repeat(
    action: Callable[[], object],
    retried: type[Exception] | tuple[type[Exception], ...],
    stop: threading.Event,
    on_error: Callable[[Exception], None],
) -> None:
    """`action` again and again until the flag is raised; after errors as `retry`."""
    with contextlib.suppress(Stopped):
        while not stop.is_set():
            retry(action, retried, stop, on_error)


def launched(command: list[str]) -> list[str]:
    """The command of a child that ends with the thread that starts it, also where that is killed."""
    return [sys.executable, "-ISc", LAUNCH, str(os.getpid()), *command]


def wait_or_kill(child: subprocess.Popen[Any], seconds: float) -> None:
    """Wait until a child that was asked to end has ended; after `seconds` end it at once."""
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def last_line(text: str) -> str:
    """The last non-empty line of a log, empty where there is none."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listened on a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]


def require_free(setting: str, port: int) -> None:
    """Raise SettingError where a port of the loopback address cannot be had; 0 stands for any that can."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as problem:
        reason = os.strerror(problem.errno) if problem.errno else problem
        raise SettingError(setting, port, f"{reason}: name a free port, or 0 for any") from None


def instruments(registry: CollectorRegistry) -> tuple[partial[Counter], partial[Gauge], partial[Histogram]]:
    """What makes counters, gauges and histograms of a registry."""
    from prometheus_client import Counter, Gauge, Histogram

    return partial(Counter, registry=registry), partial(Gauge, registry=registry), partial(Histogram, registry=registry)


def say_ready(process: str, **about: str) -> None:
    """A line of JSON on standard output, for the process that started this one."""
    print(json.dumps({"ready": process, **about}), flush=True)


def from_environment(name: str, default: Setting) -> Setting:
    """An environment variable, of the default's type; the default where it is not set or empty. Raises SettingError."""
    text = os.environ.get(name)
    try:
        return type(default)(text) if text else default
    except ValueError:
        raise SettingError(name, text, "a whole number" if isinstance(default, int) else "a number") from None


def require_ours(package: str) -> None:
    """Raises FlickerError where another package of that name shadows ours: `trainer` is a common one."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None or Path(spec.origin).parents[1] != Path(__file__).parents[1]:
        origin = spec.origin if spec else "nowhere"
        raise FlickerError(f"package {package} = {origin}: not the one beside simulator: run in the project's folder")


def run(name: str, main: Callable[[list[str]], None]) -> None:
    """Run a process to its end; a FlickerError ends it with one line and exit code 2."""
    try:
        main(sys.argv[1:])
    except FlickerError as problem:
        print(f"{name}: {' '.join(str(problem).splitlines())}", file=sys.stderr)
        sys.exit(2)


def peak_memory() -> int:
    """Most bytes of memory that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
